"""The program over all services: it chooses one fleet for each service, within the pools.

    minimize   sum_kc cost_kc x_kc + sum_j M e_j
    one fleet  sum_c x_kc = 1                               every service k
    pools      sum_kc taken_kcj x_kc - e_j <= most_j        every pool j

The duals of its relaxation are the pools' prices (Dantzig and Wolfe, Operations Research 8, 1960). Its integer solution
is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.plan.milp.highs import LinearRows, Solved, minimise
from melange.workload.workload import Array

# Excess over a pool that does not count: counts are whole, and their sums are exact to far below this.
_EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """An answer of the program.

    Parameters
    ----------
    chosen
        Index of the fleet of each service (K); empty if the program was relaxed.
    price
        Price of each pool (J,) [USD/h per unit]; 0 if the program was solved in integers.
    excess
        Use of each pool beyond its size (J,).
    cost
        Cost of the fleets, without the price of the excess [USD/h].
    """

    chosen: tuple[int, ...]
    price: Array
    excess: Array
    cost: float


def in_parts(cost: Sequence[Array], taken: Sequence[Array], most: Array, penalty: Array) -> Choice:
    """Solve the program with fractions of fleets allowed.

    Parameters
    ----------
    cost, taken
        Cost and use of pools of the fleets of each service, (C,) and (C, J).
    most
        Units in each pool (J,).
    penalty
        Price of the excess over each pool (J,).
    """
    found = _solved(cost, taken, most, penalty, whole=False)
    assert found.x is not None
    price = np.maximum(-found.row_dual[len(cost) :], 0.0)
    excess = found.x[-len(most) :] if len(most) else np.empty(0)
    return Choice(
        chosen=(), price=price, excess=excess, cost=float(np.concatenate(list(cost)) @ found.x[: _count(cost)])
    )


def whole(
    cost: Sequence[Array], taken: Sequence[Array], most: Array, penalty: Array, *, gap: float, time_limit_s: float
) -> Choice | None:
    """One whole fleet for each service; None if the time was too short."""
    found = _solved(cost, taken, most, penalty, whole=True, gap=gap, time_limit_s=time_limit_s)
    if found.x is None:
        return None
    ends = np.cumsum([len(one) for one in cost])
    parts = np.split(found.x[: ends[-1]], ends[:-1])
    chosen = tuple(int(np.argmax(part)) for part in parts)
    used = np.sum([taken[k][c] for k, c in enumerate(chosen)], axis=0)
    excess = np.maximum(used - most, 0.0)
    return Choice(
        chosen=chosen,
        price=np.zeros(len(most)),
        excess=np.where(excess > _EPS, excess, 0.0),
        cost=float(sum(cost[k][c] for k, c in enumerate(chosen))),
    )


def _count(cost: Sequence[Array]) -> int:
    return sum(len(one) for one in cost)


def _solved(
    cost: Sequence[Array],
    taken: Sequence[Array],
    most: Array,
    penalty: Array,
    *,
    whole: bool,
    gap: float = 0.0,
    time_limit_s: float = 60.0,
) -> Solved:
    services, pools, count = len(cost), len(most), _count(cost)
    member = np.repeat(np.arange(services), [len(one) for one in cost])
    use = np.concatenate([np.asarray(one).reshape(-1, pools) for one in taken])
    matrix = np.zeros((services + pools, count + pools))
    matrix[member, np.arange(count)] = 1.0
    matrix[services:, :count] = use.T
    matrix[services + np.arange(pools), count + np.arange(pools)] = -1.0
    column, row = np.nonzero(matrix.T)
    program = LinearRows(
        cost=np.concatenate([*cost, penalty]),
        lower=np.zeros(count + pools),
        upper=np.concatenate([np.ones(count), np.full(pools, np.inf)]),
        row_lower=np.concatenate([np.ones(services), np.full(pools, -np.inf)]),
        row_upper=np.concatenate([np.ones(services), most]),
        start=np.searchsorted(column, np.arange(count + pools + 1)).astype(np.int32),
        row=row.astype(np.int32),
        value=matrix.T[column, row],
        is_integer=np.concatenate([np.full(count, whole), np.zeros(pools, bool)]),
    )
    return minimise(program, gap=gap, time_limit_s=time_limit_s)
