"""Plan over time: what to reserve, and how the rest follows the traffic."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from melange.errors import Caution
from melange.plan.options import Options
from melange.plan.schedule.answer_over_time import Answer, schedule_of_answer, stated_prices
from melange.plan.schedule.backtest import History
from melange.plan.schedule.check import check_hours
from melange.plan.schedule.choose_rule import ChosenRule, choose_rule
from melange.plan.schedule.committed_hours import Committed
from melange.plan.schedule.contracts import Reserved, SavingsPlan, ScheduleOptions, Spot
from melange.plan.schedule.deferred import deferred_of, history_as_sent
from melange.plan.schedule.hours_that_share import Sharing, sharing_hours
from melange.plan.schedule.machines import Machines, machines_of
from melange.plan.schedule.reserve import finished
from melange.plan.schedule.schedule import Schedule
from melange.plan.schedule.traffic import CycleTraffic, traffic_of
from melange.processes import each_of
from melange.profile.profile import Profile
from melange.workload.cycle import WEEK
from melange.workload.demand import Demand

# Factors on the reserved counts that are best for the hours; the back-test of the rule chooses one. These counts are
# right with perfect knowledge of the hours. A scaler must look ahead and runs more, which a larger base can replace.
_BASES = (1.0, 0.85, 1.15)

Say = Callable[[str], None]


def plan_over_time(
    demand: Demand,
    profile: Profile,
    options: Options | None = None,
    schedule_options: ScheduleOptions | None = None,
    *,
    over: str = WEEK,
    statistic: str = "max",
    progress: Say | None = None,
) -> Schedule:
    """Plan what to reserve and how the rest follows the traffic.

    Parameters
    ----------
    demand
        The traffic of the past, window by window (W).
    profile
        Capacity of the replica types, over the same sizes (R, I, O) [1/s]; on-demand types scale with the traffic.
    options
        Options of a plan: headroom, limits, exclusions; None for the defaults.
    schedule_options
        Commitments, spot, start-up, how many requests may be short; None for the defaults.
    over
        The cycle that repeats: ``day`` or ``week``.
    statistic
        Statistic over the windows of an hour that its fleet is planned for: ``max``, ``mean`` or a percentile.
    progress
        Called with a sentence at each stage.

    Raises
    ------
    InputError
        A setting is not supported by a schedule, the demand is too short, or prices are missing.
    InfeasibleError
        No type serves some sizes, or the limits are below what some hour needs.
    SolverError
        A program has no answer, or the schedule fails its own check.
    """
    began = time.monotonic()
    plan_options, settings, say = (
        options or Options(),
        schedule_options or ScheduleOptions(),
        progress or (lambda _: None),
    )
    asked = traffic_of(demand, over, statistic, settings)
    cycle = asked.cycle
    traffic = np.nan_to_num(demand.rates()).sum(axis=0)
    found: list[Sharing] = []
    cautions: tuple[Caution, ...] = ()
    jobs: list[_Job] = []
    for one, plan in itertools.product((None, *settings.reserved), (None, *settings.savings_plans)):
        machines, cautions = machines_of(profile, traffic, plan_options, one, settings.spot, plan)
        jobs.append((machines, one, plan, asked, settings.spot))
    for job, committed in zip(jobs, each_of(_shared, jobs, len(jobs) + 1), strict=True):
        names = " and ".join(term.name for term in job[1:3] if term is not None)
        say(f"planned the hours with {names or 'nothing reserved'}")
        found.append(committed)
    best = min(found, key=lambda one: one.hours.reservation.cost_per_h)
    say("trying rules on the history")
    cells = best.hours.machines.cells
    history = history_as_sent(deferred_of(best, asked), demand, over, cells)
    hours, chosen = _with_rule(best.hours, history, settings)
    check_hours(hours.rates, hours.reservation, settings.spot)
    say("comparing with other ways to run the service")
    deferred = deferred_of(best, asked, chosen.late)
    if deferred is not None and best.as_it_arrives is not None:
        arriving = history_as_sent(None, demand, over, cells)
        deferred = replace(deferred, at_once=_with_rule(best.as_it_arrives, arriving, settings)[1].whole)
    return schedule_of_answer(
        Answer(
            demand=demand,
            cycle=cycle,
            settings=settings,
            options=plan_options,
            profile=profile,
            found=[one.hours for one in found],
            best=hours,
            chosen=chosen,
            history=history,
            deferred=deferred,
        ),
        (*demand.cautions, *profile.cautions, *cycle.cautions, *cautions, *stated_prices(settings)),
        time.monotonic() - began,
    )


_Job = tuple[Machines, Reserved | None, SavingsPlan | None, CycleTraffic, Spot | None]


def _shared(job: _Job) -> Sharing:
    return sharing_hours(*job)


def _with_rule(best: Committed, history: History, settings: ScheduleOptions) -> tuple[Committed, ChosenRule]:
    """The rule, with the factor on the reserved counts that has the lowest cost on the training part."""
    signals, machines = best.reservation.hours.signals, best.machines
    tried: dict[tuple[float, ...], ChosenRule] = {}
    for share in _BASES if best.reservation.reserved.any() else _BASES[:1]:
        counts = np.round(best.reservation.reserved * share)
        if bool(machines.is_allowed(counts)):
            tried.setdefault(tuple(counts.tolist()), choose_rule(machines, signals, counts, history, settings))
    limit = settings.short_fraction
    key = min(tried, key=lambda one: (tried[one].training.missed_fraction > limit, tried[one].training.cost_per_h))
    counts = np.array(key)
    if not np.array_equal(counts, best.reservation.reserved):
        moved = finished(machines, signals, best.rates, counts, settings.spot)  # under the same savings plan
        if np.isfinite(moved.cost_per_h):
            return replace(best, reservation=moved), tried[key]
        return best, tried[tuple(best.reservation.reserved.tolist())]
    return best, tried[key]
