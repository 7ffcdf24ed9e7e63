"""Where replicas run: the instances that a plan rents for one replica type."""

from __future__ import annotations

import re
from dataclasses import dataclass

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import accelerators
from melange.profile.profile import ReplicaType

# Price lists without instance names use names made from the accelerators.
_MADE_UP = re.compile(r"\d+x-.+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The instances of one replica type.

    Parameters
    ----------
    provider, region
        The provider and the region; empty: unknown.
    instance_type
        The provider's name of the instance type; empty if there is none.
    market
        ``on-demand``, ``spot`` or ``reserved``.
    accelerator, facts
        Name of the accelerator, and its entry in the bundled table; None if it is not in the table.
    accelerators
        Accelerators per instance.
    instances
        Instances in the plan.
    most_instances
        Available instances; None if unknown.
    cost_per_h
        Price of one instance [USD/h].
    """

    provider: str
    region: str
    instance_type: str
    market: str
    accelerator: str
    facts: Accelerator | None
    accelerators: int
    instances: int
    most_instances: int | None
    cost_per_h: float

    @property
    def is_spot(self) -> bool:
        """Whether the provider may interrupt the instances."""
        return self.market == "spot"

    @property
    def vendor(self) -> str:
        """Vendor of the accelerator; NVIDIA if unknown."""
        return self.facts.vendor if self.facts else "nvidia"


def node_of(replica_type: ReplicaType, instances: int) -> Node:
    """The instances that a plan rents for a replica type."""
    offer = replica_type.offer
    return Node(
        provider=offer.provider,
        region=offer.region,
        instance_type="" if _MADE_UP.fullmatch(offer.instance_type) else offer.instance_type,
        market=offer.market,
        accelerator=offer.accelerator,
        facts=accelerators().get(offer.accelerator),
        accelerators=offer.accelerators,
        instances=instances,
        most_instances=offer.max_instances,
        cost_per_h=offer.cost_per_h,
    )
