"""What the tests of targets that start servers share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml
from deploy_cases import two_types
from plan_cases import answering

from melange.deploy.manifest import Manifest
from melange.deploy.render import TARGETS
from melange.deploy.server_options import ServerOptions
from melange.plan.plan import Plan

STARTERS = tuple(name for name, target in TARGETS.items() if issubclass(target.options, ServerOptions))
CLUSTER = ("kubernetes", "kserve", "llm-d", "aibrix")


def in_market(market: str, provider: str = "aws", **offer: object) -> Plan:
    """Two A10G and an A100 in a market of a cloud."""
    plan = two_types()
    types = [
        replace(one, offer=replace(one.offer, market=market, provider=provider, **offer)) for one in plan.replica_types
    ]
    return answering(plan, replica_types=tuple(types))


def objects_of(manifest: Manifest) -> list[dict[str, Any]]:
    """Kubernetes objects of its files."""
    return [
        one
        for name, text in manifest.files.items()
        if name.startswith("manifests/")
        for one in yaml.safe_load_all(text)
    ]


def one_of(manifest: Manifest, kind: str, name: str = "") -> dict[str, Any]:
    """The object of a kind whose name ends so."""
    (found,) = (one for one in objects_of(manifest) if one["kind"] == kind and one["metadata"]["name"].endswith(name))
    return found


def pod_of(manifest: Manifest, name: str = "g5-xlarge") -> dict[str, Any]:
    """The pod of a type, whatever makes it."""
    if manifest.target == "kserve":
        return one_of(manifest, "LLMInferenceService", name)["spec"]["template"]
    return one_of(manifest, "Deployment", name)["spec"]["template"]["spec"]
