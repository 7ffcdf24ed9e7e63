"""A simulated fleet in which orders are refused, instances are lost, and types and a region run out of stock."""

from __future__ import annotations

import random
from collections.abc import Sequence

from melange.deploy.operate.drivers.pretend_fleet import PretendFleet
from melange.units import S_PER_H

DRAIN_S = 60.0
REFUSED, OUT_OF_STOCK_S, LOST_EVERY_S = 0.1, 1800.0, 48 * S_PER_H


class UnreliableFleet(PretendFleet):
    """A simulated fleet: orders are refused, instances are lost, types and a region run out of stock."""

    def __init__(self, start_up_s: float, seed: int, without: Sequence[str]) -> None:
        super().__init__(start_up_s, DRAIN_S)
        self.random, self.without = random.Random(seed), without
        self.gone: dict[str, float] = {}

    def refuses(self, name: str, now_s: float) -> str:
        """The reason for refusing an order: out of stock, at random or after a loss; empty if it is accepted."""
        if now_s < self.gone.get(name, 0.0):
            return "out of stock"
        if "refusals" not in self.without and self.random.random() < REFUSED:
            self.gone[name] = now_s + OUT_OF_STOCK_S
            return "out of stock"
        return ""

    def age(self, length_s: float) -> None:
        """Lose some instances at random."""
        if "losses" in self.without:
            return
        self.instances = tuple(one for one in self.instances if self.random.random() > length_s / LOST_EVERY_S)

    def lose(self, names: set[str], until_s: float) -> None:
        """Lose all instances of these types, which are out of stock until ``until_s``."""
        self.gone |= dict.fromkeys(names, until_s)
        self.instances = tuple(one for one in self.instances if one.replica_type not in names)
