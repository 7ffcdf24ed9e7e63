"""Whole slices for a fleet that carries the traffic with continuous shares."""

from __future__ import annotations

import numpy as np

from melange.plan.fleet import TIGHT, TOLERANCE, busy
from melange.plan.milp.formulation import formulate
from melange.plan.milp.highs import PeakLoad, minimise
from melange.plan.problem import Problem
from melange.plan.search_clock import now_s
from melange.workload.workload import Array, Mask

# The figures below are CPU time on 100 random instances of 60 buckets x 4 types in 8 slices (bench/instances.py).

# Moves after which a repair counts as stuck: each move relieves the overload, and a repair that takes more moves makes
# too little progress. From 20 to 400 nothing differs.
_MOST_MOVES = 200
# Fraction of its capacity by which a type may be overloaded: the rounding of sums. With more, slices would count as
# fitting that do not.
_ROOM = 1e-9
# Relief smaller than this, in replicas, is rounding, and would let a repair go in circles. 1e-9: no difference.
_LEAST_RELIEF = 1e-13
# A solver's error in a whole number of slices.
_WHOLE = 1e-6
# Time limit of the exact question to the solver, once the quick ways have failed [s]: whether slices fit at all is a
# packing problem, and may take forever. With 2 s one instance stayed unproven, 0.01 % more expensive, and all took 0.75
# times the time in sum.
_EXACT_TIME_S = 10.0


def sliced(problem: Problem, share: Array, carried: Array, deadline: float) -> tuple[Array | None, bool]:
    """Shares (R, B) in whole slices that fit into ``carried`` (R,), near ``share``; and if the answer is certain."""
    quick = quickly_sliced(problem, share, carried)
    if quick is not None:
        return quick, True
    left = min(_EXACT_TIME_S, deadline - now_s())
    return _exact(problem, carried, left) if left > 0 else (None, False)


def quickly_sliced(problem: Problem, share: Array, carried: Array) -> Array | None:
    """Shares (R, B) in whole slices that fit into ``carried`` (R,), by rounding and moving slices; None: none found."""
    quick = _repaired(problem, _rounded(problem, share), carried)
    # Without the dive, the solver is needed more often: 1.34 times the time in sum.
    return quick if quick is not None else _dived(problem, carried)


def whole_buckets(problem: Problem, carried: Array) -> Array | None:
    """Shares (R, B) that send each bucket to the type that serves it cheapest, if they fit into ``carried`` (R,)."""
    priced = np.where(carried[:, None] > 0, (problem.cost / problem.capacity)[:, None] * problem.load, np.inf)
    if not np.isfinite(priced).any(axis=0).all():
        return None
    share = np.zeros_like(problem.load)
    share[priced.argmin(axis=0), np.arange(priced.shape[1])] = 1.0
    return share if (busy(problem, share) <= carried * (1 + TIGHT)).all() else None


def _dived(problem: Problem, carried: Array) -> Array | None:
    """Round one split bucket after another, the heaviest first, and solve the shares of the others again each time.

    The thinnest buckets come last, because rounding them costs next to nothing.
    """
    used = np.flatnonzero(carried > 0)
    load, whole = problem.load[used], problem.slices or 1
    oracle = PeakLoad(load)
    weight = np.where(np.isfinite(load), load, 0.0).max(axis=0)
    peak = oracle(carried[used])[0]
    for _ in range(load.shape[1]):
        if peak > 1 + _ROOM:
            return None
        part = oracle.shares() * whole
        split = np.abs(part - np.round(part)).max(axis=0) > _WHOLE
        if not split.any():
            break
        b = int(np.argmax(np.where(split, weight, -1.0)))
        peaks = []
        ways = _roundings(part[:, b], whole)
        for way in ways:
            oracle.fix(b, way / whole)
            peaks.append(oracle(carried[used])[0])
        best = int(np.argmin(peaks))
        oracle.fix(b, ways[best] / whole)
        peak = oracle(carried[used])[0]
    share = np.zeros(problem.load.shape)
    share[used] = np.round(oracle.shares() * whole) / whole
    complete = np.allclose(share.sum(axis=0), 1.0)
    return share if complete and (busy(problem, share) <= carried * (1 + TIGHT)).all() else None


def _roundings(part: Array, whole: int) -> list[Array]:
    """Whole slices near ``part`` (R,) that add up: each split type gets the last slices in turn."""
    low = np.floor(part + _WHOLE)
    short = round(whole - float(low.sum()))
    ways = []
    for first in np.flatnonzero(part - low > _WHOLE):
        way = low.copy()
        way[first] += 1
        rest = np.argsort(-(part - way), kind="stable")[: max(0, short - 1)]
        way[rest] += 1
        if way.sum() == whole:
            ways.append(way)
    return ways or [_rounded_column(part, whole)]


def _rounded_column(part: Array, whole: int) -> Array:
    low = np.floor(part + _WHOLE)
    order = np.argsort(-(part - low), kind="stable")
    low[order[: round(whole - float(low.sum()))]] += 1
    return low


def _rounded(problem: Problem, share: Array) -> Array:
    """Slices (R, B) nearest to the shares that add up in every bucket: largest remainders first."""
    whole = problem.slices or 1
    slices = np.floor(share * whole + _WHOLE)
    short = np.round(whole - slices.sum(axis=0)).astype(int)
    for b in np.flatnonzero(short):
        rest = share[:, b] * whole - slices[:, b]
        slices[np.argsort(-rest, kind="stable")[: short[b]], b] += 1
    return slices


def _repaired(problem: Problem, slices: Array, carried: Array) -> Array | None:
    """Move or exchange single slices from the most overloaded type to where they fit best; None if stuck."""
    whole = problem.slices or 1
    each = np.where(np.isfinite(problem.load), problem.load, 0.0) / whole
    able = np.isfinite(problem.load) & (carried > 0)[:, None]
    load = (each * slices).sum(axis=1)
    for _ in range(_MOST_MOVES):
        over = load - carried
        if (over <= carried * _ROOM).all():
            return np.asarray(slices / whole)
        source = int(np.argmax(over / np.maximum(carried, np.finfo(float).tiny)))
        step = _move(each, able, slices, over, source) or _exchange(each, able, slices, over, source)
        if step is None:
            return None
        target, out, back = step
        for b, way in ((out, 1), (back, -1)):
            if b >= 0:
                slices[source, b] -= way
                slices[target, b] += way
                load[source] -= way * each[source, b]
                load[target] += way * each[target, b]
    return None


def _move(each: Array, able: Mask, slices: Array, over: Array, source: int) -> tuple[int, int, int] | None:
    """The slice of ``source`` whose move to another type relieves most: target, bucket; None if none relieves."""
    now = np.maximum(over, 0.0)
    gain = now[source] - np.maximum(over[source] - each[source], 0.0)
    gain = gain - np.maximum(over[:, None] + each, 0.0) + now[:, None]
    gain = np.where(able & (slices[source] > 0), gain, -np.inf)
    gain[source] = -np.inf
    target, b = np.unravel_index(int(np.argmax(gain)), gain.shape)
    return (int(target), int(b), -1) if gain[target, b] > _LEAST_RELIEF else None


def _exchange(each: Array, able: Mask, slices: Array, over: Array, source: int) -> tuple[int, int, int] | None:
    """The exchange of slices between ``source`` and another type that relieves most: target, bucket out, bucket in."""
    best, chosen = _LEAST_RELIEF, None
    now = np.maximum(over, 0.0)
    for target in range(len(each)):
        out = np.flatnonzero(able[target] & (slices[source] > 0))
        back = np.flatnonzero(able[source] & (slices[target] > 0))
        if target == source or not len(out) or not len(back):
            continue
        relieved = over[source] - each[source, out][:, None] + each[source, back]
        burdened = over[target] + each[target, out][:, None] - each[target, back]
        gain = now[source] + now[target] - np.maximum(relieved, 0.0) - np.maximum(burdened, 0.0)
        at = int(np.argmax(gain))
        if gain.flat[at] > best:
            best = float(gain.flat[at])
            chosen = (target, int(out[at // len(back)]), int(back[at % len(back)]))
    return chosen


def _exact(problem: Problem, carried: Array, time_limit_s: float) -> tuple[Array | None, bool]:
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
    outcome = minimise(milp.program, time_limit_s=time_limit_s)
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
