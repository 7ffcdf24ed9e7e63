"""What hours need beside the reserved instances, by the signals, also when replicas are lost.

A fleet carries an hour if for every signal k, with prices y, sum_r y_kr l_r >= demand_k, where l_r is the load that
machine r takes: C_r n_r less its own spare replicas; and, where any type may lose some, C_r n_r for all but that type.
Arrays have the axes (hour H, fleet N, signal K, machine R).
"""

from __future__ import annotations

import numpy as np

from melange.plan.schedule.machines import Machines
from melange.plan.schedule.signals import Signals
from melange.workload.workload import Array, Mask

_EPS = 1e-9


class Need:
    """What some hours need, beside reserved instances."""

    def __init__(self, machines: Machines, signals: Signals, demand: Array, reserved: Array) -> None:
        """Set up for hours that take ``demand`` of each signal (H, K) beside ``reserved`` instances (R,)."""
        self._machines, self._price, self._demand = machines, signals.price, demand
        self.reserved = reserved
        self.gives = signals.per_instance(machines)

    def is_met(self) -> Mask:
        """Hours that the reserved instances carry (H,)."""
        met = np.ones(len(self._demand), bool)
        for carried in self._machines.scenarios(self.reserved):
            met &= (self._demand - self._price @ carried <= _EPS * np.maximum(self._demand, 1e-30)).all(axis=1)
        return met

    def of(self, place: int, only: Mask | None = None) -> Array:
        """Instances of one machine alone, in parts (H,), infinite where it cannot; ``only`` for some signals (K,)."""
        none = np.zeros((len(self._demand), 1))
        return self._lacking(None, none, place, slice(None) if only is None else only)[:, 0]

    def beside(self, first: int, counts: Array, second: int) -> Array:
        """Of the second machine, in parts, beside counts of the first (H, N)."""
        return self._lacking(first, counts, second, slice(None))

    def _lacking(self, first: int | None, counts: Array, second: int, signals: Mask | slice) -> Array:
        machines, price, demand = self._machines, self._price[signals], self._demand[:, signals]
        if not price.size:
            return np.zeros(counts.shape)
        rest = self.reserved.copy()
        rest[second] = 0.0
        if first is not None:
            rest[first] = 0.0
        own = machines.capacity * rest - machines.spare * (rest > 0)
        found = self._missing(
            first, counts, second, price, demand, np.maximum(own, 0.0), (True, machines.spare[second])
        )
        if machines.spare_total > 0:
            kept, total = machines.capacity * rest, machines.spare_total
            for r in np.flatnonzero(rest > 0).tolist():
                lost = machines.after_loss(rest, r)
                found = np.maximum(found, self._missing(first, counts, second, price, demand, lost, (False, 0.0)))
            found = np.maximum(found, self._missing(first, counts, second, price, demand, kept, (False, total)))
            if first is not None:
                found = np.maximum(
                    found, self._missing(first, counts, second, price, demand, kept, (False, 0.0), total)
                )
        return found

    def _missing(
        self,
        first: int | None,
        counts: Array,
        second: int,
        price: Array,
        demand: Array,
        others: Array,
        spare: tuple[bool, float],
        first_loses: float = 0.0,
    ) -> Array:
        """Instances of the second machine in one case: ``others`` is what the rest takes (R,)."""
        machines, (is_own, lost) = self._machines, spare
        rest = (demand - price @ others)[:, None, :]
        if first is not None:
            has = counts + self.reserved[first]
            taken = machines.capacity[first] * has - (machines.spare[first] * (has > 0) if is_own else first_loses)
            rest = rest - np.maximum(taken, 0.0)[:, :, None] * price[:, first]
        with np.errstate(divide="ignore", invalid="ignore"):
            load = np.where(rest > _EPS * demand[:, None, :], rest / price[:, second], 0.0).max(axis=2)
        load = np.broadcast_to(load, counts.shape)
        needed = (load + lost) / machines.capacity[second] - self.reserved[second]
        return np.asarray(np.where(load > 0, np.maximum(needed, 0.0), 0.0))

    def left_over(self, extra: Array) -> Array:
        """Whole instances of each machine that fleets (H, N, R) beside the reserved ones could do without."""
        machines, fleet = self._machines, extra + self.reserved
        over = (machines.capacity * fleet) @ self._price.T - self._demand[:, None, :]
        found = np.zeros(extra.shape)
        for r in range(len(machines)):
            takes = self.gives[:, r] > 0
            if takes.any():
                found[:, :, r] = np.floor((over[:, :, takes] / self.gives[takes, r]).min(axis=2) + 1e-7)
        return np.clip(found, 0.0, fleet)
