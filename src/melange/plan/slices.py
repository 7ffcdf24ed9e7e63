"""Whole slices for a fleet that carries the traffic with continuous shares."""

from __future__ import annotations

import numpy as np

from melange.plan.fleet import TOLERANCE, busy
from melange.plan.formulation import formulate
from melange.plan.highs import minimise
from melange.plan.problem import Problem
from melange.workload.workload import Array

MOST_MOVES = 200
ROOM = 1e-9
# The exact question is asked of the solver once the quick one has failed.
SECONDS = 10.0


def sliced(problem: Problem, share: Array, carried: Array) -> tuple[Array | None, bool]:
    """Shares (R, B) in whole slices that fit into ``carried`` (R,), near ``share``; and is the answer certain."""
    quick = quickly_sliced(problem, share, carried)
    return (quick, True) if quick is not None else _exact(problem, carried)


def quickly_sliced(problem: Problem, share: Array, carried: Array) -> Array | None:
    """Shares (R, B) in whole slices that fit into ``carried`` (R,), by rounding and moving slices; None: none found."""
    return _repaired(problem, _rounded(problem, share), carried)


def _rounded(problem: Problem, share: Array) -> Array:
    """Slices (R, B) nearest to the shares that add up in every bucket: largest remainders first."""
    whole = problem.slices or 1
    slices = np.floor(share * whole + 1e-7)
    short = np.round(whole - slices.sum(axis=0)).astype(int)
    for b in np.flatnonzero(short):
        rest = share[:, b] * whole - slices[:, b]
        slices[np.argsort(-rest, kind="stable")[: short[b]], b] += 1
    return slices


def _repaired(problem: Problem, slices: Array, carried: Array) -> Array | None:
    """Move one slice at a time from an overloaded type to where it fits best; None where that gets stuck."""
    whole = problem.slices or 1
    each = np.where(np.isfinite(problem.load), problem.load, 0.0) / whole
    able = np.isfinite(problem.load) & (carried > 0)[:, None]
    load = (each * slices).sum(axis=1)
    for _ in range(MOST_MOVES):
        over = np.maximum(load - carried, 0.0)
        if (load <= carried * (1 + ROOM)).all():
            return np.asarray(slices / whole)
        source = int(np.argmax(over / np.maximum(carried, 1e-300)))
        after_source = np.maximum(load[source] - each[source] - carried[source], 0.0)
        after = np.maximum(load[:, None] + each - carried[:, None], 0.0) - over[:, None] + after_source - over[source]
        after = np.where(able & (slices[source] > 0), after, np.inf)
        after[source] = np.inf
        target, b = np.unravel_index(int(np.argmin(after)), after.shape)
        if not after[target, b] < -1e-15:
            return None
        slices[source, b] -= 1
        slices[target, b] += 1
        load[source] -= each[source, b]
        load[target] += each[target, b]
    return None


def _exact(problem: Problem, carried: Array) -> tuple[Array | None, bool]:
    """Ask the solver whether whole slices fit at all; it may run out of time."""
    used = carried > 0
    part = problem.only(used).with_changes(
        limits=(),
        requirements=(),
        min_total=0,
        max_types=None,
        least=np.ones(int(used.sum()), np.int64),
        spare=np.zeros(int(used.sum())),
        replicas=carried[used],
        headroom=0.0,
        most=np.ones(int(used.sum()), np.int64),
        cost=np.zeros(int(used.sum())),
    )
    milp = formulate(part)
    outcome = minimise(milp.program, time_limit_s=SECONDS)
    x = outcome.x
    if x is None:
        return None, outcome.status == "infeasible"
    columns = milp.columns
    inner = np.zeros(part.load.shape)
    inner[columns.type_of, columns.bucket_of] = np.round(x[columns.share : columns.share + len(columns.type_of)])
    share = np.zeros(problem.load.shape)
    share[used] = inner / (problem.slices or 1)
    fits = (busy(problem, share) <= carried * (1 + TOLERANCE)).all()
    return (share, True) if fits else (None, False)
