"""dstack: one service with one group of replicas per replica type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from melange.deploy.as_yaml import yaml_text
from melange.deploy.elsewhere import not_by_size
from melange.deploy.group import LoadedGroup, base_name, cautions_of, groups_of
from melange.deploy.heading import comments, heading_of
from melange.deploy.manifest import Manifest
from melange.deploy.server_options import ServerOptions
from melange.deploy.target import Target, option
from melange.deploy.targets.launchers.shell import check_names, command_of, instance_cautions
from melange.errors import InputError
from melange.plan.plan import Plan

_FILE = "service.dstack.yml"
_BACKEND = {
    name: name
    for name in ("aws", "azure", "gcp", "lambda", "runpod", "nebius", "crusoe", "vultr", "digitalocean", "verda", "oci")
}
# dstack's names that differ from ours; with the memory size if a name has several.
_GPU = {
    "V100-16GB": "V100:16GB",
    "V100-32GB": "V100:32GB",
    "A100-40GB": "A100:40GB",
    "A100-PCIe-40GB": "A100:40GB",
    "A100-80GB": "A100:80GB",
    "A100-PCIe-80GB": "A100:80GB",
    "H100-80GB": "H100:80GB",
    "H100-PCIe-80GB": "H100:80GB",
    "H100-NVL-94GB": "H100NVL",
    "GH200-96GB": "GH200",
    "RTXA6000": "A6000",
}
_ABOUT = """\
Apply: dstack apply -f {file}, with HF_TOKEN in the environment (or as a dstack secret). Groups of replicas are the
plan's types, each with as many instances as planned{scaling}. dstack sends a request to any of them, regardless of
type and size.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DstackOptions(ServerOptions):
    """The options of dstack.

    Parameters
    ----------
    scaling
        ``fixed``, the planned number of instances, or ``rps``, by requests per second.
    least_instances
        Minimum of each type, however little traffic there is; None: the planned number.
    """

    scaling: Literal["fixed", "rps"] = option("fixed", "Fixed as planned, or by requests per second.")
    least_instances: int | None = option(None, "Minimum instances per type; null: as planned.")

    def __post_init__(self) -> None:
        ServerOptions.__post_init__(self)
        if self.least_instances is not None and self.least_instances < 0:
            raise InputError(f"least_instances must be >= 0, got {self.least_instances}")


def _render(plan: Plan, options: DstackOptions, written: date) -> Manifest:
    groups, base = groups_of(plan, options, is_one_process=True), base_name(plan, options)
    check_names(groups, "dstack")
    cautions = [
        *cautions_of(groups),
        *instance_cautions(groups, "dstack", _BACKEND),
        *not_by_size(plan, "dstack", "melange balance in front of servers that another target starts"),
    ]
    scaling = "; scaled by requests per second" if options.scaling == "rps" else ""
    about = " ".join(_ABOUT.format(file=_FILE, scaling=scaling).split())
    heading = comments([*heading_of(plan, written, cautions), about])
    text = f"{heading}\n\n{yaml_text([_service(groups, base, options)])}"
    return Manifest(target="dstack", files={_FILE: text}, cautions=tuple(cautions))


def _service(groups: Sequence[LoadedGroup], base: str, options: DstackOptions) -> dict[str, Any]:
    launch = groups[0].launch
    longest_s = max(group.launch.drain_s for group in groups)
    where: dict[str, list[str]] = {
        # A provider that dstack does not know could be any.
        "backends": _all_or_none([_BACKEND.get(group.node.provider, "") for group in groups]),
        "regions": _all_or_none([group.node.region for group in groups]),
        "instance_types": _all_or_none([group.node.instance_type for group in groups]),
    }
    return {
        "type": "service",
        "name": base,
        "port": launch.port,
        "model": launch.served_name,
        "env": ["HF_TOKEN"],
        "probes": [{"type": "http", "url": "/health", "interval": "10s", "timeout": "5s"}],
        "replicas": [_replicas(group, options) for group in groups],
        "stop_duration": f"{longest_s + 30}s",
        **{key: names for key, names in where.items() if names},
    }


def _replicas(group: LoadedGroup, options: DstackOptions) -> dict[str, Any]:
    node = group.node
    gpu = _GPU.get(node.accelerator, node.accelerator)
    least = node.instances if options.least_instances is None else min(options.least_instances, node.instances)
    most = -(-group.most_replicas // group.replicas_per_node)
    rate = round(group.request_rate * group.replicas_per_node, 3)
    scaled = {
        "count": f"{least}..{most}",
        "scaling": {"metric": "rps", "target": rate},
    }
    return {
        "name": group.key,
        **(scaled if options.scaling == "rps" and rate > 0 else {"count": node.instances}),
        "image": group.launch.image,
        "commands": [command_of(group)],
        "resources": {
            "gpu": f"{gpu}:{node.accelerators}",
            "shm_size": "16GB",
            "disk": {"size": f"{group.launch.disk_gb}GB.."},
        },
        "spot_policy": "spot" if node.is_spot else "on-demand",
    }


def _all_or_none(names: Sequence[str]) -> list[str]:
    """Distinct names, or an empty list if one is unknown: a list restricts dstack to its names."""
    return list(dict.fromkeys(names)) if all(names) else []


TARGET = Target(
    name="dstack",
    about="dstack: one service, one group of replicas per replica type.",
    options=DstackOptions,
    render=_render,
)
