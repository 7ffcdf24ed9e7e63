"""Build the schedule from the search results: outlooks, alternatives, the rule with its weights, cautions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from melange.errors import Caution
from melange.plan.options import Options
from melange.plan.problem import Positions
from melange.plan.schedule.alternatives import best_single_type, by_hour, clairvoyant, cost_at_scale, reactive
from melange.plan.schedule.backtest import History
from melange.plan.schedule.choose_rule import TRAINING, ChosenRule
from melange.plan.schedule.committed_hours import Committed
from melange.plan.schedule.contracts import Reserved, SavingsPlan, ScheduleOptions
from melange.plan.schedule.deferred import Deferred
from melange.plan.schedule.rule import ScalingRule, Signal
from melange.plan.schedule.schedule import AT_ONCE, STATIC, Alternative, CommitmentOutlook, Schedule
from melange.plan.server import Server, longest_request_of, server_of
from melange.profile.profile import Profile
from melange.units import H_PER_YEAR
from melange.workload.cycle import Cycle, hours_of
from melange.workload.demand import Demand
from melange.workload.workload import Array

# Share of the traffic that goes away in the outlook of a commitment.
_LESS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """Everything that a schedule is built from.

    Parameters
    ----------
    demand, cycle, profile, options, settings
        The question and its settings.
    found, best
        The hours under each commitment, and under the chosen one.
    chosen
        The scaling rule.
    history
        The windows that the rule was tried on.
    deferred
        Results for the classes that may wait; None if there are none.
    """

    demand: Demand
    cycle: Cycle
    settings: ScheduleOptions
    options: Options
    profile: Profile
    found: list[Committed]
    best: Committed
    chosen: ChosenRule
    history: History
    deferred: Deferred | None = None


def schedule_of_answer(answer: Answer, cautions: tuple[Caution, ...], solve_s: float) -> Schedule:
    """The schedule, restricted to the types that are used."""
    best, chosen = answer.best, answer.chosen
    machines, reservation = best.machines, best.reservation
    fleets = reservation.hours.fleets
    used = (reservation.reserved > 0) | fleets.extra.any(axis=0)
    used[chosen.place] |= bool(chosen.wanted.any())
    places = np.flatnonzero(used)
    slo = answer.profile.slo
    fixed = machines.fixed_per_h(reservation.reserved)
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
        savings_plan=best.plan if machines.committed_per_h > 0 else None,
        committed_per_h=machines.committed_per_h,
        commitments=tuple(_outlook(one, answer.settings) for one in answer.found),
        rule=_rule(answer) if chosen.wanted.any() else None,
        running=chosen.whole,
        training=chosen.training,
        unseen=chosen.unseen,
        frontier=chosen.frontier,
        alternatives=tuple(_alternatives(answer)),
        clairvoyant_per_h=clairvoyant(machines, chosen.signals, reservation.reserved, answer.history, answer.settings),
        static=best.static[places],
        deferred=answer.deferred,
        servers=_servers(answer, places),
        options=answer.settings,
        headroom=answer.options.headroom,
        window_s=answer.demand.window_s,
        slo=str(slo) if slo else "",
        model=answer.profile.model,
        source=answer.demand.source,
        time_zone="" if answer.demand.start is None else answer.demand.time_zone,
        solve_s=solve_s,
        cautions=tuple(dict.fromkeys((*cautions, *_unmet(answer)))),
    )


def _servers(answer: Answer, places: Positions) -> tuple[Server, ...]:
    """Start options of the types that are used, each with its most replicas of any hour."""
    machines, profile, reservation = answer.best.machines, answer.profile, answer.best.reservation
    most = reservation.reserved + reservation.hours.fleets.extra.max(axis=0)
    is_sent = np.zeros(answer.demand.buckets.shape, bool)
    is_sent.ravel()[machines.cells] = True
    made = []
    for r in places.tolist():
        one, place = machines.types[r], int(machines.position[r])
        engine = profile.engines[place] if profile.engines else None
        longest = longest_request_of(answer.demand.buckets, is_sent & (profile.max_request_rate[place] > 0))
        replicas = int(most[r]) * one.replicas_per_instance
        made.append(server_of(one, engine, replicas, profile.model, profile.slo, longest))
    return tuple(made)


def _known(price: Array) -> Array:
    return np.where(np.isfinite(price), price, np.nan)


def _rule(answer: Answer) -> ScalingRule:
    """The rule with its weights by size, in instances of the scaled type."""
    machines, chosen = answer.best.machines, answer.chosen
    signals = chosen.signals
    gives = signals.per_instance(machines)
    held = signals.held(machines, answer.best.reservation.reserved, chosen.place)
    shape = answer.demand.buckets.shape
    parts = []
    for k in chosen.watched:
        weight = np.zeros(shape[0] * shape[1])
        weight[machines.cells] = signals.weight[k] / gives[k, chosen.place]
        parts.append(
            Signal(request_weight=weight.reshape(shape), reserved_load=float(held[k] / gives[k, chosen.place]))
        )
    spot = answer.settings.spot
    share = 0.0 if spot is None else spot.most_of_one_type
    if not machines.spot_per_h[chosen.place] < machines.on_demand_per_h[chosen.place]:
        share = 0.0
    most = machines.most_beside(answer.best.reservation.reserved)[chosen.place]
    return ScalingRule(
        replica_type=machines.names[chosen.place],
        settings=chosen.settings,
        signals=tuple(parts),
        window_s=answer.demand.window_s,
        delay_windows=answer.settings.start_up_s / answer.demand.window_s,
        spot_share=share,
        most=None if np.isinf(most) else int(most),
        buckets=answer.demand.buckets,
    )


def _outlook(one: Committed, settings: ScheduleOptions) -> CommitmentOutlook:
    """The risk of a commitment."""
    machines, reserved = one.machines, one.reservation.reserved
    signals, less = one.reservation.hours.signals, one.rates * (1 - _LESS)
    fixed = machines.fixed_per_h(reserved)
    listed = float(reserved @ machines.on_demand_per_h) + machines.allowance_per_h
    upfront = 0.0
    for term, paid in ((one.commitment, fixed - machines.committed_per_h), (one.plan, machines.committed_per_h)):
        if term is not None:
            upfront += paid * H_PER_YEAR * term.term_years * term.upfront_fraction
    plain = replace(machines, allowance_per_h=0.0, committed_per_h=0.0)
    return CommitmentOutlook(
        name=" and ".join(term.name for term in (one.commitment, one.plan) if term is not None),
        reserved={name: int(n) for name, n in zip(machines.names, reserved, strict=True) if n},
        cost_per_h=one.reservation.cost_per_h,
        reserved_per_h=fixed - machines.committed_per_h,
        committed_per_h=machines.committed_per_h,
        break_even_fraction=fixed / listed if listed else 0.0,
        upfront_usd=upfront,
        at_less_traffic_per_h=cost_at_scale(machines, signals, less, reserved, settings),
        uncommitted_at_less_per_h=cost_at_scale(plain, signals, less, np.zeros(len(machines)), settings),
    )


def _alternatives(answer: Answer) -> list[Alternative]:
    """Other ways to run the service; autoscalers run over the last third of the history, like the rule."""
    best, cycle, settings = answer.best, answer.cycle, answer.settings
    history = answer.history
    signals, fleets = answer.chosen.signals, best.reservation.hours.fleets
    hour = hours_of(answer.demand, cycle.over)
    peak = np.repeat(best.static[None], len(cycle), axis=0)
    static = by_hour(best.machines, signals, peak, hour, history, np.full(len(cycle), best.static_per_h))
    names = ", ".join(f"{int(n)} x {name}" for name, n in zip(best.machines.names, best.static, strict=True) if n)
    total = fleets.extra + best.reservation.reserved
    fixed = best.machines.fixed_per_h(best.reservation.reserved)
    planned = by_hour(best.machines, signals, total, hour, history, fleets.cost_per_h + fixed)
    deferred = answer.deferred
    found = [
        *(
            [Alternative(name=AT_ONCE, outcome=deferred.at_once, note="planned and scaled alike")]
            if deferred is not None and deferred.at_once is not None
            else []
        ),
        Alternative(name=STATIC, outcome=static, note=names),
        Alternative(name="a fleet for each hour, on a fixed timetable", outcome=planned, note="on this history"),
    ]
    place = best_single_type(best.everything, history)
    if place is None:
        return found
    split = max(1, round(TRAINING * len(history)))
    trained, later = history.part(0, split), history.part(split, len(history)) if split < len(history) else history
    for on_rate, words in ((False, "load"), (True, "request rate")):
        run = reactive(
            best.everything, place, trained, later, settings, answer.chosen.unseen.missed_fraction, on_rate=on_rate
        )
        found.append(
            Alternative(
                name=f"an autoscaler on {words}, on demand",
                outcome=run,
                note=f"{best.everything.names[place]}, the last third",
            )
        )
    return found


def stated_prices(settings: ScheduleOptions) -> tuple[Caution, ...]:
    """Cautions about prices that the service states and no price list has."""
    terms: list[Reserved | SavingsPlan] = [*settings.reserved, *settings.savings_plans]
    stated = [one.name for one in terms if one.discount is not None]
    said = []
    if stated or (settings.spot is not None and settings.spot.discount is not None):
        kinds = [*(["commitments"] if stated else []), *(["spot"] if settings.spot and settings.spot.discount else [])]
        said.append(
            Caution(
                "stated-discount",
                f"prices of {' and '.join(kinds)} come from the service's own discounts, the same for every type, not "
                "from a price list; check with the provider before you commit",
            )
        )
    if stated and settings.horizon_years is None:
        longest = max(one.term_years for one in terms)
        said.append(
            Caution(
                "no-horizon",
                f"the service's lifetime is not given, and commitments last up to {longest:g} years; set "
                "schedule.horizon_years",
            )
        )
    return tuple(said)


def _unmet(answer: Answer) -> tuple[Caution, ...]:
    """A caution if no rule met the limit on short requests, or if the last third exceeded it by more than half."""
    wanted, chosen = answer.settings.short_fraction, answer.chosen
    if chosen.training.missed_fraction > wanted:
        kind = "late" if chosen.training.late_fraction > chosen.training.short_fraction else "short"
        return (
            Caution(
                "short",
                f"no rule that was tried keeps the requests {kind} at {wanted:.2%} or less; this one leaves "
                f"{chosen.training.missed_fraction:.2%}: start instances faster (schedule.start_up), or reserve more",
            ),
        )
    if chosen.unseen.short_fraction > 1.5 * wanted:
        return (
            Caution(
                "short",
                f"in the last third of the history {chosen.unseen.short_fraction:.2%} of the requests were above the "
                f"fleet's capacity (limit: {wanted:.2%}): the history predicts too little; lower "
                "schedule.short_fraction",
            ),
        )
    return ()
