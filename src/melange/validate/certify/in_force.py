"""The current plan: of certified fleets of equal cost, choose the one that changes the fewest of its instances."""

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

# Most fleets that are simulated for it: each takes as long as one plan of the search, and the proof if it holds. Chosen
# by judgment.
_MOST_TRIED = 6

Counts = npt.NDArray[np.int64]


def counts_in_force(question: Question, incumbent: Plan | None) -> Counts | None:
    """Current instances of each type of a question (R,); None if there is no current plan."""
    if incumbent is None:
        return None
    counts = incumbent.instances_by_name
    return np.array([counts.get(one.name, 0) for one in question.profile.replica_types], np.int64)


def nearest_proven(search: Search, best: Trial, incumbent: Plan | None) -> Trial:
    """A proven plan that costs no more than the best one and changes the fewest current instances.

    The current fleet itself is tried, the best fleet with types exchanged for current types of the same price, and the
    nearest fleet by the closed form. If none of these is proven, the best plan is returned.

    Parameters
    ----------
    search
        The search, whose types include the current ones.
    best
        The cheapest proven plan.
    incumbent
        The current plan; None: no plan is nearer than another.
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
    """Fleets (R,) with surplus types exchanged for missing types of the same price.

    The first has all exchanges at once, the others have one exchange each.
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
