"""Cost of a request of each size on each replica type, and the cheapest type: the numbers behind the pictures.

Arrays have the axes (replica type R, input bucket I, output bucket O).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melange.plan.plan import Plan
from melange.plan.problem import allowed_types
from melange.profile.profile import Profile, ReplicaType
from melange.replica.parallelism import Layout
from melange.units import S_PER_H
from melange.workload.workload import Array, Mask, Workload

_Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Winners:
    """The cheapest replica type for each request size, among the compared types.

    Parameters
    ----------
    best, second
        Index of the cheapest and of the second cheapest type (I, O); -1 if there is none.
    cost
        Cost of a request on the cheapest (I, O) [USD]; infinite if none can serve it.
    margin
        Extra cost of the second, as a fraction (I, O); infinite if only one can serve it, nan if none can.
    """

    best: _Indices
    second: _Indices
    cost: Array
    margin: Array


def request_cost(profile: Profile, rates: Array | None = None) -> Array:
    """Cost of one request on a fully used replica (R, I, O) [USD]; infinite if it cannot be served.

    cost = cost_per_h / (replicas per instance) / 3600 / max_request_rate: the inverse of T/$ (Mélange, arXiv
    2404.14527, section 4).

    Parameters
    ----------
    profile
        Capacities and prices of each type.
    rates
        Used instead of the profile's rates: its ``low`` or ``high`` (R, I, O) [1/s].
    """
    rates = profile.max_request_rate if rates is None else rates
    per_replica_s = np.array([_replica_cost_per_s(one) for one in profile.replica_types])
    cost: Array = np.full(rates.shape, np.inf)
    np.divide(per_replica_s[:, None, None], rates, out=cost, where=rates > 0)
    return cost


def cost_of_size(profile: Profile, r: int, cell: tuple[int, int], rates: Array | None = None) -> float:
    """One value of :func:`request_cost` [USD], computed alone."""
    rate = float((profile.max_request_rate if rates is None else rates)[r, cell[0], cell[1]])
    return _replica_cost_per_s(profile.replica_types[r]) / rate if rate > 0 else math.inf


def _replica_cost_per_s(one: ReplicaType) -> float:
    return one.cost_per_h / one.replicas_per_instance / S_PER_H


def winners(cost: Array, among: list[int]) -> Winners:
    """The cheapest of the types ``among`` for each size, and its margin over the second.

    >>> cost = np.array([[[1.0]], [[1.5]], [[0.1]]])
    >>> found = winners(cost, [0, 1])
    >>> int(found.best[0, 0]), int(found.second[0, 0]), float(found.margin[0, 0])
    (0, 1, 0.5)
    """
    positions = np.array(among, np.int64)
    chosen = cost[positions]
    order = np.argsort(chosen, axis=0, kind="stable")
    ranked = np.take_along_axis(chosen, order, axis=0)
    first = ranked[0]
    runner_up = ranked[1] if len(among) > 1 else np.full_like(first, np.inf)
    able, rivalled = np.isfinite(first), np.isfinite(runner_up)
    margin = np.full_like(first, np.nan)
    margin[able] = np.inf
    margin[rivalled] = runner_up[rivalled] / first[rivalled] - 1
    second = positions[order[1]] if len(among) > 1 else np.full(first.shape, -1)
    return Winners(
        best=np.where(able, positions[order[0]], -1), second=np.where(rivalled, second, -1), cost=first, margin=margin
    )


def advantage(cost: Array, a: int, b: int) -> Array:
    """Extra cost of the more expensive of two types, as a fraction (I, O).

    Positive if ``a`` is cheaper, negative if ``b`` is; infinite if only one can serve the size, nan if neither can.

    >>> advantage(np.array([[[1.0, 3.0]], [[1.5, 1.0]]]), 0, 1)
    array([[ 0.5, -2. ]])
    """
    result = np.full(cost.shape[1:], np.nan)
    able_a, able_b = np.isfinite(cost[a]), np.isfinite(cost[b])
    result[able_a & ~able_b] = np.inf
    result[able_b & ~able_a] = -np.inf
    both = able_a & able_b
    ratio = cost[b][both] / cost[a][both]
    result[both] = np.where(ratio >= 1, ratio - 1, 1 - 1 / ratio)
    return result


def comparable_types(plan: Plan) -> list[int]:
    """Indexes of the types to show in pictures.

    Three groups are left out: types that the settings exclude; types with one instance more expensive than the whole
    plan; and types for which another offer with the same accelerators and degree is at least as good everywhere at no
    higher price per replica (among equals, the smallest instance stays). Types that the plan uses always stay.
    """
    profile = plan.question.profile
    cost = request_cost(profile)
    used = plan.instances > 0
    allowed = allowed_types(plan.question)
    affordable = np.array([t.cost_per_h <= plan.cost_per_h for t in profile.replica_types])
    able = np.isfinite(cost).any(axis=(1, 2))
    positions = np.flatnonzero((allowed & affordable & able) | used)
    return [int(r) for r in positions if used[r] or not _is_matched(profile, cost, int(r), positions)]


def _is_matched(profile: Profile, cost: Array, r: int, others: _Indices) -> bool:
    """Whether another offer with the same hardware is at least as good for every size."""
    for other in others.tolist():
        if other == r or _hardware(profile, other) != _hardware(profile, r):
            continue
        if (cost[other] <= cost[r]).all() and ((cost[other] < cost[r]).any() or _size(profile, other, r)):
            return True
    return False


def _hardware(profile: Profile, r: int) -> tuple[str, Layout, str]:
    replica_type = profile.replica_types[r]
    return replica_type.offer.accelerator, replica_type.layout, replica_type.engine


def _size(profile: Profile, other: int, r: int) -> bool:
    """For two equal offers, whether the other is the smaller instance, or the first of the same size."""
    sizes = [profile.replica_types[position].offer.accelerators for position in (other, r)]
    return (sizes[0], other) < (sizes[1], r)


def typical_sizes(workload: Workload, count: int) -> list[tuple[int, int]]:
    """Buckets (i, o) that represent the traffic: the busiest bucket of each of ``count`` equal parts, short to long.

    Requests are sorted by their total tokens and divided into parts of equal traffic.
    """
    rate = workload.request_rate.ravel()
    tokens = (workload.input_tokens + workload.output_tokens).ravel()
    cells = np.flatnonzero(rate)
    cells = cells[np.argsort(tokens[cells], kind="stable")]
    middle = np.cumsum(rate[cells]) - rate[cells] / 2
    part = np.minimum((middle / rate.sum() * count).astype(int), count - 1)
    busiest = [int(cells[part == k][np.argmax(rate[cells[part == k]])]) for k in range(count) if (part == k).any()]
    return [divmod(cell, workload.request_rate.shape[1]) for cell in busiest]


def is_distinguished(profile: Profile, found: Winners) -> Mask:
    """Where the winner is cheaper even if both intervals are taken at their unfavorable ends (I, O).

    False if there is no second type; an interval that reaches 0 cannot decide.
    """
    at_most, at_least = request_cost(profile, profile.low), request_cost(profile, profile.high)
    i, o = np.indices(found.best.shape)
    rivalled = found.second >= 0
    apart: Mask = rivalled & (at_most[found.best, i, o] < at_least[found.second, i, o])
    return apart
