"""The driver that does nothing: a fleet on paper follows the orders, and the log says what would have been done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from melange.deploy.operate.drivers.pretend_fleet import READY, Pretended, PretendFleet

if TYPE_CHECKING:
    from melange.deploy.operate.drivers.driver import Order
    from melange.deploy.operate.observation import TypeSeen
    from melange.errors import Caution


class DryRun:
    """A fleet on paper.

    Parameters
    ----------
    first
        What it begins with, by replica type name: the plan's fleet.
    start_up_s, drain_s
        How long instances start and drain [s].
    path
        File that remembers them.
    """

    def __init__(self, first: Mapping[str, int], start_up_s: float, drain_s: float, path: Path) -> None:
        self.fleet = PretendFleet(start_up_s, drain_s, path)
        if not path.exists():
            self.fleet.instances = tuple(
                Pretended(replica_type=name, stage=READY, since_s=0.0)
                for name, count in first.items()
                for _ in range(count)
            )

    def look(self, now_s: float) -> Mapping[str, TypeSeen]:
        """What there would be."""
        return self.fleet.look(now_s)

    def act(self, order: Order) -> Sequence[Caution]:
        """Note what would be done."""
        self.fleet.take(order.steps, order.at_s)
        return ()
