"""What SkyPilot and dstack run on an instance, and what they cannot be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from melange.deploy.group import Group
from melange.errors import Caution


def command_of(group: Group) -> str:
    """The engine's command line for a shell.

    What looks like a variable of dstack (``${{ name }}``) is cut in two, inside of quotes, where that changes nothing.
    """
    return group.launch.shell.replace("${{", "$''{{")


def instance_cautions(groups: Sequence[Group], target: str, name_by_provider: Mapping[str, str]) -> tuple[Caution, ...]:
    """What the target cannot be told of the plan's instances."""
    cautions = []
    if several := [group for group in groups if group.replicas_per_node > 1]:
        told = ", ".join(f"{group.replica_type} ({group.replicas_per_node})" for group in several)
        cautions.append(
            Caution(
                "replicas",
                f"{target} starts one process an instance, and the plan has several replicas on each of {told}: the "
                "process runs them side by side (data parallel) and spreads requests over them itself",
            )
        )
    if strange := sorted({group.node.provider or "no name" for group in groups} - set(name_by_provider)):
        cautions.append(
            Caution(
                "provider",
                f"{target} does not know the provider {', '.join(strange)}: it takes such accelerators where it finds "
                "them, at other prices than planned",
            )
        )
    if unnamed := [group.replica_type for group in groups if not group.node.instance_type]:
        cautions.append(
            Caution("nodes", f"{', '.join(unnamed)}: the price list names no instance type; {target} chooses one")
        )
    if reserved := [group.replica_type for group in groups if group.node.market == "reserved"]:
        cautions.append(
            Caution("market", f"{', '.join(reserved)}: planned as reserved, which {target} is not told; on demand here")
        )
    return tuple(cautions)
