"""The planning problem in terms of the instances alone.

For fixed instances n the shares are a linear program; by its duality n carries the traffic exactly when

    sum_r y_r C_r(n) >= g(y) := sum_b min_r y_r l_rb      for every y >= 0,

where C_r(n) is the load that n_r instances take. Each y is a cut; y = c / ((1 - h) p) is the closed-form bound. Every
bound that the search reports rests on such cuts, evaluated here in plain arithmetic, whatever solver suggested the y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.plan.problem import ROUNDING, Positions, Problem
from melange.workload.workload import Array, Mask

# Factors on the price of one type at which the demand is probed, and their inverses. Each costs a pass over the loads
# and a row of cuts; with too few, more fleets are left to list. Factors near 1 narrow the counts of types that cost
# nearly the same, factors far from 1 those in a market with wide prices. Chosen by CPU time on random instances
# (bench/instances.py: 200 of 4 types, 100 of 8) and on the 82 services of bench/services that have a plan: without the
# two far ones 1.01, 1.0 and 1.2 times as much in sum; twelve evenly from 0.3 1.06, 1.28 and 1.03 times; two more near 1
# no difference beyond 4 %.
_BELOW_ONE = np.concatenate([[0.2, 0.4], np.geomspace(0.6, 0.985, 10)])
_PROBED_FACTORS = np.concatenate([_BELOW_ONE, 1.0 / _BELOW_ONE[::-1]])


def floor_per_h(problem: Problem) -> float:
    """Lower bound on the cost: every bucket on the type that serves it cheapest, in fractions of instances [USD/h].

    sum_b min_r c_r l_rb / ((1 - h) p_r)
    """
    return _demand(problem, problem.cost / problem.capacity)


def floor_with_losses(problem: Problem) -> float:
    """The same, with the largest loss of the types in use: no fleet that survives it costs less [USD/h].

    With the types whose smallest loss is worth at most d, serving everything after the loss costs at least their floor;
    the lost replicas come on top.
    """
    own = problem.cost * np.minimum(problem.least, problem.spare_total / problem.replicas)
    order = np.argsort(own, kind="stable")
    with np.errstate(invalid="ignore"):
        priced = (problem.cost / problem.capacity)[:, None] * problem.load
    floors = np.minimum.accumulate(priced[order], axis=0).sum(axis=1)
    return float((floors + own[order]).min())


def _demand(problem: Problem, price: Array) -> float:
    """Cost of serving every bucket at prices of load: g(y) = sum_b min_r y_r l_rb, y = ``price`` (R,)."""
    with np.errstate(invalid="ignore"):
        priced = price[:, None] * problem.load
    if not price.all():
        priced[np.isnan(priced)] = np.inf  # a type that cannot serve a bucket cannot serve it at a price of 0 either
    return float(priced.min(axis=0).sum())


@dataclass(slots=True, eq=False)
class Cuts:
    """Cuts y C(n) >= 1 that every fleet satisfies, each scaled by its demand.

    Parameters
    ----------
    weight
        One row a cut: y / g(y) (K, R).
    """

    weight: Array

    def add(self, problem: Problem, price: Array) -> Array | None:
        """Add the cut of ``price`` (R,) and return its weights; None if the cut has no content."""
        needed = _demand(problem, price)
        if not (np.isfinite(needed) and needed > 0):
            return None
        row = price / needed
        self.weight = np.vstack([self.weight, row])
        return row

    def allow(self, carried: Array) -> Mask:
        """Which fleets, given by the loads that they take (N, R), satisfy all cuts."""
        return np.asarray((carried @ self.weight.T >= 1.0 - ROUNDING).all(axis=1), bool)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probes:
    """Demand at prices that favor or burden one type at a time.

    Parameters
    ----------
    floor
        Demand at the true prices: the closed-form bound [USD/h].
    demand
        Demand with the price of type r times each factor of ``_PROBED_FACTORS`` (R, F) [USD/h].
    busy
        Load of each type when every bucket goes where it is cheapest (R,).
    """

    floor: float
    demand: Array
    busy: Array


def probe(problem: Problem) -> Probes:
    """Evaluate the demand at the true prices, and with one price at a time scaled by ``_PROBED_FACTORS``."""
    priced = (problem.cost / problem.capacity)[:, None] * problem.load
    best = priced.argmin(axis=0)
    buckets = np.arange(priced.shape[1])
    least = priced[best, buckets]
    rest = priced.copy()
    rest[best, buckets] = np.inf
    second = rest.min(axis=0)
    # The cheapest among the other types: the second best where the type itself is best.
    types = len(problem.cost)
    values = np.empty((types, len(_PROBED_FACTORS)))
    for r in range(types):
        others = np.where(best == r, second, least)
        values[r] = np.minimum(_PROBED_FACTORS[:, None] * priced[r], others).sum(axis=1)
    busy = np.bincount(best, problem.load[best, buckets], minlength=types).astype(float)
    return Probes(floor=float(least.sum()), demand=values, busy=busy)


def instance_range(problem: Problem, probes: Probes, cost_per_h: float) -> tuple[Positions, Positions]:
    """Least and most instances of each type (R,) in any fleet that costs at most ``cost_per_h``.

    With the price of r alone scaled by a, c n >= g(y) + (1 - a) c_r n_r; so c n <= C bounds n_r from above where a < 1
    and from below where a > 1. With spare replicas in total (K), what is left after the loss of r has to satisfy the
    cut too, which adds a c_r min(K / p_r, n_r) on the right.
    """
    low, high = _PROBED_FACTORS < 1, _PROBED_FACTORS > 1
    # Rounded outwards: a count that is possible must never be ruled out.
    room = (cost_per_h - probes.demand) / ((1.0 - _PROBED_FACTORS) * problem.cost[:, None])
    above = room[:, low]
    if problem.spare_total:
        lost, factor = (problem.spare_total / problem.replicas)[:, None], _PROBED_FACTORS[low]
        # Up to K replicas the loss takes all of them; beyond, it takes K.
        all_lost = above * (1.0 - factor)
        above = np.where(all_lost <= lost, all_lost, above - factor / (1.0 - factor) * lost)
    most = np.floor(above.min(axis=1) * (1 + ROUNDING) + ROUNDING)
    least = np.ceil(room[:, high].max(axis=1) * (1 - ROUNDING) - ROUNDING)
    return (
        np.maximum(least, 0).astype(np.int64),
        np.minimum(most, problem.most).clip(min=-1).astype(np.int64),
    )


def first_cuts(problem: Problem, probes: Probes, *, few: bool = False) -> Cuts:
    """The closed-form bound, the probes (unless ``few``), and cuts for buckets that only some types serve."""
    price = problem.cost / problem.capacity
    rows = [price / probes.floor]
    for r, values in enumerate(() if few else probes.demand):
        for factor, needed in zip(_PROBED_FACTORS, values, strict=True):
            scaled = price.copy()
            scaled[r] *= factor
            rows.append(scaled / needed)
    cuts = Cuts(weight=np.array(rows))
    able = np.isfinite(problem.load)
    if not able.all():
        for pattern in np.unique(able[:, ~able.all(axis=0)], axis=1).T:
            cuts.add(problem, np.where(pattern, price, 0.0))
    return cuts


def lifted(problem: Problem, price: Array, worth: Array, used: Mask) -> Array:
    """Prices, with those of unused types raised to the least that keeps the demand: y_r = max_b worth_b / l_rb.

    ``worth`` is the dual of each bucket's cover row (B,).
    """
    raised = (worth / problem.load).max(axis=1)
    return np.where(used, price, raised)
