"""The plan in force: of certified fleets that cost the same, the one that changes the fewest of its instances."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from melange.errors import InfeasibleError, SolverError
from melange.plan.plan import Plan
from melange.plan.problem import ROUNDING
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.validate.certify.headroom import Search
from melange.validate.certify.plan_trial import Trial

# Fleets that are simulated for it at most: each takes as long as one plan of the search, and the proof of one that
# holds. A judgment.
_MOST_TRIED = 6

Counts = npt.NDArray[np.int64]


def counts_in_force(question: Question, incumbent: Plan | None) -> Counts | None:
    """Instances in force of each type of a question (R,); None where no plan is."""
    if incumbent is None:
        return None
    counts = incumbent.instances_by_name
    return np.array([counts.get(one.name, 0) for one in question.profile.replica_types], np.int64)


def nearest_proven(search: Search, best: Trial, incumbent: Plan | None) -> Trial:
    """A proven plan that costs no more than the best one and changes the fewest instances of the plan in force.

    Tried are the fleet in force itself, the best fleet with types of one price exchanged for those in force, and what
    the closed form finds nearest. The best plan itself where none of these is proven.

    Parameters
    ----------
    search
        With the types in force among its own.
    best
        The cheapest plan that is proven.
    incumbent
        The plan in force; None: nothing is near or far.
    """
    in_force = counts_in_force(search.question, incumbent)
    if incumbent is None or in_force is None:
        return best
    cost = np.array([one.cost_per_h for one in search.question.profile.replica_types])
    found = [in_force, *_exchanged(best.plan.instances, in_force, cost), *_of_closed_form(search, best, incumbent)]
    ceiling = best.plan.cost_per_h + ROUNDING
    nearer = {
        one.tobytes(): one
        for one in found
        if one.any() and cost @ one <= ceiling and _changes(one, in_force) < _changes(best.plan.instances, in_force)
    }
    for instances in sorted(nearer.values(), key=lambda one: _changes(one, in_force))[:_MOST_TRIED]:
        plan = search.of(instances, best.factor)
        if plan is None:
            continue
        trial = search.judge.trial(plan, best.factor)
        if not trial.is_refuted and (search.judge.holds(trial) or search.judge.may_hold(trial)):
            proof = search.judge.proof(trial)
            if search.judge.is_proven(proof):
                return proof
    return best


def _changes(instances: Counts, in_force: Counts) -> int:
    return int(np.abs(instances - in_force).sum())


def _exchanged(instances: Counts, in_force: Counts, cost: npt.NDArray[np.float64]) -> list[Counts]:
    """Fleets (R,) with types that are too many exchanged for types of the same price that are too few.

    All exchanges at once, and each by itself.
    """
    everything, alone = instances.copy(), []
    for r in np.flatnonzero(instances > in_force):
        for s in np.flatnonzero((instances < in_force) & (np.abs(cost - cost[r]) <= ROUNDING * cost[r])):
            part = instances.copy()
            for fleet in (everything, part):
                moved = max(0, min(fleet[r] - in_force[r], in_force[s] - fleet[s]))
                fleet[r] -= moved
                fleet[s] += moved
            alone.append(part)
    return [everything, *alone]


def _of_closed_form(search: Search, best: Trial, incumbent: Plan) -> list[Counts]:
    """The fleet that the closed form finds nearest, with the headroom of the best plan."""
    try:
        return [solve(search.at(best.factor), incumbent=incumbent).instances]
    except (InfeasibleError, SolverError):
        return []
