"""Names of users stay names in every file."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy_cases import two_types
from hostile import HOSTILE, hostile_plan
from plan_cases import answering
from starters import STARTERS, pod_of

from melange.deploy.manifest import Manifest
from melange.deploy.render import render
from melange.errors import InputError

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("is_model_alone", [True, False])
@pytest.mark.parametrize("target", STARTERS)
def test_what_users_name_cannot_break_out(target: str, is_model_alone: bool) -> None:
    """YAML reads back with the keys that it has for plain names; comments stay comments; files have plain names."""
    plain = [keys(one) for one in parsed(render(hostile_plan("plain"), target))]
    made = 0
    for text in HOSTILE:
        try:
            plan = answering(hostile_plan("plain"), model=text) if is_model_alone else hostile_plan(text)
        except InputError:
            continue  # what a terminal would obey is refused as a name before any file is written
        try:
            manifest = render(plan, target)
        except InputError as error:
            if error.hint is None:
                raise
            continue
        made += 1
        assert [keys(one) for one in parsed(manifest)] == plain
        assert all(re.fullmatch(r"[a-z0-9./-]+", name) for name in manifest.files)
        top, _, _ = next(iter(manifest.files.values())).partition("\n\n")
        assert all(line.startswith("#") for line in top.splitlines())
    assert made >= (30 if is_model_alone else 4)


def parsed(manifest: Manifest) -> list[Any]:
    """Everything that its YAML files hold."""
    texts = [text for name, text in manifest.files.items() if name.endswith((".yaml", ".yml"))]
    return [one for text in texts for one in yaml.safe_load_all(text)]


def keys(value: object) -> object:
    """Its keys at every depth and types of values, less what only holds names that have a certain form."""
    if isinstance(value, dict):
        return {
            key: keys(one) for key, one in value.items() if key not in {"nodeSelector", "regions", "instance_types"}
        }
    return [keys(one) for one in value] if isinstance(value, list) else type(value).__name__


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable() and text.strip()])
def test_a_cluster_gets_the_model_as_it_is_called(text: str) -> None:
    """An argument of its own, in which the kubelet puts nothing in the place of a variable."""
    plan = answering(two_types(), model=text)
    (engine,) = pod_of(render(plan, "kubernetes", name="chat", routing="none"), "g5-xlarge")["containers"]
    assert engine["args"][1].replace("$$", "$") == text
    assert not re.search(r"(?<!\$)(\$\$)*\$\(", engine["args"][1])


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable() and text.strip()])
def test_a_shell_gets_the_model_of_a_task_as_it_is_called(text: str) -> None:
    """Also where dstack would read a variable."""
    plan = answering(two_types(), model=text)
    service = yaml.safe_load(render(plan, "dstack").files["service.dstack.yml"])
    command = service["replicas"][0]["commands"][0]
    assert shlex.split(command)[2] == text
    assert "${{" not in command


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable() and text.strip()])
def test_an_instance_starts_the_model_as_it_is_called(text: str, tmp_path: Path) -> None:
    """The startup script run by a shell, with a docker that says what it was asked for, and no token in it."""
    plan = answering(two_types(), model=text)
    script = render(plan, "terraform", name="chat").files["startup/aws-us-east-1-g5-xlarge.sh"]
    docker = 'docker() { [ "$1" = rm ] || printf "%s\\0" "$@"; }; HF_SECRET=""; '
    done = subprocess.run(["sh", "-c", docker + script], capture_output=True, text=True, check=True, cwd=tmp_path)
    words = done.stdout.split("\0")
    assert words[words.index("serve") + 1] == text
    assert words[words.index("--gpus") + 1] == '"device=0"'
    assert words[words.index("--env") + 1] == "HF_TOKEN"
    assert list(tmp_path.iterdir()) == []
