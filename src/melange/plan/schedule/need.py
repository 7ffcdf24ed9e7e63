"""What hours need in addition to the reserved instances, according to the signals, also if replicas are lost.

A fleet carries an hour if for every signal k, with prices y, sum_r y_kr l_r >= demand_k, where l_r is the load that
machine r takes: C_r n_r less its own spare replicas. If any one type may lose replicas, the same must hold after the
loss, with l_r = C_r n_r for all other types.
Arrays have the axes (hour H, fleet N, signal K, machine R).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from melange.plan.schedule.machines import Machines
from melange.plan.schedule.signals import Signals
from melange.workload.demand import Indices
from melange.workload.workload import Array, Mask

_EPS = 1e-9


class Need:
    """What some hours need in addition to reserved instances."""

    def __init__(self, machines: Machines, signals: Signals, demand: Array, reserved: Array) -> None:
        """Set up for hours with a ``demand`` for each signal (H, K) and ``reserved`` instances (R,)."""
        self._machines, self._signals, self._demand = machines, signals, demand
        self._price = signals.price
        self.reserved = reserved
        self.gives = signals.per_instance(machines)

    def at(self, hours: Indices) -> Need:
        """What some of the hours need."""
        return Need(self._machines, self._signals, self._demand[hours], self.reserved)

    def lacking(self) -> Array:
        """Demand for each signal that the reserved instances do not cover, if none of them is lost (H, K)."""
        own = self._price @ (self._machines.capacity * self.reserved)
        return np.asarray(np.maximum(self._demand * (1 - _EPS) - own, 0.0))

    def is_met(self) -> Mask:
        """Hours that the reserved instances carry (H,)."""
        met = np.ones(len(self._demand), bool)
        for carried in self._machines.scenarios(self.reserved):
            met &= (self._demand - self._price @ carried <= _EPS * np.maximum(self._demand, 1e-30)).all(axis=1)
        return met

    def of(self, place: int, only: Mask | None = None) -> Array:
        """Fractional instances of one machine alone (H,), infinite if it cannot; ``only`` selects signals (K,)."""
        if only is not None and not only.any():
            return np.zeros(len(self._demand))
        return self._pair(None, place, slice(None) if only is None else only)(np.zeros((len(self._demand), 1)))[:, 0]

    def beside(self, first: int, second: int) -> Callable[[Array], Array]:
        """Fractional instances of the second machine for counts of the first: from (H, N) to (H, N)."""
        return self._pair(first, second, slice(None))

    def _pair(self, first: int | None, second: int, signals: Mask | slice) -> Callable[[Array], Array]:
        machines = self._machines
        rest = self.reserved.copy()
        rest[second] = 0.0
        if first is not None:
            rest[first] = 0.0
        own = machines.capacity * rest - machines.spare * (rest > 0)
        loss = 0.0 if first is None else float(machines.spare[first])
        cases = [
            self._missing(first, second, signals, np.maximum(own, 0.0), (True, loss), float(machines.spare[second]))
        ]
        if machines.spare_total > 0:
            kept, total = machines.capacity * rest, machines.spare_total
            cases += [
                self._missing(first, second, signals, machines.after_loss(rest, r), (False, 0.0), 0.0)
                for r in np.flatnonzero(rest > 0).tolist()
            ]
            cases.append(self._missing(first, second, signals, kept, (False, 0.0), total))
            if first is not None:
                cases.append(self._missing(first, second, signals, kept, (False, total), 0.0))
        if len(cases) == 1:
            return cases[0]
        return lambda counts: np.asarray(np.max([case(counts) for case in cases], axis=0))

    def _missing(
        self,
        first: int | None,
        second: int,
        signals: Mask | slice,
        others: Array,
        first_loses: tuple[bool, float],
        second_loses: float,
    ) -> Callable[[Array], Array]:
        """Instances of the second machine in one case: ``others`` is the load that the other machines take (R,).

        ``first_loses`` has the load that the first machine loses, after whether only fleets with that machine lose it.
        """
        machines, price, demand = self._machines, self._price[signals], self._demand[:, signals]
        capacity, reserved = machines.capacity, self.reserved
        # Demand that the other machines leave of each signal, in load of the second machine, less rounding errors.
        lacking = demand * (1 - _EPS) - price @ others
        takes = price[:, second] > 0
        by_second = lacking[:, takes] / price[takes, second]
        by_first = np.zeros(int(takes.sum())) if first is None else price[takes, first] / price[takes, second]
        left, left_price = lacking[:, ~takes], None if first is None else price[~takes, first]
        only_used, loss = first_loses

        def needed(counts: Array) -> Array:
            if first is None:
                taken = np.zeros(counts.shape)
                most = by_second.max(axis=1, initial=0.0)[:, None]
            else:
                has = counts + reserved[first]
                taken = np.maximum(capacity[first] * has - (loss * (has > 0) if only_used else loss), 0.0)
                load = taken[:, :, None] * by_first
                np.subtract(by_second[:, None, :], load, out=load)
                most = load.max(axis=2, initial=0.0)
            most = np.broadcast_to(most, counts.shape)
            if left.size:  # signals to which the second machine gives nothing
                beyond = left[:, None, :] - (0.0 if left_price is None else taken[:, :, None] * left_price)
                most = np.where((beyond > 0).any(axis=2), np.inf, most)
            found = (most + second_loses) / capacity[second] - reserved[second]
            return np.asarray(np.where(most > 0, np.maximum(found, 0.0), 0.0))

        return needed

    def left_over(self, extra: Array) -> Array:
        """Whole instances of each machine that fleets (H, N, R), with the reserved ones, could do without."""
        machines, fleet = self._machines, extra + self.reserved
        over = (machines.capacity * fleet) @ self._price.T - self._demand[:, None, :]
        found = np.zeros(extra.shape)
        for r in range(len(machines)):
            takes = self.gives[:, r] > 0
            if takes.any():
                found[:, :, r] = np.floor((over[:, :, takes] / self.gives[takes, r]).min(axis=2) + 1e-7)
        return np.clip(found, 0.0, fleet)
