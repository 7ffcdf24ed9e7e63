"""Plans for other rates and other limits than the service's own: what the curves are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.errors import InfeasibleError, SolverError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.workload.workload import Workload

RATE_FACTORS = tuple(k / 12 for k in range(1, 25))
LIMIT_FACTORS = (0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)
# With hundreds of types a plan takes longer, and a sweep has fewer of them.
MANY_TYPES = 300
COARSE_RATE_FACTORS = tuple(k / 4 for k in range(1, 9))
COARSE_LIMIT_FACTORS = (0.4, 0.6, 1.0, 1.5, 3.0)
TIME_LIMIT_S = 1.0  # of one plan of a sweep
ORDER = ("tpot", "ntpot", "ttft", "latency")  # which limit is looked at first


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Point:
    """One plan of a sweep.

    Parameters
    ----------
    at
        Total rate [1/s] or limit [s] that was planned for.
    plan
        None where no allowed set of replicas meets it, or where the time ran out.
    profile
        What the plan was made from.
    """

    at: float
    plan: Plan | None
    profile: Profile


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
    points: tuple[Point, ...]


def sweep_rates(
    workload: Workload,
    profile: Profile,
    options: Options,
    factors: Sequence[float] | None = None,
    known: Plan | None = None,
) -> tuple[Point, ...]:
    """Plans for multiples of the workload's rate; a budget is not kept.

    Parameters
    ----------
    workload, profile, options
        As for :func:`melange.solve`.
    factors
        Of the workload's own rate, ascending; None: a twelfth to twice it, or a quarter to twice it for many types.
    known
        The plan at the workload's own rate, where there is one already.
    """
    options = sweep_options(options)
    if factors is None:
        factors = COARSE_RATE_FACTORS if len(profile.replica_types) > MANY_TYPES else RATE_FACTORS
    points = []
    for factor in factors:
        rate = workload.total_rate * factor
        is_known = known is not None and factor == 1.0
        plan = known if is_known else try_solve(workload.at_rate(rate), profile, options)
        points.append(Point(at=rate, plan=plan, profile=profile))
    return tuple(points)


def sweep_limits(
    workload: Workload,
    slo: Slo,
    metric: str,
    estimate_at: Callable[[Slo], Profile],
    options: Options,
    factors: Sequence[float] | None = None,
    known: Point | None = None,
) -> LimitSweep:
    """Plans for multiples of one limit of the SLO, each on capacities estimated for it.

    Parameters
    ----------
    workload, options
        As for :func:`melange.solve`.
    slo, metric
        The service's SLO, and which of its limits varies.
    estimate_at
        The profile under another SLO.
    factors
        Of the service's own limit, ascending; None: 0.4 to 3 times it.
    known
        The plan at the service's own limit, where there is one already.
    """
    options = sweep_options(options)
    own = slo.limits[metric]
    if factors is None:
        is_large = known is not None and len(known.profile.replica_types) > MANY_TYPES
        factors = COARSE_LIMIT_FACTORS if is_large else LIMIT_FACTORS
    points = []
    for factor in factors:
        if known is not None and factor == 1.0:
            points.append(replace(known, at=own))
            continue
        profile = estimate_at(with_limit(slo, metric, own * factor))
        points.append(Point(at=own * factor, plan=try_solve(workload, profile, options), profile=profile))
    return LimitSweep(metric=metric, own=own, points=tuple(points))


def with_limit(slo: Slo, metric: str, limit_s: float) -> Slo:
    """The same SLO with another value of one limit [s]."""
    return Slo.from_json(slo.to_json() | {f"{metric}_s": limit_s})


def sweep_options(options: Options) -> Options:
    """Settings for the many plans of a sweep: the least cost, within a second each."""
    return replace(options, budget_per_h=None, time_limit_s=min(options.time_limit_s, TIME_LIMIT_S))


def try_solve(workload: Workload, profile: Profile, options: Options) -> Plan | None:
    """The plan, or None where there is none."""
    try:
        return solve(workload, profile, options)
    except (InfeasibleError, SolverError):
        return None


def limits_in_order(slo: Slo) -> list[str]:
    """Metrics that the SLO limits, the time per token first."""
    return [metric for metric in ORDER if metric in slo.limits]


def savings_against(plan: Plan, name: str) -> float:
    """Saved against one type alone, 0-1; nan where it cannot carry the workload."""
    cost = plan.single_type[name].cost_per_h
    return float("nan") if cost is None else 1.0 - plan.cost_per_h / cost


def single_costs(points: Sequence[Point], name: str) -> list[float]:
    """Cost of one type alone at each point [USD/h]; nan where it cannot carry the traffic or no plan was found."""
    costs = [point.plan.single_type[name].cost_per_h if point.plan else None for point in points]
    return [np.nan if cost is None else cost for cost in costs]
