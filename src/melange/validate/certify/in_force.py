"""The current plan: of certified fleets of equal cost, choose the one that changes the fewest of its instances."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from melange.errors import InfeasibleError, SolverError
from melange.plan.plan import Plan
from melange.plan.problem import ROUNDING
from melange.plan.question import Question
from melange.plan.solve import solve, with_instances
from melange.validate.certify.headroom import Search, as_asked
from melange.validate.certify.plan_trial import Trial
from melange.validate.certify.second_pools import only_used, proof_of, with_pools
from melange.workload.workload import Array

# Most fleets that are simulated for it: each takes as long as one plan of the search, and the proof if it holds. Chosen
# by judgment.
_MOST_TRIED = 6

Counts = npt.NDArray[np.int64]


def counts_in_force(question: Question, incumbent: Plan | None) -> Counts | None:
    """Current instances of each type of a question (R,), in all pools that the question lacks; None without a plan."""
    if incumbent is None:
        return None
    names = {one.name for one in question.profile.replica_types}
    counts = Counter[str]()
    for one, count in zip(incumbent.replica_types, incumbent.instances, strict=True):
        counts[one.name if one.name in names else one.type_name] += int(count)
    return np.array([counts[one.name] for one in question.profile.replica_types], np.int64)


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
    factor = _as_equals(search.question, best)
    for instances in sorted(nearer.values(), key=lambda one: _changes(one, in_force))[:_MOST_TRIED]:
        plan = search.of(instances, factor)
        if plan is None:
            continue
        trial = search.judge.trial(plan, factor)
        proof = None if trial.is_refuted else proof_of(search.judge, trial)
        if proof is not None:
            return proof
    return best


def kept_pools(search: Search, best: Trial, incumbent: Plan | None) -> Trial | None:
    """The current plan if it has second pools, costs no more than the best plan, and is proven to hold; else None."""
    asked = search.question
    if incumbent is None or incumbent.workload.buckets != asked.workload.buckets:
        return None
    names = {one.name: r for r, one in enumerate(asked.profile.replica_types)}
    rented = [(one, k) for k, one in enumerate(incumbent.replica_types) if incumbent.instances[k]]
    if any(one.type_name not in names for one, _ in rented) or all(one.name in names for one, _ in rented):
        return None
    whole = counts_in_force(asked, incumbent)
    if whole is None or with_instances(asked, whole) is None:  # limits forbid it now
        return None
    question = with_pools(asked, [(names[one.type_name], one.pool) for one, _ in rented if one.name not in names])
    types = question.profile.replica_types
    places = {one.name: r for r, one in enumerate(types)}
    instances, share = np.zeros(len(types), np.int64), np.zeros((len(types), *incumbent.share.shape[1:]))
    for one, k in rented:
        instances[places[one.name]], share[places[one.name]] = incumbent.instances[k], incumbent.share[k]
    cost = float(instances @ np.array([one.cost_per_h for one in types]))
    is_served = np.isclose(share.sum(axis=0), 1.0) | (asked.workload.request_rate == 0)
    if cost > best.plan.cost_per_h + ROUNDING or not is_served.all():
        return None
    unknown: Array = np.zeros(len(types))
    base = replace(best.plan, question=question, instances=instances, share=share, cost_per_h=cost, load=unknown)
    pooled = replace(search.judge, question=question, known={})
    proof = proof_of(pooled, pooled.trial(as_asked(base, question), np.ones(share.shape)))
    return None if proof is None else only_used(proof, len(names))


def _as_equals(question: Question, best: Trial) -> Array:
    """The best plan's factors (R, I, O), for types that it does not use those of a used type with an equal engine.

    The factors that an unused type has from the search are a guess.
    """
    factor, engines = best.factor.copy(), question.profile.engines
    for r in np.flatnonzero(best.plan.instances):
        for s, engine in enumerate(engines):
            if engine == engines[r] and not best.plan.instances[s]:
                factor[s] = best.factor[r]
    return factor


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
