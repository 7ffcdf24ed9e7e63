"""Signals: weighted sums of request rates that say whether a fleet carries the traffic.

For prices of load y (one a machine) a fleet n carries rates of sizes only if

    sum_r y_r C_r n_r >= sum_b w_b rate_b,      w_b = min_r y_r / max_request_rate_rb

and it does carry them if this holds for every y >= 0 (duality; see plan/exact/projection). The right side is linear in
the rates: a signal is a weight for each request size. A few of them decide for all hours at once, without a solver, and
are what a scaler can watch. Arrays have the axes (signal K, machine R, bucket B).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.schedule.machines import Machines
from melange.workload.demand import Indices
from melange.workload.workload import Array

# Factors on the price of one machine at which a signal is made before any is asked for by a fleet that fell short.
# Fewer, and more rounds of those are needed; more, and each hour takes longer. A judgment.
_FACTORS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.12, 1.25, 1.45, 2.0, 4.0)
# A fleet carries its traffic up to this peak load: what a linear program leaves.
FITS = 1.0 + 1e-7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signals:
    """Signals of some machines.

    Parameters
    ----------
    price
        Price of a unit of load (K, R).
    weight
        What one request per second of each size adds (K, B).
    """

    price: Array
    weight: Array

    def __len__(self) -> int:
        return len(self.price)

    @classmethod
    def of(cls, machines: Machines, price: Array) -> Signals:
        """The signals of some prices (K, R); those that say nothing are left out."""
        weight = machines.weights(price)
        kept = np.isfinite(weight).all(axis=1) & (weight.max(axis=1, initial=0.0) > 0)
        return cls(price=price[kept], weight=weight[kept])

    def demand(self, rates: Array) -> Array:
        """What traffic (H, B) takes of each signal (H, K)."""
        return np.asarray(rates @ self.weight.T)

    def per_instance(self, machines: Machines) -> Array:
        """What an instance of each machine gives to each signal (K, R)."""
        return np.asarray(self.price * machines.capacity)

    def given(self, machines: Machines, instances: Array) -> Array:
        """What a fleet (R,) gives to each signal whichever replicas are lost (K,)."""
        return np.asarray(np.min([self.price @ carried for carried in machines.scenarios(instances)], axis=0))

    def held(self, machines: Machines, reserved: Array, place: int) -> Array:
        """What reserved instances (R,) give to each signal beside more of machine ``place``, spares set aside (K,)."""
        own = machines.capacity * reserved - machines.spare * ((reserved > 0) | (np.arange(len(reserved)) == place))
        cases = [own]
        if machines.spare_total > 0:
            for r in {place, *np.flatnonzero(reserved > 0).tolist()}:
                kept = machines.capacity * reserved
                kept[r] -= machines.spare_total if r == place else min(kept[r], machines.spare_total)
                cases.append(kept)
        return np.asarray(np.min([self.price @ carried for carried in cases], axis=0))

    def with_more(self, machines: Machines, price: Array) -> Signals:
        """These and those of more prices (M, R)."""
        more = Signals.of(machines, price)
        return Signals(
            price=np.concatenate([self.price, more.price]), weight=np.concatenate([self.weight, more.weight])
        )

    def chosen(self, places: Indices | list[int]) -> Signals:
        """Some of them."""
        where = np.asarray(places, np.int64)
        return replace(self, price=self.price[where], weight=self.weight[where])


def first_signals(machines: Machines) -> Signals:
    """At on-demand prices, at those with one machine cheaper or more expensive, and for sizes that few can serve."""
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


def peak_load(machines: Machines, rates: Array, instances: Array) -> tuple[float, Array, Array]:
    """The lowest peak load of a fleet (R,) under rates (B,), the prices that prove it (R,), and shares (R, B).

    Where replicas may be lost, of the worst case; shares are those without a loss.
    """
    first, *others = (peak_of(machines, rates, carried) for carried in machines.scenarios(instances))
    worst = max((first, *others), key=lambda one: one[0])
    return worst[0], worst[1], first[2]


def peak_of(machines: Machines, rates: Array, carried: Array) -> tuple[float, Array, Array]:
    """The same for the load that each machine takes (R,).

    minimise t: sum_r f_rb = 1, sum_b (rate_b / max_request_rate_rb) f_rb <= t carried_r. Infinite where a size finds no
    machine; the shares are then 0.
    """
    used, taken = np.flatnonzero(carried > 0), carried
    cells = np.flatnonzero(rates > 0)
    share = np.zeros((len(machines), len(rates)))
    if not len(cells):
        return 0.0, np.zeros(len(machines)), share
    speed = machines.max_request_rate[np.ix_(used, cells)]
    lacking = ~(speed > 0).any(axis=0)
    if lacking.any():
        able = machines.max_request_rate[:, cells[lacking]][:, 0] > 0
        return np.inf, np.where(able, machines.price, 0.0), share
    carried = taken[used]
    type_of, cell_of = np.nonzero(speed > 0)
    load = rates[cells][cell_of] / speed[type_of, cell_of] / carried[type_of]
    pairs, sizes = len(type_of), len(cells)
    # Rates of a size may be a millionth of another's: a row a size whose shares add up to 1 keeps them apart.
    program = LinearRows(
        cost=np.append(np.zeros(pairs), 1.0),
        lower=np.zeros(pairs + 1),
        upper=np.full(pairs + 1, np.inf),
        row_lower=np.concatenate([np.ones(sizes), np.full(len(used), -np.inf)]),
        row_upper=np.concatenate([np.ones(sizes), np.zeros(len(used))]),
        start=np.append(np.arange(0, 2 * pairs + 1, 2), 2 * pairs + len(used)).astype(np.int32),
        row=np.concatenate([np.column_stack([cell_of, sizes + type_of]).ravel(), sizes + np.arange(len(used))]).astype(
            np.int32
        ),
        value=np.concatenate([np.column_stack([np.ones(pairs), load]).ravel(), -np.ones(len(used))]),
    )
    found = minimise(program)
    if found.x is None or not len(found.row_dual):
        return np.inf, machines.price, share
    share[used[type_of], cells[cell_of]] = np.clip(found.x[:-1], 0.0, None)
    share[:, cells] /= np.maximum(share[:, cells].sum(axis=0), 1e-12)
    busy = np.zeros(len(machines))
    busy[used] = [
        float((rates[cells] / np.where(speed[t] > 0, speed[t], np.inf) * share[used[t]][cells]).sum())
        for t in range(len(used))
    ]
    # The peak again in plain arithmetic, from the shares.
    peak = float((busy[used] / carried).max())
    price = np.zeros(len(machines))
    price[used] = np.maximum(-found.row_dual[sizes:], 0.0) / carried
    worth = found.row_dual[:sizes]
    rest = np.flatnonzero(taken <= 0)
    if len(rest):
        # Prices of machines that are not used: as low as leaves what the traffic takes at these prices.
        with np.errstate(divide="ignore"):
            price[rest] = np.max(machines.max_request_rate[np.ix_(rest, cells)] * worth / rates[cells], axis=1)
    return peak, price, share
