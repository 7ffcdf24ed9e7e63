"""Plans at rates and limits other than the service's own, for curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.errors import InfeasibleError, SolverError
from melange.files import Json
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.search_clock import by_work
from melange.plan.solve import solve
from melange.processes import each_of
from melange.profile.profile import Profile
from melange.slo import Slo

# Factors on the service's rate and on its limit: enough points to show the steps from instance to instance, including
# the service's own point. On examples/chat.yaml the 42 plans of a page take 1.3 s of CPU; the 18 of the coarse sweeps
# below 0.6 s.
_RATE_FACTORS = tuple(k / 12 for k in range(1, 25))
_LIMIT_FACTORS = (0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)
# With more types than this a sweep is coarser, so that a page is ready in seconds: with the 987 types of all bundled
# offers 2.5 s of CPU instead of 5.8, with the 350 of three clouds 1.6 instead of 3.3.
_MANY_TYPES = 300
_COARSE_RATE_FACTORS = tuple(k / 4 for k in range(1, 9))
_COARSE_LIMIT_FACTORS = (0.4, 0.6, 1.0, 1.5, 3.0)
# Limit of one plan of a sweep, in work of the solver [s]. A point that needs more is drawn with the gap reached by
# then. With a lower limit, hard points are left out; with a higher one, 40 hard points would take minutes. With all
# bundled offers the slowest took 0.65 s.
_TIME_LIMIT_S = 1.0
# Order in which limits are swept: the time per token first, as in the paper.
_ORDER = ("tpot", "ntpot", "ttft", "latency")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepPoint:
    """One plan of a sweep.

    Parameters
    ----------
    at
        Total rate [1/s] or limit [s] of the plan.
    plan
        None if no allowed set of replicas meets it, or none was found within the allowed work.
    profile
        The profile of the plan.
    """

    at: float
    plan: Plan | None
    profile: Profile

    def to_json(self, name: str) -> Json:
        """As a JSON object; ``name`` is what varies, with its unit."""
        plan = self.plan
        used = {} if plan is None else {key: count for key, count in plan.instances_by_name.items() if count > 0}
        return {name: self.at, "cost_per_h": None if plan is None else plan.cost_per_h, "instances": used}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LimitSweep:
    """Plans under several values of one limit, with all other limits of the service.

    Parameters
    ----------
    metric
        ``ttft``, ``tpot``, ``ntpot`` or ``latency``.
    own
        The service's own limit [s].
    points
        In ascending order of the limit.
    """

    metric: str
    own: float
    points: tuple[SweepPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exploration:
    """A plan, and the plans at other rates and under other limits.

    Parameters
    ----------
    plan
        The plan, with the question that it answers.
    by_rate
        Plans from a fraction of the service's rate to twice the rate, in ascending order.
    by_limit
        One sweep for each limit of the SLO; none if capacities hold under only one SLO.
    """

    plan: Plan
    by_rate: tuple[SweepPoint, ...]
    by_limit: tuple[LimitSweep, ...] = ()

    def to_json(self) -> Json:
        """As a JSON object: cost and fleet at each point, without the plans themselves."""
        return {
            "cost_per_h": self.plan.cost_per_h,
            "by_rate": [point.to_json("rate") for point in self.by_rate],
            "by_limit": [
                {"metric": one.metric, "own_s": one.own, "points": [point.to_json("limit_s") for point in one.points]}
                for one in self.by_limit
            ],
        }


def explore(
    plan: Plan,
    profile_at: Callable[[Slo], Profile] | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> Exploration:
    """Plan for other rates and other limits.

    Parameters
    ----------
    plan
        The plan whose question is asked again.
    profile_at
        The profile under another SLO; None if capacities were given and hold under only one SLO.
    progress
        Called with a few words as each part begins.
    """
    say, question = progress or (lambda _: None), plan.question
    # A plan with a budget or a certificate is not a point of the curves, which have neither.
    own = plan if question.options.budget_per_h is None and plan.certificate is None else None
    say("other rates")
    by_rate = sweep_rates(question, known=own)
    slo = question.profile.slo
    if profile_at is None or slo is None:
        return Exploration(plan=plan, by_rate=by_rate)
    say("other limits")
    known = None if own is None else SweepPoint(at=0.0, plan=own, profile=question.profile)
    by_limit = tuple(_sweep_limits(question, metric, profile_at, known=known) for metric in limits_in_order(slo))
    return Exploration(plan=plan, by_rate=by_rate, by_limit=by_limit)


def sweep_rates(
    question: Question, factors: Sequence[float] | None = None, known: Plan | None = None
) -> tuple[SweepPoint, ...]:
    """Plans for multiples of the workload's rate; a budget is ignored.

    Parameters
    ----------
    question
        The question to plan for.
    factors
        Factors on the workload's own rate, ascending; None: a twelfth to twice it, or a quarter to twice it for many
        types.
    known
        The plan at the workload's own rate, if there is one already.
    """
    asked = _of_sweep(question)
    if factors is None:
        factors = _COARSE_RATE_FACTORS if len(question.profile.replica_types) > _MANY_TYPES else _RATE_FACTORS
    own = question.workload.total_rate
    wanted = [factor for factor in factors if known is None or factor != 1.0]
    jobs = [asked.at_rate(own * factor) for factor in wanted]
    plans = dict(zip(wanted, each_of(_solved, jobs, len(jobs) + 1), strict=True)) | ({1.0: known} if known else {})
    return tuple(SweepPoint(at=own * one, plan=plans[one], profile=question.profile) for one in factors)


def _sweep_limits(
    question: Question,
    metric: str,
    profile_at: Callable[[Slo], Profile],
    factors: Sequence[float] | None = None,
    known: SweepPoint | None = None,
) -> LimitSweep:
    """Plans for multiples of one limit of the SLO, each on capacities estimated for it.

    Parameters
    ----------
    question
        The question to plan for; its profile has an SLO.
    metric
        The limit that varies.
    profile_at
        The profile under another SLO.
    factors
        Factors on the service's own limit, ascending; None: 0.4 to 3 times it.
    known
        The plan at the service's own limit, if there is one already.
    """
    slo = question.profile.slo
    assert slo is not None
    asked, own = _of_sweep(question), slo.limits[metric]
    if factors is None:
        is_large = known is not None and len(known.profile.replica_types) > _MANY_TYPES
        factors = _COARSE_LIMIT_FACTORS if is_large else _LIMIT_FACTORS
    wanted = [factor for factor in factors if known is None or factor != 1.0]
    jobs = [(asked, profile_at, with_limit(slo, metric, own * factor), own * factor) for factor in wanted]
    points = dict(zip(wanted, each_of(_under_limit, jobs, len(jobs) + 1), strict=True))
    if known is not None:
        points[1.0] = replace(known, at=own)
    return LimitSweep(metric=metric, own=own, points=tuple(points[one] for one in factors))


def _under_limit(job: tuple[Question, Callable[[Slo], Profile], Slo, float]) -> SweepPoint:
    """A point of a sweep of one limit."""
    asked, profile_at, slo, at = job
    profile = profile_at(slo)
    return SweepPoint(at=at, plan=_solved(replace(asked, profile=profile)), profile=profile)


def with_limit(slo: Slo, metric: str, limit_s: float) -> Slo:
    """The same SLO with another value of one limit [s]."""
    return Slo.from_json(slo.to_json() | {f"{metric}_s": limit_s})


def _of_sweep(question: Question) -> Question:
    """The question for the plans of a sweep: the least cost, within a second of work each."""
    limit_s = min(question.options.time_limit_s, _TIME_LIMIT_S)
    return question.with_options(budget_per_h=None, time_limit_s=limit_s)


def _solved(question: Question) -> Plan | None:
    """The plan, or None if there is none.

    The search ends by its work, so that the same question has the same plan on every machine, busy or not.
    """
    try:
        with by_work():
            return solve(question)
    except (InfeasibleError, SolverError):
        return None


def limits_in_order(slo: Slo) -> list[str]:
    """Metrics that the SLO limits, the time per token first."""
    return [metric for metric in _ORDER if metric in slo.limits]


def savings_against(plan: Plan, name: str) -> float:
    """Savings against one type alone, 0-1; nan if it cannot carry the workload."""
    cost = plan.single_type[name].cost_per_h
    return float("nan") if cost is None else 1.0 - plan.cost_per_h / cost


def single_costs(points: Sequence[SweepPoint], name: str) -> list[float]:
    """Cost of one type alone at each point [USD/h]; nan if it cannot carry the traffic or no plan was found."""
    costs = [point.plan.single_type[name].cost_per_h if point.plan else None for point in points]
    return [np.nan if cost is None else cost for cost in costs]
