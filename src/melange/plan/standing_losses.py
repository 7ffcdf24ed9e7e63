"""The cheapest fleet that survives the loss of any K replicas of one type, with new shares (``spare_total_replicas``).

A fleet with K spare replicas of every type survives it, and gives a ceiling. Types that no cheaper fleet needs go.
Small changes lower the ceiling. If few fleets are left below it, they are listed, and the cheapest that survives is
proven; if not, the mixed-integer program is solved with cuts that take losses into account.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from melange.errors import InfeasibleError, MelangeError
from melange.plan.exact.clusters import cluster, relaxed
from melange.plan.exact.dominated import needed_types
from melange.plan.exact.projection import floor_with_losses, instance_range, probe
from melange.plan.exact.survival import Survival, fleets_below, improved
from melange.plan.fleet import TOLERANCE, Fleet, least_peak_shares, widened
from melange.plan.milp.formulation import formulate, largest_losses
from melange.plan.milp.highs import minimise
from melange.plan.milp.program import Say, by_program, start_point, unsafe_losses
from melange.plan.options import Options
from melange.plan.problem import ROUNDING, Positions, Problem
from melange.plan.search_clock import now_s
from melange.units import count_of
from melange.workload.workload import Array, Mask

# Shares of the time left for the fleet with spare replicas of every type, and for small changes to it. Both take
# milliseconds nearly always. Chosen by judgment.
_SAFE_TIME, _CHANGES_TIME = 0.4, 0.3
# Share of the time left for trying the fleets of a list. It matters with slices, where one trial may take seconds.
# Chosen by judgment.
_LISTED_TIME = 0.5
# Up to this many fleets are listed below the ceiling; more would take seconds. Chosen by judgment.
_MOST_LISTED = 30_000
# Buckets of the first program; with more, it is solved over clusters of them, which gives a lower bound (exact/large.py
# has as many). They are doubled while their fleets fail for no other reason.
_MANY_BUCKETS = 120
# Rounds of programs; each adds cuts, a loss or clusters. Far fewer are needed: then the time has run out.
_MOST_ROUNDS = 1000
# Violation of a cut that the solver may leave.
_VIOLATED = 1e-5
# Cuts with a larger coefficient stay out of the program: those of traffic of 1e-15 replicas have up to 1e15, with which
# HiGHS fails. Its tolerance of 1e-6 makes any above 1e6 pointless.
_LARGEST_ENTRY = 1e6
# Relative slack on the cost of the known fleet, as in cheapest.py: rounding must not rule out fleets as cheap as it.
_ROOM = 1e-7


class Search(Protocol):
    """The search for the cheapest fleet without spare replicas in total."""

    def __call__(self, problem: Problem, options: Options, *, say: Say, deadline: float) -> Fleet:
        """The cheapest fleet of a problem."""


def standing_losses(problem: Problem, options: Options, search: Search, *, say: Say, deadline: float) -> Fleet:
    """The cheapest fleet that survives the loss of any ``spare_total`` replicas of one type.

    Raises
    ------
    InfeasibleError
        There is none.
    """
    safe = problem.with_changes(spare=np.maximum(problem.spare, problem.spare_total), spare_total=0)
    inside = needed_types(safe)
    now = now_s()
    try:
        start = search(safe.only(inside), options, say=say, deadline=now + _SAFE_TIME * (deadline - now))
    except MelangeError:
        inside = needed_types(problem)
        return widened(problem, by_program(problem.only(inside), options, say=say, deadline=deadline), inside)
    known = widened(problem, start, inside)
    unsafe_losses(problem, known)
    ceiling = float(problem.cost @ known.instances)
    say(f"first plan: {ceiling:.2f} USD/h")
    known, survival = _changed(problem, known, deadline)
    bound = floor_with_losses(problem)
    if not _is_proven(survival.problem, known, bound, options):
        known, bound = _proven(survival, known, bound, options, say, deadline)
    known = widened(problem, known, np.isin(problem.types, survival.problem.types))
    is_proven = _is_proven(problem, known, bound, options)
    bound = min(bound, float(problem.cost @ known.instances))
    return replace(known, bound=bound, status="optimal" if is_proven else "time limit")


def _changed(problem: Problem, known: Fleet, deadline: float) -> tuple[Fleet, Survival]:
    """The fleet after changes that make it cheaper, and what is left of the problem below its cost."""
    now = now_s()
    until = now + _CHANGES_TIME * (deadline - now)
    survival = Survival(problem=problem, deadline=deadline)
    while True:
        cost = float(survival.problem.cost @ known.instances)
        part = _below(survival.problem, known.instances)
        inside = np.isin(survival.problem.types, part.types)
        survival, known = survival.part(part), _kept(known, inside)
        known = improved(survival, known, until)
        if part.cost @ known.instances >= cost - ROUNDING:
            return known, survival


def _below(problem: Problem, count: Positions) -> Problem:
    """The problem with the types and counts of fleets that cost no more than ``count`` (R,), and its own types."""
    ceiling = float(problem.cost @ count) * (1 + _ROOM)
    own = count > 0
    kept = needed_types(problem, ceiling=ceiling) | own
    while True:
        problem, own, count = problem.only(kept), own[kept], count[kept]
        _, most = instance_range(problem, probe(problem), ceiling)
        problem = problem.with_changes(most=np.where(own, np.maximum(most, count), np.maximum(most, 1)))
        kept = (most > 0) | own
        if kept.all():
            return problem


def _proven(
    survival: Survival, known: Fleet, bound: float, options: Options, say: Say, deadline: float
) -> tuple[Fleet, float]:
    """The cheapest fleet, or the best by the deadline, and a lower bound on the cost of all."""
    problem = survival.problem
    cost = float(problem.cost @ known.instances)
    # All cheaper fleets, or, if they are too many, all that are cheaper by more than the gap: the ceiling of the list,
    # and the bound if none of them survives. Fleets that cost less by rounding alone are not cheaper.
    lists = [(cost - ROUNDING * max(1.0, cost), cost)]
    lists += [(cost * (1.0 - options.gap),) * 2] if options.gap else []
    for ceiling, bound_if_none in lists:
        listed = fleets_below(survival, ceiling, _MOST_LISTED)
        if listed is None:
            continue
        say(f"{count_of(len(listed), 'fleet')} may cost less than {cost:.2f} USD/h")
        now = now_s()
        found = survival.cheapest_of(listed, now + _LISTED_TIME * (deadline - now))
        best = known if found is None else found
        below = bound_if_none if found is None else float(problem.cost @ found.instances)
        bound = max(bound, min(below, survival.doubtful))
        if _is_proven(problem, best, bound, options):
            return best, bound
        known = best
        break
    if problem.slices is None:
        return _programmed(survival, known, bound, options, say, deadline)
    try:
        fleet = by_program(problem, options, say=say, deadline=deadline)
    except MelangeError as error:
        # By the solver's tolerance the known fleet may carry a little less than everything.
        return known, float(problem.cost @ known.instances) if isinstance(error, InfeasibleError) else bound
    is_better = problem.cost @ fleet.instances < problem.cost @ known.instances
    return fleet if is_better else known, max(bound, fleet.bound)


def _programmed(
    survival: Survival, known: Fleet, bound: float, options: Options, say: Say, deadline: float
) -> tuple[Fleet, float]:
    """As :func:`_proven`, by mixed-integer programs; the fleets that they propose are tried, and cuts are learned."""
    problem, scenarios, size = survival.problem, tuple[int, ...](), _MANY_BUCKETS
    strict, buckets = problem, problem.load.shape[1]
    for _ in range(_MOST_ROUNDS):
        if _is_proven(problem, known, bound, options) or now_s() > deadline:
            break
        say(f"best {problem.cost @ known.instances:.2f} USD/h, lower bound {bound:.2f}")
        rough = strict if buckets <= size else relaxed(strict, cluster(strict, size))
        milp = formulate(rough, scenarios=scenarios, losses=_fit_for_program(problem, survival.cuts.weight))
        start = start_point(rough, milp, known.instances, known.share, known.after_loss) if rough is strict else None
        outcome = minimise(
            milp.program,
            time_limit_s=deadline - now_s(),
            gap=options.gap,
            seed=options.seed,
            start=start,
            heuristics=start is None,
        )
        if outcome.status == "infeasible":
            # By the solver's tolerance the known fleet then carries a little less than everything.
            return known, float(problem.cost @ known.instances)
        bound = max(bound, outcome.bound)
        if outcome.x is None:
            break
        count = np.round(outcome.x[: len(problem.cost)]).astype(np.int64)
        found, _ = survival.trial(count)
        survives = found is not None
        found = found or survival.cheapest_of(_with_one_more(problem, count, known.instances))
        if found is not None and problem.cost @ found.instances < problem.cost @ known.instances - ROUNDING:
            known = found
        if survives or _is_cut_off(problem, _fit_for_program(problem, survival.cuts.weight), count):
            continue
        lost = _failing(problem, count, scenarios)
        if lost is not None:
            scenarios = (*scenarios, lost)
        elif size < buckets:
            size *= 2
        else:
            # The solver's tolerance let an overload through: ask for twice the slack that it takes.
            strict = strict.with_changes(load=strict.load * (1 + 2 * TOLERANCE))
    return known, bound


def _with_one_more(problem: Problem, count: Positions, known: Positions) -> Positions:
    """A fleet with one more instance each (N, R) that costs less than the known fleet (R,)."""
    fleets = count + np.eye(len(count), dtype=np.int64)
    return np.asarray(fleets[fleets @ problem.cost < problem.cost @ known - ROUNDING])


def _fit_for_program(problem: Problem, weight: Array) -> Array:
    """The cuts (K, R) whose coefficients a solver can handle."""
    return np.asarray(weight[(weight * problem.capacity).max(axis=1) <= _LARGEST_ENTRY])


def _is_cut_off(problem: Problem, weight: Array, count: Positions) -> bool:
    """Whether the rows of the cuts (K, R) forbid a fleet (R,) in the next program."""
    rest = weight @ (problem.capacity * count) - largest_losses(problem, weight, count)
    return bool((rest < 1.0 - _VIOLATED).any())


def _failing(problem: Problem, count: Positions, scenarios: tuple[int, ...]) -> int | None:
    """A type whose loss a fleet (R,) does not survive, and that the program has no shares for yet."""
    for lost in np.flatnonzero(count).tolist():
        if lost not in scenarios:
            found = least_peak_shares(problem, problem.carried_after_loss(count, lost))
            if found is None or found[1] > 1 + TOLERANCE:
                return int(lost)
    return None


def _is_proven(problem: Problem, fleet: Fleet, bound: float, options: Options) -> bool:
    return bound >= float(problem.cost @ fleet.instances) * (1.0 - options.gap) - ROUNDING


def _kept(fleet: Fleet, inside: Mask) -> Fleet:
    """A fleet by the types of a part of its problem, which has all types in use."""
    place = np.cumsum(inside) - 1
    return replace(
        fleet,
        instances=fleet.instances[inside],
        share=fleet.share[inside],
        after_loss={int(place[lost]): share[inside] for lost, share in fleet.after_loss.items() if inside[lost]},
    )
