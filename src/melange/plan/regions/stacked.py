"""Traffic by origin as one planning question: the sizes of each origin are rows of their own.

The rate of a replica type for an origin's requests is its rate under the SLO minus the round trip, so rates differ by
origin. Stacked, origins are just more sizes to the solvers, and everything true of sizes is true of them. Data that
leaves a region is paid by the byte: if that price differs, a program with a cost for each share decides.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.errors import SolverError
from melange.plan.fleet import TOLERANCE, broken_limits
from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.options import Options
from melange.plan.problem import ROUNDING, Positions, Problem, build
from melange.plan.question import Question
from melange.plan.servable import scope_of
from melange.plan.solve import solve
from melange.profile.profile import Profile, ReplicaType
from melange.units import S_PER_H
from melange.workload.workload import Array, Buckets, Workload

# Weight of a second of round trip beside the cost of a fleet, among shares that cost the same: next to nothing.
_WAY = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegionalFleet:
    """The cheapest fleet of all regions.

    Parameters
    ----------
    instances
        Of each type (R,).
    share
        Fraction of each origin's sizes that goes to each type (R, K, I, O), 0-1.
    cost_per_h, egress_per_h
        Cost of the instances, and of the data that leaves the regions [USD/h].
    bound_per_h
        No fleet costs less, egress included [USD/h].
    """

    instances: Array
    share: Array
    cost_per_h: float
    egress_per_h: float
    bound_per_h: float


def stacked(types: tuple[ReplicaType, ...], options: Options, rates: Array, speed: Array) -> Question:
    """The question of all origins.

    Parameters
    ----------
    types
        Replica types of all regions (R).
    options
        Options of the plan.
    rates
        Arrivals per second by origin and size (K, I, O) [1/s].
    speed
        Highest rate of each origin's sizes on one replica (R, K, I, O) [1/s]; 0 if it may not, or cannot, serve them.
    """
    origins, inputs, outputs = rates.shape
    buckets = Buckets.ordinal(origins * inputs, outputs)
    flat = speed.reshape(len(types), origins * inputs, outputs)
    nothing = np.zeros(flat.shape, np.int32)
    profile = Profile(
        replica_types=types,
        buckets=buckets,
        max_request_rate=flat,
        low=flat,
        high=flat,
        provenance=nothing.astype(np.int8),
        reason=nothing,
    )
    workload = Workload.at_upper_edges(buckets, rates.reshape(origins * inputs, outputs))
    return Question(workload=workload, profile=profile, options=options)


def cheapest_in_regions(
    types: tuple[ReplicaType, ...], options: Options, rates: Array, speed: Array, egress: Array, way_s: Array
) -> RegionalFleet:
    """The cheapest instances of all regions, and the flow of requests from origins to regions.

    Parameters
    ----------
    types, options, rates, speed
        As in :func:`stacked`.
    egress
        Cost of the data of one request that leaves the region of a type (R, K, I, O) [USD].
    way_s
        The round trip of each origin to the region of each type (R, K) [s].

    Raises
    ------
    InfeasibleError
        No fleet within the limits carries everything.
    SolverError
        The answer fails its own check.
    """
    whole = stacked(types, options, rates, speed)
    plan = solve(whole)
    scope = scope_of(whole)
    problem = build(whole, scope.allowed, scope.served)
    where = np.ix_(problem.types, problem.cells)
    paid = (S_PER_H * egress * rates).reshape(len(egress), -1)[where]
    way = np.broadcast_to(way_s[:, :, None, None], egress.shape) * rates
    way = way.reshape(len(egress), -1)[where]
    count, bound = plan.instances[problem.types].astype(float), (plan.bound_per_h or 0.0) + _least(problem, paid)
    if _differs(problem, paid):
        count, bound = _with_egress(problem, paid, count, options.gap, options.time_limit_s)
    share = _nearest(problem, paid, way, count)
    check(problem, count, share)
    instances = np.zeros(len(egress))
    instances[problem.types] = count
    spread = np.zeros((len(egress), rates.size))
    spread[where] = share
    return RegionalFleet(
        instances=instances,
        share=spread.reshape(egress.shape),
        cost_per_h=float(problem.cost @ count),
        egress_per_h=float((paid * share).sum()),
        bound_per_h=min(bound, float(problem.cost @ count + (paid * share).sum())),
    )


def _differs(problem: Problem, paid: Array) -> bool:
    """Whether egress costs more from one region than from another."""
    able = np.isfinite(problem.load)
    least = np.where(able, paid, np.inf).min(axis=0)
    return bool((np.where(able, paid - least, 0.0) > ROUNDING * float(problem.cost.min())).any())


def _least(problem: Problem, paid: Array) -> float:
    return float(np.where(np.isfinite(problem.load), paid, np.inf).min(axis=0).sum())


def _rows(problem: Problem, extra: Sequence[Array], count: Array | None) -> tuple[LinearRows, Positions, Positions]:
    """A program and the types and cells of its shares; columns: instances (R) unless they are given, then shares.

    ``extra`` are the costs of instances and of shares (R,), (R, B).
    """
    types, cells = len(problem.cost), len(problem.cells)
    type_of, cell_of = np.nonzero(np.isfinite(problem.load))
    own = np.arange(types) if count is None else np.arange(0)
    first = len(own)
    row = [cell_of, cells + type_of]
    column = [first + np.arange(len(type_of))] * 2
    value = [np.ones(len(type_of)), problem.load[type_of, cell_of]]
    upper = [np.zeros(types) if count is None else problem.capacity * count]
    if count is None:
        row.append(cells + own)
        column.append(own)
        value.append(-problem.capacity)
        for place, limit in enumerate(problem.limits):
            row.append(np.full(len(limit.members), cells + types + place))
            column.append(limit.members)
            value.append(limit.weight)
        upper.append(np.array([limit.most for limit in problem.limits]))
    # With little traffic, a type without instances could take whole shares within the solver's tolerance on loads.
    most = np.ones(len(type_of)) if count is None else (count[type_of] > 0).astype(float)
    places, order = np.concatenate(column), np.argsort(np.concatenate(column), kind="stable")
    ends = np.concatenate(upper)
    program = LinearRows(
        cost=np.concatenate([extra[0][own], extra[1][type_of, cell_of]]),
        lower=np.zeros(first + len(type_of)),
        upper=np.concatenate([problem.most[own].astype(float), most]),
        row_lower=np.concatenate([np.ones(cells), np.full(len(ends), -np.inf)]),
        row_upper=np.concatenate([np.ones(cells), ends]),
        start=np.append(0, np.cumsum(np.bincount(places, minlength=first + len(type_of)))).astype(np.int32),
        row=np.concatenate(row)[order].astype(np.int32),
        value=np.concatenate(value)[order],
        is_integer=np.concatenate([np.ones(first, bool), np.zeros(len(type_of), bool)]) if first else None,
    )
    return program, type_of, cell_of


def _with_egress(problem: Problem, paid: Array, known: Array, gap: float, limit_s: float) -> tuple[Array, float]:
    """Instances with the least cost including egress, and a lower bound on that cost."""
    program, type_of, cell_of = _rows(problem, (problem.cost, paid), None)
    begin = _nearest(problem, paid, np.zeros_like(paid), known)
    began = time.monotonic()
    start = np.concatenate([known.astype(float), begin[type_of, cell_of]])
    found = minimise(program, gap=gap, time_limit_s=limit_s, start=start)
    if found.x is None:
        raise SolverError(f"no answer after {time.monotonic() - began:.0f} s", hint="raise plan.time_limit_s")
    return np.round(found.x[: len(problem.cost)]), found.bound


def _nearest(problem: Problem, paid: Array, way: Array, count: Array) -> Array:
    """Shares (R, B) with the least egress cost; among these, the ones with the shortest round trips."""
    scale = max(float(problem.cost @ count), 1e-9) / max(float(way.sum()), 1e-9)
    program, type_of, cell_of = _rows(problem, (problem.cost, paid + _WAY * scale * way), count * (1 + 1e-9))
    found = minimise(program)
    if found.x is None:
        raise SolverError(f"a fleet without shares: {found.status}", hint="this is a bug")
    share = np.zeros(problem.load.shape)
    share[type_of, cell_of] = np.abs(np.clip(found.x, 0.0, 1.0))
    return np.asarray(share / share.sum(axis=0))


def check(problem: Problem, count: Array, share: Array) -> None:
    """Check in plain arithmetic that a fleet carries everything within its limits.

    Raises
    ------
    SolverError
        It does not: a bug, which must not reach production.
    """
    faults = list(broken_limits(problem, count.astype(np.int64)))
    if (np.abs(share.sum(axis=0) - 1) > TOLERANCE).any() or (share < 0).any():
        faults.append("shares that do not add up")
    if (share[~np.isfinite(problem.load)] > 0).any():
        faults.append("requests where they may not go")
    busy = (np.where(share > 0, problem.load, 0.0) * share).sum(axis=1)
    if (busy > problem.carried(count) * (1 + TOLERANCE) + TOLERANCE).any():
        faults.append("types that are overloaded")
    if faults:
        raise SolverError(f"the fleet of all regions breaks its limits: {'; '.join(faults)}", hint="this is a bug")
