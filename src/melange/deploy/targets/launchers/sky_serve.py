"""SkyPilot: one service per replica type with the planned number of instances, or one service for all types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from melange.deploy.as_yaml import yaml_text
from melange.deploy.elsewhere import is_size_aware, not_by_size
from melange.deploy.group import Group, LoadedGroup, base_name, cautions_of, groups_of
from melange.deploy.heading import comments, heading_of, paragraphs
from melange.deploy.manifest import Manifest
from melange.deploy.server_options import ServerOptions
from melange.deploy.target import Target, option
from melange.deploy.targets.launchers.shell import check_names, command_of, instance_cautions
from melange.errors import Caution, InputError
from melange.plan.plan import Plan

# Providers, by their names in SkyPilot.
CLOUDS = {
    **{
        name: name
        for name in ("aws", "azure", "gcp", "lambda", "nebius", "runpod", "verda", "oci", "vast", "paperspace")
    },
    "digitalocean": "do",
}
# SkyPilot's accelerators that differ from ours.
_ACCELERATOR = {
    "V100-16GB": "V100",
    "A100-40GB": "A100",
    "A100-PCIe-40GB": "A100",
    "A100-PCIe-80GB": "A100-80GB",
    "H100-80GB": "H100",
    "H100-PCIe-80GB": "H100",
    "H100-NVL-94GB": "H100-NVL",
    "GH200-96GB": "GH200",
    "RTX6000Ada": "RTX6000-Ada",
    "RTXPRO6000": "RTXPRO6000",
}
# Names in nvidia-smi, as shell patterns.
_DRIVER_NAME = {
    "T4": "*T4",
    "V100-16GB": "*V100*16GB",
    "V100-32GB": "*V100*32GB",
    "A10": "*A10",
    "A10G": "*A10G",
    "A100-40GB": "*A100*40GB*",
    "A100-80GB": "*A100*80GB*",
    "A100-PCIe-80GB": "*A100*80GB*",
    "L4": "*L4",
    "L40": "*L40",
    "L40S": "*L40S",
    "H100-80GB": "*H100*HBM3*",
    "H100-PCIe-80GB": "*H100*PCIe*",
    "H100-NVL-94GB": "*H100*NVL*",
    "H200": "*H200*",
    "GH200-96GB": "*GH200*",
    "B200": "*' B200'*",
    "B300": "*' B300'*",
    "RTX4090": "*RTX*4090*",
    "RTX5090": "*RTX*5090*",
    "RTXA6000": "*RTX*A6000*",
    "RTX6000Ada": "*RTX*6000*Ada*",
    "RTXPRO6000": "*RTX*PRO*6000*",
}
# Valid names in target_qps_per_replica, according to SkyPilot's schema.
_RATED = re.compile(r"[A-Z0-9]+:[0-9]+")
# SkyPilot rejects a rate of 0 [1/s]; it is used for types without their own traffic, which are spares.
_LEAST_RATE = 0.001
_ABOUT = """\
One service per replica type, each with as many instances as planned: {commands}, with HF_TOKEN in the environment.

In front of them: {front}. SkyPilot replaces lost instances, and sends a request to the instance with the fewest,
regardless of size.
"""
_ABOUT_ONE = """\
One service of all types: sky serve up -n {name} service.yaml --secret HF_TOKEN, with HF_TOKEN in the environment.

SkyPilot chooses which instances it rents and how many, by the requests per second that each can serve; the number of
each cannot be set. Use layout=services for that.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyPilotOptions(ServerOptions):
    """The options of SkyPilot.

    Parameters
    ----------
    layout
        ``services``, one per replica type, or ``one-service`` for all of them.
    """

    layout: Literal["services", "one-service"] = option("services", "One service per replica type, or one for all.")

    def __post_init__(self) -> None:
        ServerOptions.__post_init__(self)


def _render(plan: Plan, options: SkyPilotOptions, written: date) -> Manifest:
    groups, base = groups_of(plan, options, is_one_process=True), base_name(plan, options)
    check_names(groups, "SkyPilot")
    cautions = [*cautions_of(groups), *instance_cautions(groups, "SkyPilot", CLOUDS)]
    if options.layout == "one-service":
        cautions += [
            Caution(
                "counts", "SkyPilot cannot fix the number of instances of each type in a service; it adds up rates"
            ),
            *not_by_size(plan, "SkyPilot", "layout=services with melange deploy --to haproxy in front"),
        ]
        about = _ABOUT_ONE.format(name=base)
        tasks = {"service.yaml": _one_service(groups, base)}
    else:
        if is_size_aware(plan):
            cautions.append(
                Caution("routing", "SkyPilot cannot route by request size: put a gateway in front of its services")
            )
        about = _ABOUT.format(
            commands=" && ".join(f"sky serve up -y -n {one.name} {one.key}.yaml --secret HF_TOKEN" for one in groups),
            front="melange deploy plan.json --to haproxy --replica NAME=http://ENDPOINT for each, where ENDPOINT is "
            "printed by sky serve status --endpoint",
        )
        tasks = {f"{one.key}.yaml": service_of(one, {"replicas": one.node.instances}) for one in groups}
    heading = comments([*heading_of(plan, written, cautions), *paragraphs(about)])
    files = {name: f"{heading}\n\n{yaml_text([task])}" for name, task in tasks.items()}
    return Manifest(target="skypilot", files=files, cautions=tuple(cautions))


def service_of(group: Group, instances: dict[str, Any], *, has_spot: bool = False) -> dict[str, Any]:
    """The service of one type, with its instances as SkyPilot states them; ``has_spot``: also spot instances."""
    resources = _resources(group) | ({"use_spot": True} if has_spot else {})
    return {
        "name": group.name,
        "service": {**_probe([group]), **instances, "load_balancing_policy": "least_load"},
        "resources": {**_shared([group]), **resources},
        "secrets": {"HF_TOKEN": None},
        "run": f"{command_of(group)}\n",
    }


def _one_service(groups: Sequence[LoadedGroup], base: str) -> dict[str, Any]:
    """One service for all types: the rate per instance of each type, and SkyPilot's choice of instances."""
    if strange := [one.replica_type for one in groups if not _RATED.fullmatch(_accelerators(one))]:
        raise InputError(
            f"{', '.join(strange)}: SkyPilot accepts no rate for accelerators with such names in one service",
            hint="--option layout=services",
        )
    rates = {_accelerators(one): max(round(one.request_rate * one.replicas_per_node, 3), _LEAST_RATE) for one in groups}
    return {
        "name": base,
        "service": {
            **_probe(groups),
            "replica_policy": {
                "min_replicas": sum(one.node.instances for one in groups),
                "max_replicas": sum(-(-one.most_replicas // one.replicas_per_node) for one in groups),
                "target_qps_per_replica": rates,
            },
            "load_balancing_policy": "instance_aware_least_load",
        },
        "resources": {**_shared(groups), "any_of": [_resources(one) for one in groups]},
        "secrets": {"HF_TOKEN": None},
        "run": _choice(groups),
    }


def _choice(groups: Sequence[Group]) -> str:
    """One script for all types: it asks the driver for the accelerators, and starts the planned command for them.

    Raises
    ------
    InputError
        Types with the same answer from the driver.
    """
    command_by_case: dict[str, str] = {}
    for one in groups:
        name = _DRIVER_NAME.get(one.node.accelerator)
        case = f"{name}' x{one.node.accelerators}'"
        if name is None or command_by_case.setdefault(case, command_of(one)) != command_of(one):
            raise InputError(
                f"{one.replica_type}: in one service its instances cannot be distinguished from those of other types",
                hint="--option layout=services",
            )
    # L40S before L40 before L4: the first match is used.
    cases = [f"  {case}) exec {command_by_case[case]} ;;" for case in sorted(command_by_case, key=len, reverse=True)]
    found = '"$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1) x$SKYPILOT_NUM_GPUS_PER_NODE"'
    lines = [f"case {found} in", *cases, '  *) echo "the plan has no such accelerators" >&2; exit 1 ;;', "esac", ""]
    return "\n".join(lines)


def _probe(groups: Sequence[Group]) -> dict[str, Any]:
    startup_s = max(one.launch.startup_s for one in groups)
    return {"readiness_probe": {"path": "/health", "initial_delay_seconds": startup_s}}


def _shared(groups: Sequence[Group]) -> dict[str, Any]:
    launch = groups[0].launch
    disk_gb = max(one.launch.disk_gb for one in groups)
    return {"ports": launch.port, "image_id": f"docker:{launch.image}", "disk_size": disk_gb}


def _resources(group: Group) -> dict[str, Any]:
    node = group.node
    cloud = CLOUDS.get(node.provider)
    infra = {"infra": f"{cloud}/{node.region}" if node.region else cloud} if cloud else {}
    # An instance type has no meaning without a known provider.
    instance = {"instance_type": node.instance_type} if cloud and node.instance_type else {}
    return {**infra, **instance, "accelerators": _accelerators(group), "use_spot": node.is_spot}


def _accelerators(group: Group) -> str:
    """``L40S:1``: the accelerators of one instance."""
    name = _ACCELERATOR.get(group.node.accelerator, group.node.accelerator)
    return f"{name}:{group.node.accelerators}"


TARGET = Target(
    name="skypilot",
    about="SkyPilot: one service per replica type, with a gateway in front, or one service for all types.",
    options=SkyPilotOptions,
    render=_render,
)
