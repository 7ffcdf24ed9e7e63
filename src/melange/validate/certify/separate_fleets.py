"""A fleet for each class of requests, side by side: fleets with shared replicas must cost less than these.

Under tight limits on the time between tokens, everything that runs beside a request must be small, and requests with
loose limits fill a replica better by themselves. So the fleet of each class is searched for alone, and if all of them
together cost less than the cheapest shared fleet, they become pools of one plan. No pool takes requests of another
class, so each class does as it did alone, and the proofs of its fleets prove the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from melange.errors import InfeasibleError
from melange.plan.confidence import with_rates
from melange.plan.fleet import broken_limits
from melange.plan.plan import Plan
from melange.plan.problem import ROUNDING, build
from melange.plan.question import Question
from melange.plan.servable import scope_of
from melange.replica.policy import FOLLOWING_SHARES
from melange.validate.certify.bound import least_cost
from melange.validate.certify.headroom import as_asked
from melange.validate.certify.judge import Judge
from melange.validate.certify.plan_trial import Trial, worst_of
from melange.validate.certify.second_pools import with_pools
from melange.workload.workload import Workload

# Why a pool serves no requests of a class.
_APART = "another class of requests has this pool to itself"


def separate_fleets(
    judge: Judge, best: Trial | None, find: Callable[[Question, int], Trial], say: Callable[[str], None]
) -> Trial | None:
    """The proven fleets of all classes, side by side, if they cost less than the best plan; None otherwise.

    Parameters
    ----------
    judge
        The judge of all classes together.
    best
        The cheapest proven shared plan; None: there is none.
    find
        Finds the proof of the cheapest fleet for the traffic of one class, by its question and the class's position.
    say
        Called with a sentence.
    """
    question, slo, options = judge.question, judge.slo, judge.question.options
    alike = {(tuple(one.slo.limits.items()), one.slo.target, one.priority) for one in slo.classes}
    if judge.policy not in FOLLOWING_SHARES:  # other policies send requests to any pool
        return None
    if len(alike) < 2 or options.slices or options.spare_total_replicas or options.min_replicas != 1:
        return None
    ceiling = np.inf if best is None else best.plan.cost_per_h - ROUNDING
    rows = len(question.workload.buckets.input_edges)
    asked = {k: replace(question, workload=own) for k, own in by_class(question.workload).items()}
    least = {k: least_cost(one, slo, judge.target + slo.offsets[k]) or 0.0 for k, one in asked.items()}
    fleets: dict[int, Trial] = {}
    try:
        for k, one in asked.items():
            # The least cost of the remaining classes is added to the cost of the known ones.
            known = sum(one.plan.cost_per_h for one in fleets.values())
            if known + sum(cost for other, cost in least.items() if other not in fleets) >= ceiling:
                return None
            say(f"the requests of {slo.classes[k].name} alone")
            fleets[k] = find(one, k)
    except InfeasibleError:
        return None
    if sum(one.plan.cost_per_h for one in fleets.values()) >= ceiling:
        return None
    plan = _side_by_side(question, {k: one.plan for k, one in fleets.items()}, rows)
    return None if plan is None else _as_proven(judge, plan, fleets)


def only_class(workload: Workload, place: int) -> Workload | None:
    """The traffic of one class, by its position; None if it has none."""
    rows = len(workload.buckets.input_edges)
    rate = np.zeros(workload.request_rate.shape)
    own = slice(place * rows, (place + 1) * rows)
    rate[own] = workload.request_rate[own]
    return replace(workload, request_rate=rate) if rate.any() else None


def by_class(workload: Workload) -> dict[int, Workload]:
    """The traffic of each class that has any, by its position; without classes, all of it."""
    places = range(len(workload.buckets.classes))
    found = {k: own for k in places if (own := only_class(workload, k)) is not None}
    return found or {0: workload}


def _side_by_side(question: Question, fleets: dict[int, Plan], rows: int) -> Plan | None:
    """One plan with the fleet of each class; a type that an earlier class has too becomes a pool of its own.

    None if the fleets together break a limit.
    """
    classes = question.workload.buckets.classes
    names = [one.name for one in question.profile.replica_types]
    taken: set[str] = set()
    used: list[tuple[int, str, str, int]] = []  # the class, the type's name and pool, and the row of its plan
    for k, plan in fleets.items():
        for r in np.flatnonzero(plan.instances).tolist():
            one = plan.replica_types[r]
            pool = one.pool if one.name not in taken else f"{classes[k]} {one.pool}".strip()
            used.append((k, one.type_name, pool, r))
            taken.add(one.name)
    pools = list(dict.fromkeys((names.index(name), pool) for _, name, pool, _ in used if pool))
    whole = with_pools(question, pools)
    place = {(one.type_name, one.pool): r for r, one in enumerate(whole.profile.replica_types)}
    instances = np.zeros(len(place), np.int64)
    share = np.zeros(whole.profile.max_request_rate.shape)
    rates = whole.profile.max_request_rate.copy()
    for _, name, pool, _ in used:
        rates[place[name, pool]] = 0.0
    for k, name, pool, r in used:
        instances[place[name, pool]] += fleets[k].instances[r]
        own = slice(k * rows, (k + 1) * rows)
        share[place[name, pool], own] = fleets[k].share[r, own]
        rates[place[name, pool], own] = fleets[k].max_request_rate[r, own]
    # A full pool sends nothing to a pool that may not serve it: each class stays by itself, as it was proven.
    whole = replace(whole, profile=with_rates(whole.profile, rates, _APART))
    scope = scope_of(whole)
    problem = build(whole, scope.allowed, scope.served)
    # The search's bounds are not part of the question: simulation may have required more than summed loads do.
    problem = problem.with_changes(most=np.maximum(problem.most, instances[problem.types]))
    if broken_limits(problem, instances[problem.types]):
        return None
    cost = float(instances @ np.array([one.cost_per_h for one in whole.profile.replica_types]))
    first = next(iter(fleets.values()))
    served = float((share.sum(axis=0) * whole.workload.request_rate).sum() / whole.workload.total_rate)
    side_by_side = replace(
        first,
        question=whole,
        instances=instances,
        share=share,
        load=np.zeros(len(instances)),
        cost_per_h=cost,
        served_fraction=served,
    )
    return as_asked(side_by_side, whole)


def _as_proven(judge: Judge, plan: Plan, fleets: dict[int, Trial]) -> Trial | None:
    """The plan with the proofs of its fleets; None if a run of all fleets together contradicts them."""
    trial = replace(judge, question=plan.question, known={}).trial(plan, np.ones(plan.share.shape))
    if judge.surely_misses(trial):
        return None
    places = range(len(judge.slo.classes))
    by_class = tuple(fleets[k].by_class[k] if k in fleets else () for k in places)
    worst, off, held = worst_of(by_class, judge.slo)
    causes = tuple(cause for one in fleets.values() for cause in one.causes)
    return replace(trial, by_class=by_class, worst=worst, off=off, attainment=held, causes=causes)
