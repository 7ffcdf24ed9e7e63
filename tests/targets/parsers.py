"""Each target's own parser: it takes a folder of files, and raises where the tool would refuse one of them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import jsonschema
import kubernetes_validate
import yaml

# Schemas of custom resources, and plugins of Terraform, where a machine has them.
CRDS = Path(os.environ.get("MELANGE_CRDS", Path(__file__).resolve().parents[2].parent / "shared" / "data" / "crds"))
PLUGINS = os.environ.get("TERRAFORM_PLUGINS", "")
KUBERNETES = "1.33"


class RefusedError(Exception):
    """What a tool says of a file that it does not take."""


def documents(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Kubernetes objects of the manifests."""
    for path in sorted(folder.glob("manifests/*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path, document


def check_cluster(folder: Path) -> None:
    """Objects of Kubernetes by its own schemas, custom resources by theirs, and the folder by kustomize."""
    for path, document in documents(folder):
        if document["apiVersion"] in {"v1", "apps/v1", "policy/v1", "rbac.authorization.k8s.io/v1"}:
            try:
                kubernetes_validate.validate(document, KUBERNETES, strict=True)
            except kubernetes_validate.ValidationError as fault:
                raise RefusedError(f"{path}: {fault}") from fault
        else:
            check_custom(document)
    if shutil.which("kubectl"):
        _run(["kubectl", "kustomize", str(folder)])


def check_scalers(folder: Path) -> None:
    """The ScaledObjects of a schedule by KEDA's schema."""
    for path in sorted(folder.glob("scaled-object*.yaml")):
        check_custom(yaml.safe_load(path.read_text()))


def check_custom(document: dict[str, Any]) -> None:
    """A custom resource by its schema, strictly; nothing where the schemas are not there."""
    if not CRDS.is_dir():
        return
    group, _, version = document["apiVersion"].partition("/")
    validators, found = _validators(document["kind"])
    if found != group or version not in validators:
        raise RefusedError(f"no {document['kind']} of {document['apiVersion']}")
    for fault in validators[version].iter_errors(document):
        raise RefusedError(f"{document['kind']}: {fault.message}")


@cache
def _validators(kind: str) -> tuple[dict[str, jsonschema.Draft202012Validator], str]:
    """By version, and their group; made once, for one of KServe's takes ten seconds."""
    content = json.loads(gzip.decompress((CRDS / f"{kind}.json.gz").read_bytes()))
    made = {
        version: jsonschema.Draft202012Validator(_strict(schema)) for version, schema in content["versions"].items()
    }
    return made, content["group"]


def _strict(schema: Any) -> Any:
    """No keys beside those that are listed, unless the schema says that it keeps them."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    keeps = made.get("x-kubernetes-preserve-unknown-fields")
    # metadata is Kubernetes' own and not in such schemas.
    if isinstance(made.get("properties"), dict) and not keeps and "additionalProperties" not in made:
        made["additionalProperties"] = False
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return made


def check_compose(folder: Path) -> None:
    """Every file by docker compose, where it is there."""
    for path in sorted(folder.rglob("compose.yaml")):
        content = yaml.safe_load(path.read_text())
        if not set(content) <= {"name", "services", "volumes"}:
            raise RefusedError(f"{path}: keys {sorted(content)}")
        if _has_compose():
            _run(["docker", "compose", "-f", str(path), "config", "--quiet"])


@cache
def _has_compose() -> bool:
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


def check_sky(folder: Path) -> None:
    """Every task as SkyPilot reads it, and its script by a shell."""
    import sky
    from sky.serve.serve_utils import validate_service_task

    for path in sorted(folder.rglob("*.yaml")):
        try:
            task = sky.Task.from_yaml(str(path))
        except Exception as fault:
            raise RefusedError(f"{path}: {fault}") from fault
        try:
            validate_service_task(task, pool=False)
        except Exception as fault:
            raise RefusedError(f"{path}: {fault}") from fault
        _check_shell(str(task.run))
    for path in folder.glob("*.py"):
        try:
            compile(path.read_text(), str(path), "exec")
        except SyntaxError as fault:
            raise RefusedError(str(fault)) from fault


def check_dstack(folder: Path) -> None:
    """The service as dstack reads it, and its commands by a shell."""
    from dstack._internal.core.models.configurations import parse_run_configuration
    from dstack._internal.utils.interpolator import VariablesInterpolator

    for path in sorted(folder.glob("*.yml")):
        content = yaml.safe_load(path.read_text())
        try:
            service = parse_run_configuration(content)
            for group in service.groups or service.replicas or []:
                for command in group.commands:
                    VariablesInterpolator({}).interpolate_or_error(command)
        except Exception as fault:
            raise RefusedError(f"{path}: {fault}") from fault
        for group in content["replicas"]:
            for command in group["commands"]:
                _check_shell(command)


def check_terraform(folder: Path) -> None:
    """Every file by python-hcl2; by terraform fmt, and with its plugins by validate, where they are there."""
    for path in sorted(folder.glob("*.tf")):
        try:
            hcl2.loads(path.read_text())
        except Exception as fault:
            raise RefusedError(f"{path}: {fault}") from fault
    for path in sorted(folder.glob("startup/*.sh")):
        _check_shell(path.read_text())
    if shutil.which("terraform"):
        _run(["terraform", f"-chdir={folder}", "fmt", "-check"])
    if shutil.which("terraform") and PLUGINS and not (folder / "gcp.tf").exists():
        with tempfile.TemporaryDirectory() as place:
            shutil.copytree(folder, place, dirs_exist_ok=True)
            _run(["terraform", f"-chdir={place}", "init", "-input=false", f"-plugin-dir={PLUGINS}"])
            _run(["terraform", f"-chdir={place}", "validate"])


def _check_shell(script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(done.stderr)


def _run(command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    if done.returncode:
        raise RefusedError(done.stderr + done.stdout)


CHECKS: dict[str, Callable[[Path], None]] = {
    "kubernetes": check_cluster,
    "kserve": check_cluster,
    "llm-d": check_cluster,
    "aibrix": check_cluster,
    "docker-compose": check_compose,
    "skypilot": check_sky,
    "dstack": check_dstack,
    "terraform": check_terraform,
}
