"""The verb of planning over time: what to reserve, and how the rest follows the traffic."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from melange.errors import Caution, InfeasibleError
from melange.plan.options import Options
from melange.plan.problem import Positions
from melange.plan.schedule.alternatives import fleet_for_peak
from melange.plan.schedule.answer_over_time import Answer, Committed, schedule_of_answer, stated_prices
from melange.plan.schedule.backtest import History
from melange.plan.schedule.check import check_hours
from melange.plan.schedule.choose_rule import ChosenRule, choose_rule
from melange.plan.schedule.contention import in_contention
from melange.plan.schedule.contracts import Reserved, SavingsPlan, ScheduleOptions, Spot
from melange.plan.schedule.hours import HourFleets
from melange.plan.schedule.machines import Machines, machines_of
from melange.plan.schedule.relaxed import bound_per_h, relax
from melange.plan.schedule.reserve import Reservation, finished, search_reserved
from melange.plan.schedule.schedule import Schedule
from melange.plan.schedule.signals import FITS, first_signals, peak_load
from melange.plan.schedule.typical import merged_sizes, typical_hours
from melange.plan.schedule.whole_hours import optimal_hours
from melange.processes import each_of
from melange.profile.profile import Profile
from melange.workload.cycle import WEEK, Cycle, fold
from melange.workload.demand import Demand
from melange.workload.workload import Array

# Typical hours of the bound (see typical.py).
_BOUND_HOURS = 48
# Shares of the reserved counts that the hours ask for, among which the back-test of the rule decides. What the hours
# ask for is right for who knows them; a scaler that must look ahead runs more, and a base takes its place.
_BASES = (1.0, 0.85, 1.15)

# Up to this number of hours, each is planned at its optimum over all machines. 24 take 1 to 2 s of CPU, a week's 168
# ten times as much. It made a day of ServeGen's mm-image 3 % cheaper, and one of deepseek-r1 1.7 %.
_FEW_HOURS, _OPTIMUM_S = 24, 20.0

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
        What replica types carry, over the same sizes (R, I, O) [1/s]; those offered on demand scale with the traffic.
    options
        Of a plan: headroom, limits, exclusions; None for the defaults.
    schedule_options
        Commitments, spot, start-up, how many requests may be short; None for the defaults.
    over
        ``day`` or ``week``: what repeats.
    statistic
        Of the windows of an hour, what its own fleet is planned for: ``max``, ``mean`` or a percentile.
    progress
        Called with a sentence now and then.

    Raises
    ------
    InputError
        Settings that a schedule does not follow, a demand that is too short, prices that are asked for and not there.
    InfeasibleError
        Sizes that no type serves, or limits below what some hour needs.
    SolverError
        A program without an answer, or a schedule that fails its own check.
    """
    began = time.monotonic()
    plan_options, settings, say = (
        options or Options(),
        schedule_options or ScheduleOptions(),
        progress or (lambda _: None),
    )
    cycle = fold(demand, over, statistic=statistic)
    traffic = np.nan_to_num(demand.rates()).sum(axis=0)
    found: list[Committed] = []
    cautions: tuple[Caution, ...] = ()
    jobs: list[_Job] = []
    for one, plan in itertools.product((None, *settings.reserved), (None, *settings.savings_plans)):
        machines, cautions = machines_of(profile, traffic, plan_options, one, settings.spot, plan)
        jobs.append((machines, one, plan, cycle, settings))
    for job, committed in zip(jobs, each_of(_committed, jobs, len(jobs) + 1), strict=True):
        names = " and ".join(term.name for term in job[1:3] if term is not None)
        say(f"planned the hours with {names or 'nothing reserved'}")
        found.append(committed)
    best = min(found, key=lambda one: one.reservation.cost_per_h)
    say("trying rules on the history")
    history = History.of(demand.rates()[:, best.machines.cells], demand.window_s)
    best, chosen = _with_rule(best, cycle, history, settings)
    check_hours(best.rates, best.reservation, settings.spot)
    say("comparing with other ways to run the service")
    return schedule_of_answer(
        Answer(
            demand=demand,
            cycle=cycle,
            settings=settings,
            options=plan_options,
            profile=profile,
            found=found,
            best=best,
            chosen=chosen,
            history=history,
        ),
        (*demand.cautions, *profile.cautions, *cycle.cautions, *cautions, *stated_prices(settings)),
        time.monotonic() - began,
    )


_Job = tuple[Machines, Reserved | None, SavingsPlan | None, Cycle, ScheduleOptions]


def _committed(job: _Job) -> Committed:
    """Search what to reserve under one commitment, and what to commit to a savings plan."""
    everything, commitment, plan, cycle, settings = job
    spot = settings.spot
    rates = cycle.request_rate[:, everything.cells]
    typical = typical_hours(everything, rates, count=_BOUND_HOURS)
    relaxation = relax(everything, typical, merged_sizes(everything, rates), spot, plan)
    bound = bound_per_h(everything, rates, relaxation.price[typical.of_hour], spot, plan)
    places = in_contention(everything, rates, relaxation)
    machines = everything.only(places)
    part = replace(relaxation, reserved=relaxation.reserved[places], used_share=relaxation.used_share[places])
    signals = first_signals(machines)
    static, static_per_h = fleet_for_peak(machines, signals, rates)
    few = typical_hours(machines, rates)
    also = [static] if np.isfinite(static_per_h) else []
    reservation = search_reserved(machines, signals, rates, few, part, spot, also, plan)
    if not np.isfinite(reservation.cost_per_h):
        hours = np.flatnonzero(~np.isfinite(reservation.hours.fleets.cost_per_h))
        raise InfeasibleError(
            f"no fleet within the limits carries {len(hours)} of the {len(rates)} hours",
            reasons=[
                f"{cycle.labels[hour]} needs more than the limits allow"
                + (", with replicas to spare" if machines.has_spares else "")
                for hour in hours[:8].tolist()
            ],
            hint="allow more instances (offers.max), or more types (offers.gpus)"
            + (", or fewer spare replicas (plan.spare_replicas)" if machines.has_spares else ""),
        )
    is_plain = plan is None and not machines.has_spares
    is_plain = is_plain and (spot is None or (spot.spare_pools == 0 and spot.max_share_per_zone >= spot.max_share))
    if len(rates) <= _FEW_HOURS and is_plain:  # programs of one hour know nothing of these
        better = _at_their_optimum(everything, rates, places, reservation, spot)
        if better is not None:
            moved = np.zeros(len(better[0]))
            moved[np.searchsorted(better[0], places)] = static
            places, reservation, static = *better, moved
    return Committed(
        commitment=commitment,
        plan=plan,
        everything=everything,
        rates=rates,
        reservation=_no_more_expensive(reservation, static, static_per_h),
        static=static,
        static_per_h=static_per_h,
        bound=min(bound, reservation.cost_per_h),
    )


def _at_their_optimum(
    everything: Machines, rates: Array, places: Positions, reservation: Reservation, spot: Spot | None
) -> tuple[Positions, Reservation] | None:
    """The hours of a day, each with its cheapest fleet of any types, and the machines that takes; None: no better."""
    reserved = np.zeros(len(everything))
    reserved[places] = reservation.reserved
    found = optimal_hours(everything, rates, reserved, spot, deadline=time.monotonic() + _OPTIMUM_S)
    known = np.where(np.isfinite(found.cost_per_h), found.cost_per_h, np.inf)
    is_better = known < reservation.hours.fleets.cost_per_h - 1e-9
    if not is_better.any():
        return None
    used = np.union1d(places, np.flatnonzero(found.extra[is_better].any(axis=0)))
    machines = everything.only(used)
    planned = finished(machines, first_signals(machines), rates, reserved[used], spot)
    fleets, share = planned.hours.fleets, planned.hours.share.copy()
    is_better = known < fleets.cost_per_h - 1e-9
    for hour in np.flatnonzero(is_better).tolist():
        peak, _, share[hour] = peak_load(machines, rates[hour], reserved[used] + found.extra[hour, used])
        is_better[hour] = peak <= FITS
    wins = is_better[:, None]
    taken = HourFleets(
        extra=np.where(wins, found.extra[:, used], fleets.extra),
        spot=np.where(wins, found.spot[:, used], fleets.spot),
        cost_per_h=np.where(is_better, known, fleets.cost_per_h),
    )
    kept = np.where(wins[:, :, None], share, planned.hours.share)
    cost = planned.cost_per_h + float((taken.cost_per_h - fleets.cost_per_h).mean())
    if not cost < reservation.cost_per_h:
        return None
    return used, replace(planned, hours=replace(planned.hours, fleets=taken, share=kept), cost_per_h=cost)


def _no_more_expensive(reservation: Reservation, static: Array, static_per_h: float) -> Reservation:
    """The same, with the peak's fleet in hours for which it costs less than the one that was found."""
    fleets = reservation.hours.fleets
    is_committed = reservation.reserved.any() or reservation.machines.committed_per_h > 0
    if is_committed or not np.isfinite(static_per_h):
        return reservation
    worse = fleets.cost_per_h > static_per_h + 1e-9
    if not worse.any():
        return reservation
    extra, spot, cost = fleets.extra.copy(), fleets.spot.copy(), fleets.cost_per_h.copy()
    extra[worse], spot[worse], cost[worse] = static, 0.0, static_per_h
    hours = replace(reservation.hours, fleets=HourFleets(extra=extra, spot=spot, cost_per_h=cost))
    return replace(reservation, hours=hours, cost_per_h=float(cost.mean()))


def _with_rule(
    best: Committed, cycle: Cycle, history: History, settings: ScheduleOptions
) -> tuple[Committed, ChosenRule]:
    """The rule, and of some shares of the reserved counts the one with which it costs least on its training part."""
    signals, machines = best.reservation.hours.signals, best.machines
    tried: dict[tuple[float, ...], ChosenRule] = {}
    for share in _BASES if best.reservation.reserved.any() else _BASES[:1]:
        counts = np.round(best.reservation.reserved * share)
        if bool(machines.is_allowed(counts)):
            tried.setdefault(tuple(counts.tolist()), choose_rule(machines, signals, counts, history, settings))
    limit = settings.short_fraction
    key = min(tried, key=lambda one: (tried[one].training.short_fraction > limit, tried[one].training.cost_per_h))
    counts = np.array(key)
    if not np.array_equal(counts, best.reservation.reserved):
        moved = finished(machines, signals, best.rates, counts, settings.spot)  # under the same savings plan
        if np.isfinite(moved.cost_per_h):
            return replace(best, reservation=moved), tried[key]
        return best, tried[tuple(best.reservation.reserved.tolist())]
    return best, tried[key]
