"""Commands that SkyPilot and dstack run on an instance, and features that they lack."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from melange.deploy.group import Group
from melange.errors import Caution, InputError

# Valid names in both: colons, slashes and commas have a special meaning, and a number means memory.
_ACCELERATOR = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def command_of(group: Group) -> str:
    """The engine's command line for a shell.

    ``${{ name }}``, which would be a variable in dstack, is split in two; inside quotes this changes nothing.
    """
    return group.launch.shell.replace("${{", "$''{{")


def check_names(groups: Sequence[Group], target: str) -> None:
    """Reject names of instances that the target would interpret differently.

    Raises
    ------
    InputError
        An accelerator, a region or an instance type with other characters than letters, digits, dots and dashes.
    """
    strange: list[str] = []
    for group in groups:
        node = group.node
        strange += [] if _ACCELERATOR.fullmatch(node.accelerator) else [node.accelerator]
        strange += [name for name in (node.region, node.instance_type) if name and not _PLACE.fullmatch(name)]
    if strange:
        raise InputError(
            f"{target} does not accept these names of accelerators, regions or instance types: "
            f"{', '.join(map(repr, dict.fromkeys(strange)))}",
            hint="use the provider's own names in the price list",
        )


def instance_cautions(groups: Sequence[Group], target: str, name_by_provider: Mapping[str, str]) -> tuple[Caution, ...]:
    """Cautions about properties of the plan's instances that the target cannot express."""
    cautions = []
    if several := [group for group in groups if group.replicas_per_node > 1]:
        told = ", ".join(f"{group.replica_type} ({group.replicas_per_node})" for group in several)
        cautions.append(
            Caution(
                "replicas",
                f"{target} starts one process per instance, but the plan has several replicas on each of {told}: the "
                "process runs them in parallel (data parallel) and spreads requests over them itself",
            )
        )
    if strange := sorted({group.node.provider or "no name" for group in groups} - set(name_by_provider)):
        cautions.append(
            Caution(
                "provider",
                f"{target} does not support the provider {', '.join(strange)}: it rents such accelerators wherever it "
                "finds them, at other prices than planned",
            )
        )
    if unnamed := [group.replica_type for group in groups if not group.node.instance_type]:
        cautions.append(
            Caution("nodes", f"{', '.join(unnamed)}: the price list has no instance type; {target} chooses one")
        )
    if reserved := [group.replica_type for group in groups if group.node.market == "reserved"]:
        cautions.append(
            Caution(
                "market", f"{', '.join(reserved)}: planned as reserved, which {target} does not support; on-demand here"
            )
        )
    return tuple(cautions)
