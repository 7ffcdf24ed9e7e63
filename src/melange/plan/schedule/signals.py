"""Signals: weighted sums of request rates that show whether a fleet carries the traffic.

For prices of load y (one for each machine), a fleet n carries rates of sizes only if

    sum_r y_r C_r n_r >= sum_b w_b rate_b,      w_b = min_r y_r / max_request_rate_rb

and it does carry them if this holds for every y >= 0 (duality; see plan/exact/projection). The right side is linear in
the rates: a signal is a weight for each request size. A few signals decide for all hours at once, without a solver, and
a scaler can watch them. Arrays have the axes (signal K, machine R, bucket B).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from melange.plan.schedule.machines import Machines
from melange.workload.demand import Indices
from melange.workload.workload import Array

# Factors on the price of one machine for the initial signals, before short fleets add more. With fewer factors, short
# fleets need more rounds; with more, each hour takes longer. Chosen by judgment.
_FACTORS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.12, 1.25, 1.45, 2.0, 4.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signals:
    """Signals of some machines.

    Parameters
    ----------
    price
        Price of a unit of load (K, R).
    weight
        Demand of one request per second of each size (K, B).
    """

    price: Array
    weight: Array

    def __len__(self) -> int:
        return len(self.price)

    @classmethod
    def of(cls, machines: Machines, price: Array) -> Signals:
        """The signals of some prices (K, R), without those that carry no information."""
        weight = machines.weights(price)
        kept = np.isfinite(weight).all(axis=1) & (weight.max(axis=1, initial=0.0) > 0)
        return cls(price=price[kept], weight=weight[kept])

    def demand(self, rates: Array) -> Array:
        """The demand of traffic (H, B) for each signal (H, K)."""
        return np.asarray(rates @ self.weight.T)

    def per_instance(self, machines: Machines) -> Array:
        """What an instance of each machine gives to each signal (K, R)."""
        return np.asarray(self.price * machines.capacity)

    def given(self, machines: Machines, instances: Array) -> Array:
        """What a fleet (R,) gives to each signal after any loss of replicas (K,)."""
        return np.asarray(np.min([self.price @ carried for carried in machines.scenarios(instances)], axis=0))

    def held(self, machines: Machines, reserved: Array, place: int) -> Array:
        """What reserved instances (R,) give to each signal next to more of machine ``place``, less spares (K,)."""
        own = machines.capacity * reserved - machines.spare * ((reserved > 0) | (np.arange(len(reserved)) == place))
        cases = [own]
        if machines.spare_total > 0:
            for r in {place, *np.flatnonzero(reserved > 0).tolist()}:
                kept = machines.capacity * reserved
                kept[r] -= machines.spare_total if r == place else min(kept[r], machines.spare_total)
                cases.append(kept)
        return np.asarray(np.min([self.price @ carried for carried in cases], axis=0))

    def with_more(self, machines: Machines, price: Array) -> Signals:
        """These signals and the signals of more prices (M, R)."""
        more = Signals.of(machines, price)
        return Signals(
            price=np.concatenate([self.price, more.price]), weight=np.concatenate([self.weight, more.weight])
        )

    def chosen(self, places: Indices | list[int]) -> Signals:
        """Some of the signals."""
        where = np.asarray(places, np.int64)
        return replace(self, price=self.price[where], weight=self.weight[where])


def first_signals(machines: Machines) -> Signals:
    """Signals at on-demand prices, with one machine cheaper or more expensive, and for sizes that few can serve."""
    own = machines.price
    rows = [own]
    for r in range(len(machines)):
        for factor in _FACTORS if len(machines) > 1 else ():
            scaled = own.copy()
            scaled[r] *= factor
            rows.append(scaled)
    able = machines.max_request_rate > 0
    if not able.all():
        patterns = np.unique(able[:, ~able.all(axis=0)], axis=1).T
        rows += [np.where(pattern, own, 0.0) for pattern in patterns]
    return Signals.of(machines, np.array(rows))
