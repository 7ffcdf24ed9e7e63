"""What a schedule is compared with: a fleet for the peak, an autoscaler of one type, and a clairvoyant plan."""

from __future__ import annotations

import numpy as np

from melange.plan.schedule.backtest import History, RunningCost, live, outcomes
from melange.plan.schedule.choose_rule import cheapest_within, decide
from melange.plan.schedule.contracts import ScheduleOptions
from melange.plan.schedule.hours import cheapest_hours, checked_hours
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.peak import peak_load
from melange.plan.schedule.rule import LAST, RuleSettings
from melange.plan.schedule.sending import late_fractions
from melange.plan.schedule.signals import Signals
from melange.plan.schedule.spot_room import SpotRoom
from melange.units import S_PER_MIN
from melange.workload.demand import Indices
from melange.workload.workload import Array

# Utilization targets that are tried for an autoscaler: from a full fleet to one that is a tenth full.
_TARGETS = np.round(np.geomspace(1.0, 0.1, 60), 4)
# How long an autoscaler waits before it gives instances back: HPA's own default [s].
_STABLE_S = 5 * S_PER_MIN
# Most windows that the clairvoyant plan uses; a longer history is reduced to every n-th window.
_MOST_WINDOWS = 1100
_ROUNDS = 8


def fleet_for_peak(machines: Machines, signals: Signals, rates: Array) -> tuple[Array, float]:
    """The cheapest fleet of one or two types on demand that carries every hour (H, B): instances (R,) and cost [USD/h].

    The fleet must cover each signal in the hour with the highest demand for it.
    """
    none = np.zeros(len(machines))
    for _ in range(_ROUNDS):
        most = signals.demand(rates).max(axis=0, keepdims=True)
        found = cheapest_hours(machines, signals, most, none, SpotRoom.of(machines, np.zeros(1), None))
        fleet = found.extra[0]
        if not np.isfinite(found.cost_per_h[0]):
            return fleet, np.inf
        given = signals.given(machines, fleet)
        # Hours whose demand is closest to the fleet's capacity come first.
        near = np.argsort(-(signals.demand(rates) / np.maximum(given, 1e-300)).max(axis=1), kind="stable")[:24]
        peaks = [peak_load(machines, rates[hour], fleet, enough=1.0) for hour in near.tolist()]
        short = [price for peak, price, _ in peaks if peak > 1 + 1e-7]
        if not short:
            break
        signals = signals.with_more(machines, np.array(short))
    return fleet, float(fleet @ machines.on_demand_per_h)


def best_single_type(machines: Machines, history: History) -> int | None:
    """The cheapest machine that carries all windows alone on demand, within the limits; None if there is none."""
    rates = history.rates[history.is_known]
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(machines.max_request_rate > 0, 1.0 / machines.max_request_rate, np.inf)
    able = np.isfinite(each).all(axis=1)
    if not able.any():
        return None
    cost, most = np.full(len(machines), np.inf), machines.most_beside(np.zeros(len(machines)))
    for r in np.flatnonzero(able).tolist():
        need = np.ceil(rates @ each[r] / machines.capacity[r])
        if need.max(initial=0.0) <= most[r]:
            cost[r] = need.mean() * machines.on_demand_per_h[r]
    return int(np.argmin(cost)) if np.isfinite(cost).any() else None


def reactive(
    machines: Machines,
    place: int,
    trained: History,
    lived: History,
    options: ScheduleOptions,
    short_fraction: float,
    *,
    on_rate: bool,
) -> RunningCost:
    """An autoscaler of one type on demand, at the cheapest target that meets the limit on short requests.

    The autoscaler sees the request rate of the last window, as load balancers report it, or the load of that window.
    The capacity of an instance in requests per second comes from the mix of sizes in the training part. The target is
    chosen with hindsight, on the windows of the run itself, so the comparison favors the autoscaler over the rule.
    """
    with np.errstate(divide="ignore"):
        weight = np.where(machines.max_request_rate[place] > 0, 1.0 / machines.max_request_rate[place], 0.0)
    load = lived.rates @ weight
    total = trained.rates[trained.is_known].sum(axis=0)
    seen = lived.rates.sum(axis=1) * float(total @ weight / total.sum()) if on_rate else load
    stable = max(1, round(_STABLE_S / lived.window_s))
    settings = [
        RuleSettings(ahead=LAST, look_back=1, margin=0.0, target=float(target), stable_windows=stable)
        for target in _TARGETS
    ]
    gives, held = np.array([machines.capacity[place]]), np.zeros(1)
    wanted = np.maximum(decide(settings, seen[:, None], gives, held, options.start_up_s / lived.window_s), 1.0)
    wanted = np.minimum(wanted, machines.most_beside(np.zeros(len(machines)))[place])
    counted = (lived.counted @ weight)[:, None]
    run = live(wanted, gives, held, counted, np.zeros(len(lived)), options, lived.window_s)
    late = late_fractions(lived.sent, weight[None], gives, run.up, held, counted, lived.window_s)
    found = outcomes(machines, place, run, np.zeros_like(wanted), lived, 0.0, late)
    return found[cheapest_within(found, short_fraction)]


def by_hour(
    machines: Machines, signals: Signals, fleets: Array, hour: Indices, history: History, cost_per_h: Array
) -> RunningCost:
    """Fleets (H, R) that follow the clock regardless of the traffic; ``hour`` (W,) is the hour of each window."""
    given = np.stack([signals.given(machines, fleet) for fleet in fleets])
    demand = signals.demand(history.counted)
    with np.errstate(divide="ignore", invalid="ignore"):
        served = np.where(demand > 0, given[hour] / demand, 1.0).min(axis=1).clip(0.0, 1.0)
    known = history.is_known
    total = history.counted.sum(axis=1)[known]
    short = 1.0 - served[known]
    up = np.ones((len(history), 1))  # the hourly fleets are passed as held capacity
    late = late_fractions(
        history.sent, signals.weight, np.zeros(len(signals)), up, given[hour], demand, history.window_s
    )
    return RunningCost(
        cost_per_h=float(cost_per_h.mean()),
        on_demand_per_h=0.0,
        spot_per_h=0.0,
        short_fraction=float(total @ short / total.sum()),
        short_windows_fraction=float((short > 1e-9).mean()),
        late_fraction=float(late.max(initial=0.0)),
    )


def clairvoyant(
    machines: Machines, signals: Signals, reserved: Array, history: History, options: ScheduleOptions
) -> float | None:
    """Cost with the cheapest whole instances in every window and the reserved ones, with perfect foresight [USD/h].

    Instances need no time to start or drain, and no request is short: no scaler can reach this cost. None if no fleet
    within the limits carries every window.
    """
    rates = history.rates[history.is_known]
    rates = rates[:: max(1, -(-len(rates) // _MOST_WINDOWS))]
    room = SpotRoom.of(machines, machines.work(rates), options.spot)
    fleets = cheapest_hours(machines, signals, signals.demand(rates), reserved, room)
    cost_per_h = machines.fixed_per_h(reserved) + float(fleets.cost_per_h.mean())
    return cost_per_h if np.isfinite(cost_per_h) else None


def cost_at_scale(
    machines: Machines, signals: Signals, rates: Array, reserved: Array, options: ScheduleOptions
) -> float:
    """Cost of the cheapest fleets for the hours' traffic (H, B), including the reserved instances [USD/h]."""
    hours = checked_hours(machines, signals, rates, reserved, options.spot)
    return machines.fixed_per_h(reserved) + float(hours.fleets.cost_per_h.mean())
