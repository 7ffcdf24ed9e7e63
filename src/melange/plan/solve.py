"""Solve for the cheapest mix of replicas that serves a workload, with proof."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import overload

import numpy as np
import numpy.typing as npt

from melange.errors import Caution, InfeasibleError
from melange.plan.baseline import single_types
from melange.plan.budget import most_traffic
from melange.plan.by_carbon import least_carbon
from melange.plan.cheapest import cheapest
from melange.plan.diagnose import why_infeasible
from melange.plan.exact.dominated import needed_types
from melange.plan.fleet import Fleet, broken_limits, busy, check, least_peak_shares
from melange.plan.incumbent import nearest
from melange.plan.milp.program import Say
from melange.plan.options import CARBON, Options
from melange.plan.plan import Baseline, Plan
from melange.plan.problem import ROUNDING, Problem, build
from melange.plan.question import Question, question_of
from melange.plan.search_clock import now_s
from melange.plan.servable import Scope, scope_of
from melange.profile.profile import Profile
from melange.units import percent
from melange.workload.workload import Workload


@overload
def solve(question: Question, /, *, incumbent: Plan | None = None, progress: Say | None = None) -> Plan: ...


@overload
def solve(
    workload: Workload,
    /,
    profile: Profile,
    options: Options | None = None,
    *,
    incumbent: Plan | None = None,
    progress: Say | None = None,
) -> Plan: ...


def solve(
    question: Question | Workload,
    /,
    profile: Profile | None = None,
    options: Options | None = None,
    *,
    incumbent: Plan | None = None,
    progress: Say | None = None,
) -> Plan:
    """Find the cheapest mix of replicas that serves a workload, with proof.

    Minimizes sum_r c_r n_r over whole instances n_r and shares f_rb with sum_r f_rb = 1 for every bucket and
    sum_b (rate_b / max_request_rate_rb) f_rb <= (1 - headroom) p_r n_r for every type (Mélange, arXiv 2404.14527,
    section 5.4.3, with shares in place of slices).

    Parameters
    ----------
    question
        A :class:`~melange.plan.question.Question`, or a workload: request rate by bucket (I, O) [1/s].
    profile
        With a workload: max request rate by replica type and bucket (R, I, O) [1/s], over the same buckets.
    options
        Used with a workload: requirements for the plan besides the traffic; None for the defaults.
    incumbent
        The current plan: among plans of equal cost, the one that changes the fewest instances is chosen.
    progress
        Called with progress messages during the search.

    Raises
    ------
    InputError
        The buckets of workload and profile differ, or the options name something that does not exist.
    InfeasibleError
        No allowed fleet can serve the workload; ``reasons`` says why.
    SolverError
        The time ran out before any plan was found.
    """
    began = time.monotonic()
    if incumbent is not None and not isinstance(incumbent, Plan):
        raise TypeError(f"incumbent must be a Plan, got {type(incumbent).__name__}")
    asked = question_of(question, profile, options)
    if asked.options.objective == CARBON:
        return least_carbon(asked, lambda one: solve(one, incumbent=incumbent, progress=progress))
    counted = asked.at_confidence()
    scope = scope_of(counted)
    whole = build(counted, scope.allowed, scope.served)
    in_force = None if incumbent is None else _instances_of(incumbent, whole.names)
    problem = _reduced(whole, in_force)
    alone = single_types(counted, scope)  # before the search, so that the search ends within its time limit
    deadline = now_s() + asked.options.time_limit_s
    try:
        fleet, part = _search(problem, asked.options, in_force, progress or (lambda _: None), deadline)
    except InfeasibleError as error:
        unlimited = build(counted, scope.allowed, scope.served, availability=False)
        raise why_infeasible(whole, unlimited) from error
    check(problem, fleet, part)
    return _plan(asked, scope, problem, fleet, part, alone, began)


def with_instances(question: Question, instances: npt.NDArray[np.int64]) -> Plan | None:
    """The plan of a given fleet, with the shares of the lowest peak load, which may be above 1 or far below.

    Parameters
    ----------
    question
        The question to plan for; slices and a budget are ignored.
    instances
        Of each replica type (R,).

    Returns
    -------
    Plan
        Its bound says nothing, and it has no single types; None if the fleet cannot serve some bucket, or breaks a
        limit of the options.
    """
    began = time.monotonic()
    counted = question.at_confidence()
    scope = scope_of(counted)
    problem = build(counted, scope.allowed, scope.served)
    count = instances[problem.types]
    problem = replace(problem, most=np.maximum(problem.most, count))  # it may have more than the traffic can need
    if count.sum() < instances.sum() or broken_limits(problem, count):
        return None
    found = least_peak_shares(problem, problem.carried(count))
    if found is None:
        return None
    fleet = Fleet(instances=count, share=found[0], after_loss={}, bound=0.0, status="given")
    return _plan(question, scope, problem, fleet, 1.0, {}, began)


def _instances_of(incumbent: Plan, names: tuple[str, ...]) -> dict[str, int]:
    """Instances of the current plan by replica type name, for types that may still be rented."""
    counts = incumbent.instances_by_name
    return {name: counts.get(name, 0) for name in names}


def _reduced(whole: Problem, in_force: dict[str, int] | None) -> Problem:
    """The problem without its dominated types, except those of the current plan, which may be kept at equal cost."""
    if in_force is None:
        return whole.only(needed_types(whole))
    prefer = np.array([in_force[name] for name in whole.names])
    return whole.only(needed_types(whole, prefer) | (prefer > 0))


def _search(
    problem: Problem, options: Options, in_force: dict[str, int] | None, say: Say, deadline: float
) -> tuple[Fleet, float]:
    """The fleet, and the share of the traffic that it serves."""
    if problem.budget_per_h is not None:
        return most_traffic(problem, options, say=say, deadline=deadline)
    if in_force is None:
        return cheapest(problem, options, say=say, deadline=deadline), 1.0
    prefer = np.array([in_force[name] for name in problem.names], np.int64)
    fleet = cheapest(problem, options, say=say, deadline=deadline, prefer=prefer.astype(float))
    return nearest(problem, fleet, prefer, options, deadline), 1.0


def _plan(
    question: Question,
    scope: Scope,
    problem: Problem,
    fleet: Fleet,
    part: float,
    alone: dict[str, Baseline],
    began: float,
) -> Plan:
    """The answer, over all types and buckets of the profile."""
    profile, workload, options = question.profile, question.workload, question.options
    types = len(profile.replica_types)
    instances = np.zeros(types, np.int64)
    instances[problem.types] = fleet.instances
    share = np.zeros((types, workload.request_rate.size))
    share[np.ix_(problem.types, problem.cells)] = fleet.share
    load = np.zeros(types)
    running = np.maximum(problem.replicas * fleet.instances, 1.0)
    load[problem.types] = busy(problem, fleet.share) / running
    cost = float(problem.cost @ fleet.instances)
    rate = workload.request_rate.ravel()
    # All of the traffic, even if the same rates are summed in another order.
    left_out = float(rate[~scope.served].sum() / workload.total_rate)
    served_fraction = (1.0 - left_out if left_out > ROUNDING else 1.0) * (part if part < 1.0 - ROUNDING else 1.0)
    under_budget = options.budget_per_h is not None and part < 1.0
    bound = min(fleet.bound, cost)
    best_part = min(1.0, -fleet.bound)
    return Plan(
        question=question,
        instances=instances,
        share=share.reshape(profile.max_request_rate.shape),
        load=load,
        cost_per_h=cost,
        bound_per_h=None if under_budget else bound,
        gap=_gap(best_part - part, best_part) if under_budget else _gap(cost - bound, cost),
        single_type=alone,
        served_fraction=min(1.0, served_fraction),
        unservable=scope.unservable,
        status=fleet.status,
        solve_s=time.monotonic() - began,
        cautions=_cautions(question, scope, fleet),
    )


def _gap(distance: float, whole: float) -> float:
    """Relative distance; 0 if only rounding is left."""
    gap = distance / whole if whole > 0 else 0.0
    return gap if gap > ROUNDING else 0.0


def _cautions(question: Question, scope: Scope, fleet: Fleet) -> tuple[Caution, ...]:
    """Warnings of the inputs, and warnings about what is left out or unproven."""
    workload = question.workload
    said = list(dict.fromkeys((*workload.cautions, *question.profile.cautions)))
    left_out = float(workload.request_rate.ravel()[~scope.served].sum() / workload.total_rate)
    if left_out > ROUNDING:
        said.append(
            Caution("left-out", f"{percent(left_out, 2)} of requests are left out: no replica type can serve them")
        )
    if fleet.status == "time limit":
        said.append(Caution("time-limit", "the search reached its time limit; a cheaper plan may exist"))
    return tuple(said)
