"""Why no cheaper fleet works: the cheaper fleet that comes closest, and the constraint that it violates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.plan.exact.lattice import permitted
from melange.plan.fleet import TOLERANCE, busy, least_peak_shares
from melange.plan.problem import ROUNDING, Positions, Problem
from melange.profile.profile import Profile

# Number of fleets one exchange away from the plan that are examined, each a linear program of about a millisecond. With
# fewer, a nearer fleet may be missed. On 16 random instances of 60 buckets x 200 types (bench/instances.py), with up to
# 1,330 such fleets: 200 missed the nearest in 7 instances and took 0.26 s of CPU in the median; 800 missed none and
# took 0.42 s, 1.8 s at most.
_MOST_NEIGHBORS = 800


@dataclass(frozen=True, slots=True, kw_only=True)
class CheaperFleet:
    """The cheaper fleet that comes closest to serving the workload, and the constraint that it violates.

    Parameters
    ----------
    replicas
        Replicas by type name, used types only.
    cost_per_h
        What it costs [USD/h].
    peak
        Load of its most loaded type relative to what that type may take. Above 1, the excess is what is missing;
        infinite if the fleet has no type for some request size.
    violation
        The violated constraint, in a sentence.
    """

    replicas: dict[str, int]
    cost_per_h: float
    peak: float
    violation: str


def nearest_cheaper(problem: Problem, profile: Profile, count: Positions) -> CheaperFleet | None:
    """The nearest cheaper fleet, among those with one instance fewer or one exchanged for a cheaper one."""
    best: tuple[float, float, Positions] | None = None
    for fleet in _neighbors(problem, count):
        found = least_peak_shares(problem, problem.carried(fleet))
        peak = np.inf if found is None else found[1]
        key = (peak, -float(problem.cost @ fleet))
        if best is None or key < best[:2]:
            best = (*key, fleet)
    if best is None:
        return None
    peak, negative, fleet = best
    names = (problem.names[r] for r in np.flatnonzero(fleet))
    replicas = dict(zip(names, (problem.replicas * fleet)[fleet > 0].astype(int).tolist(), strict=True))
    return CheaperFleet(
        replicas=replicas, cost_per_h=-negative, peak=peak, violation=_violation(problem, profile, fleet, peak)
    )


def _neighbors(problem: Problem, count: Positions) -> list[Positions]:
    fleets = []
    unit = np.eye(len(count), dtype=np.int64)
    for r in np.flatnonzero(count):
        fleets.append(count - unit[r])
        cheaper = np.flatnonzero((problem.cost < problem.cost[r] - ROUNDING) & (problem.most > count))
        # The most expensive first: it can carry most.
        fleets += [count - unit[r] + unit[s] for s in cheaper[np.argsort(-problem.cost[cheaper], kind="stable")]]
    return fleets[:_MOST_NEIGHBORS]


def _violation(problem: Problem, profile: Profile, fleet: Positions, peak: float) -> str:
    """The constraint that a fleet violates."""
    carried = problem.carried(fleet)
    missing = np.flatnonzero(~np.isfinite(problem.load[carried > 0]).any(axis=0))
    if len(missing):
        i, o = np.unravel_index(int(problem.cells[missing[0]]), profile.buckets.shape)
        return f"no replica in it can serve {profile.buckets.label(int(i), int(o))}"
    if peak > 1 + TOLERANCE:
        found = least_peak_shares(problem, carried)
        assert found is not None
        over = busy(problem, found[0]) - carried
        worst = int(np.argmax(over))
        return (
            f"it would run at {peak:.1%} of its capacity: {problem.names[worst]} is short by {over[worst]:.2f} replicas"
        )
    if not permitted(problem, fleet[None]).all() or problem.replicas @ fleet < problem.min_total:
        return "it violates a minimum, a requirement or a limit of the service"
    if problem.spare_total:
        return "it does not survive the loss of its spare replicas"
    return "its shares do not fit whole slices" if problem.slices else "it is within the search's optimality gap"
