"""A service planned over time: its demand, a profile over all markets, and the schedule."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from melange.catalog.catalog import Catalog
from melange.catalog.offer import stale_prices
from melange.errors import Caution, InputError
from melange.plan.options import Options
from melange.plan.schedule.beside_others import carried_beside
from melange.plan.schedule.contracts import ScheduleOptions
from melange.plan.schedule.plan_over_time import plan_over_time
from melange.plan.schedule.schedule import Schedule
from melange.profile.profile import Profile
from melange.service.classes import deferrals_of, demand_with_classes, equal_priorities, with_limits_beside
from melange.service.one_fleet_refused import refuse_two_pools
from melange.service.schema import Service
from melange.service.stages import profile_of
from melange.service.start_up import start_up_of
from melange.workload.demand import Demand

if TYPE_CHECKING:
    from melange.service.session import Session

Say = Callable[[float | str], None]
Task = Callable[[str], AbstractContextManager[Say]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OverTime:
    """The inputs of a schedule.

    Parameters
    ----------
    demand
        The past traffic.
    profile
        Capacities of replica types, in all markets.
    options, schedule_options
        Options of the plan and of the schedule.
    over
        ``day`` or ``week``.
    statistic
        Statistic of the windows of an hour that the hour's fleet is planned for.
    """

    demand: Demand
    profile: Profile
    options: Options
    schedule_options: ScheduleOptions
    over: str
    statistic: str


def over_time(service: Service, demand: Demand, options: Options, catalog: Catalog, say: Say | None = None) -> OverTime:
    """The inputs of a service's schedule.

    Raises
    ------
    InputError
        The service's traffic has no cycle, or its rate is a number, which windows do not have.
    """
    section = service.workload
    if section.over is None:
        raise InputError(
            "workload.over is needed: what repeats, a day or a week",
            hint="workload: {trace: requests.parquet, over: week}",
        )
    if section.rate is not None and not isinstance(section.rate, str):
        raise InputError(
            f"workload.rate: {section.rate:g} is one rate, but a schedule has one for every window",
            hint="leave it out, or name a statistic of an hour's windows: max, mean, p95",
        )
    workload = demand.workload()
    if section.size == "upper":
        workload = workload.with_upper_sizes()
        inputs, outputs = workload.input_tokens, workload.output_tokens
        demand = replace(demand, input_tokens=inputs, output_tokens=outputs)
    settings = replace(service.schedule.to_options(start_up_of(service)), deferrals=deferrals_of(service))
    markets = list(service.offers.market)
    if settings.spot is not None and settings.spot.discount is None:
        markets.append("spot")
    if any(one.discount is None for one in settings.reserved):
        markets.append("reserved")
    offers = service.offers.model_copy(update={"market": list(dict.fromkeys(markets))})
    beside = with_limits_beside(service)
    profile = profile_of(beside.model_copy(update={"offers": offers}), workload, catalog, say)
    names = {one.name for one in settings.deferrals}
    profile = carried_beside(replace(profile, slo=service.to_slo()), names)
    return OverTime(
        demand=demand,
        profile=profile,
        options=options,
        schedule_options=settings,
        over=section.over,
        statistic=section.rate or "max",
    )


def schedule_of(session: Session, service: Service, task: Task, *, quick: bool = False) -> Schedule:
    """The schedule of a session's service; ``quick`` simulates no request."""
    refuse_two_pools(service)
    demand = session.demand()
    if service.classes:
        with task("reading the traffic of the classes") as say:
            demand = demand_with_classes(service, demand, say)
    with task("estimating the capacity of each replica type") as say:
        question = over_time(service, demand, session.options, session.catalog, say)
    with task("planning over time") as say:
        found = schedule_for(question, say)
    found = replace(found, cautions=(*found.cautions, *equal_priorities(service)))
    return found if quick else _simulated(found, question, task)


def _simulated(found: Schedule, question: OverTime, task: Task) -> Schedule:
    """The schedule, with some of its windows simulated request by request."""
    from melange.replica.simulated.kernel import compilation_told
    from melange.validate.play_rule import play_rule

    with task("simulating windows of the schedule") as say, compilation_told(say):
        try:
            played = play_rule(found, question.demand, question.profile, question.options, progress=say)
        except InputError as error:
            word = Caution("not-simulated", f"nothing could be simulated: {error}")
            return replace(found, cautions=(*found.cautions, word))
    return replace(found, played=played)


def schedule_for(question: OverTime, say: Say | None = None) -> Schedule:
    """The schedule, with a caution if prices are old."""
    found = plan_over_time(
        question.demand,
        question.profile,
        question.options,
        question.schedule_options,
        over=question.over,
        statistic=question.statistic,
        progress=say,
    )
    paid = [one.offer for one in found.replica_types]
    return replace(found, cautions=(*found.cautions, *stale_prices(paid, datetime.now(UTC).date())))
