"""The verb of planning over time: what to reserve, and how the rest follows the traffic."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from melange.errors import Caution, InfeasibleError
from melange.plan.options import Options
from melange.plan.schedule.alternatives import (
    best_single_type,
    by_hour,
    clairvoyant,
    cost_at_scale,
    fleet_for_peak,
    reactive,
)
from melange.plan.schedule.backtest import History
from melange.plan.schedule.check import check_hours
from melange.plan.schedule.choose_rule import TRAINING, ChosenRule, choose_rule
from melange.plan.schedule.contention import in_contention
from melange.plan.schedule.contracts import Reserved, ScheduleOptions
from melange.plan.schedule.hours import HourFleets
from melange.plan.schedule.machines import Machines, machines_of
from melange.plan.schedule.relaxed import Relaxation, bound_per_h, relax
from melange.plan.schedule.reserve import Reservation, search_reserved
from melange.plan.schedule.rule import ScalingRule, Signal
from melange.plan.schedule.schedule import STATIC, Alternative, CommitmentOutlook, Schedule
from melange.plan.schedule.signals import first_signals
from melange.plan.schedule.typical import TypicalHours, merged_sizes, typical_hours
from melange.profile.profile import Profile
from melange.units import H_PER_YEAR
from melange.workload.cycle import WEEK, Cycle, fold, hours_of
from melange.workload.demand import Demand
from melange.workload.workload import Array

# Typical hours of the bound (see typical.py).
_BOUND_HOURS = 48
# Traffic that goes away in the outlook on a commitment.
_LESS = 0.3
# Shares of the reserved counts that the hours ask for, among which the back-test of the rule decides. What the hours
# ask for is right for who knows them; a scaler that must look ahead runs more, and a base takes its place.
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
    found: list[_Committed] = []
    cautions: tuple[Caution, ...] = ()
    for one in (None, *settings.reserved):
        machines, cautions = machines_of(profile, traffic, plan_options, one, settings.spot)
        say(f"planning the hours with {one.name if one else 'nothing reserved'}")
        found.append(_committed(machines, one, cycle, settings))
    best = min(found, key=lambda one: one.reservation.cost_per_h)
    say("trying rules on the history")
    history = History.of(demand.rates()[:, best.machines.cells], demand.window_s)
    best, chosen = _with_rule(best, cycle, history, settings)
    check_hours(best.machines, best.rates, best.reservation, settings.spot)
    say("comparing with other ways to run the service")
    return _schedule(
        _Answer(
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
        (*demand.cautions, *profile.cautions, *cycle.cautions, *cautions, *_stated(settings)),
        time.monotonic() - began,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Committed:
    """The hours under one commitment, or none."""

    commitment: Reserved | None
    everything: Machines
    machines: Machines
    rates: Array
    relaxation: Relaxation
    typical: TypicalHours
    reservation: Reservation
    static: Array
    static_per_h: float
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answer:
    """All that a schedule is made of."""

    demand: Demand
    cycle: Cycle
    settings: ScheduleOptions
    options: Options
    profile: Profile
    found: list[_Committed]
    best: _Committed
    chosen: ChosenRule
    history: History


def _committed(
    everything: Machines, commitment: Reserved | None, cycle: Cycle, settings: ScheduleOptions
) -> _Committed:
    """Search what to reserve under one commitment."""
    spot = settings.spot
    rates = cycle.request_rate[:, everything.cells]
    typical = typical_hours(everything, rates, count=_BOUND_HOURS)
    relaxation = relax(everything, typical, merged_sizes(everything, rates), spot)
    bound = bound_per_h(everything, rates, relaxation.price[typical.of_hour], spot)
    places = in_contention(everything, rates, relaxation)
    machines = everything.only(places)
    part = replace(relaxation, reserved=relaxation.reserved[places], used_share=relaxation.used_share[places])
    signals = first_signals(machines)
    static, static_per_h = fleet_for_peak(machines, signals, rates)
    few = typical_hours(machines, rates)
    also = [static] if np.isfinite(static_per_h) else []
    reservation = search_reserved(machines, signals, rates, few, part, spot, also)
    if not np.isfinite(reservation.cost_per_h):
        hours = np.flatnonzero(~np.isfinite(reservation.hours.fleets.cost_per_h))
        raise InfeasibleError(
            f"no fleet within the limits carries {len(hours)} of the {len(rates)} hours",
            reasons=[f"{cycle.labels[hour]} needs more than the limits allow" for hour in hours[:8].tolist()],
            hint="allow more instances (offers.max), or more types (offers.gpus)",
        )
    return _Committed(
        commitment=commitment,
        everything=everything,
        machines=machines,
        rates=rates,
        relaxation=relaxation,
        typical=typical,
        reservation=_no_more_expensive(machines, reservation, static, static_per_h),
        static=static,
        static_per_h=static_per_h,
        bound=min(bound, reservation.cost_per_h),
    )


def _no_more_expensive(machines: Machines, reservation: Reservation, static: Array, static_per_h: float) -> Reservation:
    """The same, with the peak's fleet in hours for which it costs less than the one that was found."""
    fleets = reservation.hours.fleets
    if reservation.reserved.any() or not np.isfinite(static_per_h):
        return reservation
    worse = fleets.cost_per_h > static_per_h + 1e-9
    if not worse.any():
        return reservation
    extra, spot, cost = fleets.extra.copy(), fleets.spot.copy(), fleets.cost_per_h.copy()
    extra[worse], spot[worse], cost[worse] = static, 0.0, static_per_h
    hours = replace(reservation.hours, fleets=HourFleets(extra=extra, spot=spot, cost_per_h=cost))
    return replace(reservation, hours=hours, cost_per_h=float(cost.mean()))


def _with_rule(
    best: _Committed, cycle: Cycle, history: History, settings: ScheduleOptions
) -> tuple[_Committed, ChosenRule]:
    """The rule, and of some shares of the reserved counts the one with which it costs least on its training part."""
    from melange.plan.schedule.reserve import finished

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
        moved = finished(machines, signals, best.rates, counts, settings.spot)
        if np.isfinite(moved.cost_per_h):
            return replace(best, reservation=moved), tried[key]
        return best, tried[tuple(best.reservation.reserved.tolist())]
    return best, tried[key]


def _schedule(answer: _Answer, cautions: tuple[Caution, ...], solve_s: float) -> Schedule:
    """The noun, over the types that are used."""
    best, chosen = answer.best, answer.chosen
    machines, reservation = best.machines, best.reservation
    fleets = reservation.hours.fleets
    used = (reservation.reserved > 0) | fleets.extra.any(axis=0)
    used[chosen.place] |= bool(chosen.wanted.any())
    places = np.flatnonzero(used)
    slo = answer.profile.slo
    fixed = float(reservation.reserved @ np.where(reservation.reserved > 0, machines.reserved_per_h, 0.0))
    return Schedule(
        over=answer.cycle.over,
        labels=answer.cycle.labels,
        replica_types=tuple(machines.types[r] for r in places),
        reserved=reservation.reserved[places],
        on_demand=(fleets.extra - fleets.spot)[:, places],
        spot=fleets.spot[:, places],
        request_rate=best.rates.sum(axis=1),
        work_per_h=best.everything.work(best.rates),
        hour_cost_per_h=fleets.cost_per_h + fixed,
        reserved_per_h=_known(machines.reserved_per_h[places]),
        on_demand_per_h=machines.on_demand_per_h[places],
        spot_per_h=_known(machines.spot_per_h[places]),
        bound_per_h=best.bound,
        commitment=best.commitment if reservation.reserved.any() else None,
        commitments=tuple(_outlook(one, answer.settings) for one in answer.found),
        rule=_rule(answer) if chosen.wanted.any() else None,
        running=chosen.whole,
        training=chosen.training,
        unseen=chosen.unseen,
        frontier=chosen.frontier,
        alternatives=tuple(_alternatives(answer)),
        clairvoyant_per_h=clairvoyant(
            machines, reservation.hours.signals, reservation.reserved, answer.history, answer.settings
        ),
        static=best.static[places],
        options=answer.settings,
        headroom=answer.options.headroom,
        window_s=answer.demand.window_s,
        slo=str(slo) if slo else "",
        model=answer.profile.model,
        source=answer.demand.source,
        solve_s=solve_s,
        cautions=tuple(dict.fromkeys((*cautions, *_unmet(answer)))),
    )


def _known(price: Array) -> Array:
    return np.where(np.isfinite(price), price, np.nan)


def _rule(answer: _Answer) -> ScalingRule:
    """The rule with its weights by size, in instances of the type that it scales."""
    machines, chosen = answer.best.machines, answer.chosen
    signals = answer.best.reservation.hours.signals
    gives = signals.per_instance(machines)
    held = gives @ answer.best.reservation.reserved
    shape = answer.demand.buckets.shape
    parts = []
    for k in chosen.watched:
        weight = np.zeros(shape[0] * shape[1])
        weight[machines.cells] = signals.weight[k] / gives[k, chosen.place]
        parts.append(
            Signal(request_weight=weight.reshape(shape), reserved_load=float(held[k] / gives[k, chosen.place]))
        )
    spot = answer.settings.spot
    share = 0.0 if spot is None else min(spot.max_share, spot.max_share_per_pool * spot.zones)
    if not machines.spot_per_h[chosen.place] < machines.on_demand_per_h[chosen.place]:
        share = 0.0
    return ScalingRule(
        replica_type=machines.names[chosen.place],
        settings=chosen.settings,
        signals=tuple(parts),
        window_s=answer.demand.window_s,
        delay_windows=answer.settings.start_up_s / answer.demand.window_s,
        spot_share=share,
    )


def _outlook(one: _Committed, settings: ScheduleOptions) -> CommitmentOutlook:
    """What is at stake with a commitment."""
    machines, reserved = one.machines, one.reservation.reserved
    signals, less = one.reservation.hours.signals, one.rates * (1 - _LESS)
    held = np.where(reserved > 0, machines.reserved_per_h, 0.0)
    fixed = float(reserved @ held)
    listed = float(reserved @ machines.on_demand_per_h)
    upfront = 0.0
    if one.commitment is not None:
        upfront = fixed * H_PER_YEAR * one.commitment.term_years * one.commitment.upfront_fraction
    return CommitmentOutlook(
        name="" if one.commitment is None else one.commitment.name,
        reserved={name: int(n) for name, n in zip(machines.names, reserved, strict=True) if n},
        cost_per_h=one.reservation.cost_per_h,
        reserved_per_h=fixed,
        break_even_fraction=fixed / listed if listed else 0.0,
        upfront=upfront,
        at_less_traffic_per_h=cost_at_scale(machines, signals, less, reserved, settings),
        uncommitted_at_less_per_h=cost_at_scale(machines, signals, less, np.zeros(len(machines)), settings),
    )


def _alternatives(answer: _Answer) -> list[Alternative]:
    """Other ways to run the service; autoscalers over the last third of the history, as the rule there."""
    best, cycle, settings = answer.best, answer.cycle, answer.settings
    history = answer.history
    signals, fleets = best.reservation.hours.signals, best.reservation.hours.fleets
    hour = hours_of(answer.demand, cycle.over)
    peak = np.repeat(best.static[None], len(cycle), axis=0)
    static = by_hour(best.machines, signals, peak, hour, history, np.full(len(cycle), best.static_per_h))
    names = ", ".join(f"{int(n)} x {name}" for name, n in zip(best.machines.names, best.static, strict=True) if n)
    total = fleets.extra + best.reservation.reserved
    fixed = float(
        best.reservation.reserved @ np.where(best.reservation.reserved > 0, best.machines.reserved_per_h, 0.0)
    )
    planned = by_hour(best.machines, signals, total, hour, history, fleets.cost_per_h + fixed)
    found = [
        Alternative(name=STATIC, outcome=static, note=names),
        Alternative(name="the hours' own fleets, by the clock", outcome=planned, note="whatever comes"),
    ]
    place = best_single_type(best.everything, history)
    if place is None:
        return found
    split = max(1, round(TRAINING * len(history)))
    trained, later = history.part(0, split), history.part(split, len(history)) if split < len(history) else history
    for on_rate, words in ((False, "load"), (True, "request rate")):
        run = reactive(
            best.everything, place, trained, later, settings, answer.chosen.unseen.short_fraction, on_rate=on_rate
        )
        found.append(
            Alternative(
                name=f"an autoscaler on {words}, on demand",
                outcome=run,
                note=f"{best.everything.names[place]}, the last third",
            )
        )
    return found


def _stated(settings: ScheduleOptions) -> tuple[Caution, ...]:
    """A word on prices that the service states, and that no price list has."""
    stated = [one.name for one in settings.reserved if one.discount is not None]
    said = []
    if stated or (settings.spot is not None and settings.spot.discount is not None):
        kinds = [*(["commitments"] if stated else []), *(["spot"] if settings.spot and settings.spot.discount else [])]
        said.append(
            Caution(
                "stated-discount",
                f"prices of {' and '.join(kinds)} are the service's own discounts off the on-demand price, the same "
                "for every type: no price list was asked; ask the provider before you commit",
            )
        )
    if stated and settings.horizon_years is None:
        longest = max(one.term_years for one in settings.reserved)
        said.append(
            Caution(
                "no-horizon",
                f"nobody says how long the service is sure to run, and commitments bind up to {longest:g} years; "
                "schedule.horizon_years says it",
            )
        )
    return tuple(said)


def _unmet(answer: _Answer) -> tuple[Caution, ...]:
    """A word where no rule left as few requests short as wanted, or more of them were in the last third."""
    wanted, chosen = answer.settings.short_fraction, answer.chosen
    if chosen.training.short_fraction > wanted:
        return (
            Caution(
                "short",
                f"no rule that was tried leaves {wanted:.2%} of the requests short or fewer; this one leaves "
                f"{chosen.training.short_fraction:.2%}: start instances faster (schedule.start_up), or reserve more",
            ),
        )
    if chosen.unseen.short_fraction > 1.5 * wanted:
        return (
            Caution(
                "short",
                f"in the last third of the history {chosen.unseen.short_fraction:.2%} of the requests came in excess "
                f"of the fleet, where {wanted:.2%} were wanted: the past does not tell enough; ask for fewer",
            ),
        )
    return ()
