"""Plans at other rates and limits than the service's own, for curves."""

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

# Of the service's rate and of its limit: enough points that a curve shows the steps from instance to instance, the
# service's own among them. On examples/chat.yaml the 42 plans of a page take 1.3 s of CPU; the 18 of the coarse ones
# below 0.6 s.
_RATE_FACTORS = tuple(k / 12 for k in range(1, 25))
_LIMIT_FACTORS = (0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)
# With more types than this a sweep is coarser, so that a page is there in seconds: with the 987 types of all bundled
# offers 2.5 s of CPU in place of 5.8, with the 350 of three clouds 1.6 in place of 3.3.
_MANY_TYPES = 300
_COARSE_RATE_FACTORS = tuple(k / 4 for k in range(1, 9))
_COARSE_LIMIT_FACTORS = (0.4, 0.6, 1.0, 1.5, 3.0)
# Of one plan of a sweep, in work of the solver [s]. A point that takes more is drawn with the gap that it has then:
# less, and hard ones are left out; more, and 40 hard ones would take minutes. With all bundled offers the slowest took
# 0.65 s.
_TIME_LIMIT_S = 1.0
# Which limit is looked at first: the time per token, as in the paper.
_ORDER = ("tpot", "ntpot", "ttft", "latency")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SweepPoint:
    """One plan of a sweep.

    Parameters
    ----------
    at
        Total rate [1/s] or limit [s] that was planned for.
    plan
        None where no allowed set of replicas meets it, or none was found within the work allowed.
    profile
        What the plan was made from.
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
    """Plans under several values of one limit, all others as the service has them.

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
        With the question that it answers.
    by_rate
        From a fraction of the service's rate to twice it, in ascending order.
    by_limit
        One sweep for each limit of the SLO; none where capacities hold under one SLO only.
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
        Whose question is asked again.
    profile_at
        The profile under another SLO; None where capacities were given and hold under one SLO only.
    progress
        Called with a few words as each part begins.
    """
    say, question = progress or (lambda _: None), plan.question
    # A plan under a budget or with a certificate is no point of curves that keep neither.
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
    """Plans for multiples of the workload's rate; a budget is not kept.

    Parameters
    ----------
    question
        What is planned.
    factors
        Of the workload's own rate, ascending; None: a twelfth to twice it, or a quarter to twice it for many types.
    known
        The plan at the workload's own rate, where there is one already.
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
        What is planned; its profile has an SLO.
    metric
        Which of its limits varies.
    profile_at
        The profile under another SLO.
    factors
        Of the service's own limit, ascending; None: 0.4 to 3 times it.
    known
        The plan at the service's own limit, where there is one already.
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
    """The question of the many plans of a sweep: the least cost, within a second of work each."""
    limit_s = min(question.options.time_limit_s, _TIME_LIMIT_S)
    return question.with_options(budget_per_h=None, time_limit_s=limit_s)


def _solved(question: Question) -> Plan | None:
    """The plan, or None where there is none.

    The search ends by its work, so that the same question has the same plan on every machine, idle or not.
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
    """Saved against one type alone, 0-1; nan where it cannot carry the workload."""
    cost = plan.single_type[name].cost_per_h
    return float("nan") if cost is None else 1.0 - plan.cost_per_h / cost


def single_costs(points: Sequence[SweepPoint], name: str) -> list[float]:
    """Cost of one type alone at each point [USD/h]; nan where it cannot carry the traffic or no plan was found."""
    costs = [point.plan.single_type[name].cost_per_h if point.plan else None for point in points]
    return [np.nan if cost is None else cost for cost in costs]
