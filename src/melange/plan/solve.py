"""The verb of the plan stage: the cheapest mix of replicas that carries a workload, with its proof."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from melange.errors import Caution, InfeasibleError, InputError
from melange.plan.baseline import single_types
from melange.plan.budget import most_traffic
from melange.plan.cheapest import cheapest
from melange.plan.confidence import at_confidence
from melange.plan.diagnose import why_infeasible
from melange.plan.exact.dominated import needed_types
from melange.plan.fleet import Fleet, broken_limits, busy, check, least_peak_shares
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.problem import Mask, Problem, allowed_types, build
from melange.plan.servable import served_buckets
from melange.profile.profile import Profile
from melange.workload.workload import Array, Workload


def solve(
    workload: Workload,
    profile: Profile,
    options: Options | None = None,
    *,
    incumbent: Plan | None = None,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """Find the cheapest mix of replicas that carries ``workload``, and prove it.

    Minimises sum_r c_r n_r over whole instances n_r and shares f_rb with sum_r f_rb = 1 for every bucket and
    sum_b (rate_b / max_request_rate_rb) f_rb <= (1 - headroom) p_r n_r for every type (Mélange, arXiv 2404.14527,
    section 5.4.3, with shares in place of slices).

    Parameters
    ----------
    workload
        Request rate by bucket (I, O) [1/s].
    profile
        Max request rate by replica type and bucket (R, I, O) [1/s], over the same buckets.
    options
        What the plan must respect besides the traffic; None for the defaults.
    incumbent
        The plan in force: among plans of equal cost the one nearest to it is chosen.
    progress
        Called with a sentence now and then while the search runs.

    Raises
    ------
    InputError
        The buckets of workload and profile differ, or the options name what is not there.
    InfeasibleError
        No allowed set of replicas carries the workload; ``reasons`` says what stands in the way.
    SolverError
        The time ran out before any plan was found.
    """
    began = time.monotonic()
    options = options or Options()
    if workload.buckets != profile.buckets:
        raise InputError("the workload and the profile have different buckets", hint="profile the workload's buckets")
    profile = at_confidence(profile, options.confidence)
    allowed = allowed_types(profile, options)
    served, unservable = served_buckets(workload, profile, options, allowed)
    whole = build(workload, profile, options, allowed, served)
    problem = _reduced(whole, incumbent)
    say = progress or (lambda _: None)
    try:
        fleet, part = _search(problem, options, say, began + options.time_limit_s)
    except InfeasibleError as error:
        unlimited = build(workload, profile, options, allowed, served, availability=False)
        raise why_infeasible(whole, unlimited) from error
    check(problem, fleet, part)
    return _plan(workload, profile, options, problem, fleet, part, allowed, served, unservable, began)


def with_instances(
    workload: Workload, profile: Profile, options: Options, instances: npt.NDArray[np.int64]
) -> Plan | None:
    """The plan of a given fleet, with shares of the lowest peak load, which may be above 1.

    Parameters
    ----------
    workload, profile, options
        As of :func:`solve`; slices and a budget have no say.
    instances
        Of each replica type (R,).

    Returns
    -------
    Plan
        Its bound says nothing; None where the fleet cannot serve some bucket, or breaks a limit of the options.
    """
    began = time.monotonic()
    profile = at_confidence(profile, options.confidence)
    allowed = allowed_types(profile, options)
    served, unservable = served_buckets(workload, profile, options, allowed)
    problem = build(workload, profile, options, allowed, served)
    count = instances[problem.types]
    if count.sum() < instances.sum() or broken_limits(problem, count):
        return None
    found = least_peak_shares(problem, problem.carried(count))
    if found is None:
        return None
    fleet = Fleet(instances=count, share=found[0], after_loss={}, bound=0.0, status="given")
    return _plan(workload, profile, options, problem, fleet, 1.0, allowed, served, unservable, began)


def _reduced(whole: Problem, incumbent: Plan | None) -> Problem:
    """The problem without its dominated types."""
    if whole.spare_total:
        return whole  # a loss takes replicas of one type only: equal types are then worth having
    prefer = None
    if incumbent is not None:
        replicas = incumbent.replicas
        prefer = np.array([replicas.get(name, 0) for name in whole.names])
    return whole.only(needed_types(whole, prefer))


def _search(problem: Problem, options: Options, say: Callable[[str], None], deadline: float) -> tuple[Fleet, float]:
    """The fleet, and the share of the traffic that it serves."""
    if problem.budget_per_h is None:
        return cheapest(problem, options, say=say, deadline=deadline), 1.0
    return most_traffic(problem, options, say=say, deadline=deadline)


def _plan(
    workload: Workload,
    profile: Profile,
    options: Options,
    problem: Problem,
    fleet: Fleet,
    part: float,
    allowed: Mask,
    served: Mask,
    unservable: tuple[str, ...],
    began: float,
) -> Plan:
    """The answer, over all types and buckets of the profile."""
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
    served_fraction = float(rate[served].sum() / workload.total_rate) * part
    under_budget = options.budget_per_h is not None and part < 1.0
    bound = min(fleet.bound, cost)
    best_part = min(1.0, -fleet.bound)
    return Plan(
        replica_types=profile.replica_types,
        instances=instances,
        share=share.reshape(profile.max_request_rate.shape),
        load=load,
        max_request_rate=np.where((instances > 0)[:, None, None], profile.max_request_rate, 0.0),
        engines=tuple(
            engine if count else None
            for engine, count in zip(profile.engines or (None,) * types, instances, strict=True)
        ),
        cost_per_h=cost,
        bound_per_h=None if under_budget else bound,
        gap=_gap(best_part - part, best_part) if under_budget else _gap(cost - bound, cost),
        single_type=single_types(workload, profile, options, allowed, served),
        workload=workload,
        headroom=options.headroom,
        slices=options.slices,
        confidence=options.confidence,
        slo=profile.slo,
        model=profile.model,
        served_fraction=min(1.0, served_fraction),
        unservable=unservable,
        status=fleet.status,
        solve_s=time.monotonic() - began,
        cautions=_cautions(workload, profile, fleet, served, rate),
    )


def _gap(distance: float, whole: float) -> float:
    """Relative distance, 0 where only rounding is left."""
    gap = distance / whole if whole > 0 else 0.0
    return gap if gap > 1e-9 else 0.0


def _cautions(workload: Workload, profile: Profile, fleet: Fleet, served: Mask, rate: Array) -> tuple[Caution, ...]:
    """Those of the inputs, and what is left out or unproven."""
    said = list(dict.fromkeys((*workload.cautions, *profile.cautions)))
    left_out = float(rate[~served].sum() / workload.total_rate)
    if left_out > 0:
        said.append(Caution("left-out", f"{left_out:.2%} of requests are left out: no replica type can serve them"))
    if fleet.status == "time limit":
        said.append(Caution("time-limit", "the search was stopped by its time limit; a cheaper plan may exist"))
    return tuple(said)
