"""A first fleet, in milliseconds: round up the cheapest assignment, then drop one type after another."""

from __future__ import annotations

import numpy as np

from melange.plan.exact.lattice import permitted
from melange.plan.milp.highs import PeakLoad
from melange.plan.problem import ROUNDING, Positions, Problem
from melange.workload.workload import Array, Mask


def first_fleets(problem: Problem) -> list[Positions]:
    """Fleets (R,) that carry everything, found by dropping types one at a time, the cheapest first.

    Every bucket goes to the type that serves it cheapest among the remaining types, and instances are rounded up. The
    type whose removal costs least is dropped next.
    """
    priced = (problem.cost / problem.capacity)[:, None] * problem.load
    kept = np.flatnonzero(_busy(problem, priced, np.arange(len(priced))) > 0)
    fleets = [_rounded_up(problem, _busy(problem, priced, kept))]
    while len(kept) > 1:
        trials = []
        for r in kept:
            rest = kept[kept != r]
            load = _busy(problem, priced, rest)
            trials.append(_rounded_up(problem, load) if np.isfinite(load).all() else None)
        costs = [np.inf if trial is None else float(trial @ problem.cost) for trial in trials]
        best = int(np.argmin(costs))
        fleet = trials[best]
        if fleet is None:
            break
        fleets.append(fleet)
        kept = np.delete(kept, best)
    fleets += _single(problem)
    allowed = [fleet for fleet in fleets if permitted(problem, fleet[None]).all() and _enough(problem, fleet)]
    return sorted(allowed, key=lambda fleet: float(fleet @ problem.cost))


def _single(problem: Problem) -> list[Positions]:
    """The cheapest fleet of a single type, if there is one."""
    able: Mask = np.asarray(np.isfinite(problem.load).all(axis=1), bool)
    if not able.any():
        return []
    load = np.zeros(len(able))
    load[able] = problem.load[able].sum(axis=1)
    count = _rounded_up(problem, load)
    count = np.maximum(count, np.where(able, np.ceil(problem.min_total / problem.replicas), 0).astype(np.int64))
    cost = np.where(able & (count <= problem.most), count * problem.cost, np.inf)
    if not np.isfinite(cost).any():
        return []
    return [np.where(np.arange(len(cost)) == int(np.argmin(cost)), count, 0)]


def trimmed(problem: Problem, fleet: Positions, oracle: PeakLoad | None = None) -> Positions:
    """Remove every instance that the fleet does not need once shares are balanced, the most expensive first.

    ``oracle`` covers all types, if one exists already.
    """
    used = np.flatnonzero(fleet)
    seen = np.arange(len(fleet)) if oracle is not None else used
    oracle = oracle or PeakLoad(problem.load[used])
    count = fleet.copy()
    for r in used[np.argsort(-problem.cost[used], kind="stable")]:
        while count[r] > 0:
            count[r] -= 1
            is_fine = permitted(problem, count[None]).all() and _enough(problem, count)
            if not is_fine or _too_little(problem, count) or oracle(problem.carried(count)[seen])[0] > 1 + ROUNDING:
                count[r] += 1
                break
    return count


def _too_little(problem: Problem, count: Positions) -> bool:
    """Whether the closed-form bound alone says that a fleet does not carry everything."""
    price = problem.cost / problem.capacity
    return bool(price @ problem.carried(count) < (price[:, None] * problem.load).min(axis=0).sum())


def _enough(problem: Problem, fleet: Positions) -> bool:
    return bool(problem.replicas @ fleet >= problem.min_total)


def _busy(problem: Problem, priced: Array, kept: Positions) -> Array:
    """Load of each type (R,) when every bucket goes to the cheapest of the ``kept``; infinite if none serves it."""
    best = kept[priced[kept].argmin(axis=0)]
    load = problem.load[best, np.arange(priced.shape[1])]
    return np.bincount(best, load, minlength=len(priced)).astype(float)


def _rounded_up(problem: Problem, busy: Array) -> Positions:
    """Least instances (R,) that take a load, spare replicas and minimums included."""
    exact = (busy / (1.0 - problem.headroom) + problem.spare) / problem.replicas
    count = np.maximum(np.ceil(exact - ROUNDING * np.maximum(exact, 1.0)), problem.least)
    # Even the smallest traffic needs one replica besides the spare ones.
    count = np.maximum(count, np.floor(problem.spare / problem.replicas) + 1)
    return np.where(busy > 0, count, 0).astype(np.int64)
