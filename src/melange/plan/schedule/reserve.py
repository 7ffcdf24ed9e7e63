"""How many instances to reserve: a search on typical hours with whole instances, then all hours with the best counts.

The relaxation's counts are wrong for small fleets (it rents 0.07 of an eight-GPU machine), so whole instances decide.
Reserving too few costs far more than too many: 0.7 times the right count costs 16 %, 1.3 times 0.4 %, at 0.45 of the
on-demand price.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from melange.plan.schedule.contracts import SavingsPlan, Spot
from melange.plan.schedule.hours import CheckedHours, HourFleets, cheapest_hours, checked_hours
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.relaxed import Relaxation
from melange.plan.schedule.signals import Signals
from melange.plan.schedule.spend import best_allowance
from melange.plan.schedule.spot_room import SpotRoom
from melange.plan.schedule.typical import TypicalHours
from melange.workload.workload import Array, Mask

# Most counts that are tried on the typical hours, and how many of the best are then tried on all hours. A count takes a
# few milliseconds on the typical hours, and some tenths of a second on all hours.
_MOST_TRIED, _FINALISTS = 100, 3
# If counts times hours are at most this number, every count is tried on all hours: a second at most.
ALL_TRIED = 600
# A signal whose demand stays below this share of what each fleet gives decides nothing, and is left out. If that was
# wrong, a short fleet brings it back.
_CLOSE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reservation:
    """What is reserved, and the fleets of all hours in addition.

    Parameters
    ----------
    machines
        The machines that were available, with the allowance of a savings plan.
    reserved
        Reserved instances (R,).
    hours
        The fleets of all hours, checked.
    cost_per_h
        Average cost over the hours, including reserved instances and the savings plan [USD/h].
    """

    machines: Machines
    reserved: Array
    hours: CheckedHours
    cost_per_h: float


def search_reserved(
    machines: Machines,
    signals: Signals,
    rates: Array,
    typical: TypicalHours,
    relaxation: Relaxation,
    spot: Spot | None,
    also: Iterable[Array] = (),
    plan: SavingsPlan | None = None,
) -> Reservation:
    """The best counts to reserve, with the fleets of all hours (H, B) in addition.

    ``also`` has more counts (R,) to try, such as the fleet for the peak; ``plan`` is a savings plan on offer.
    """
    can_reserve = np.isfinite(machines.reserved_per_h)
    signals = first_checked(machines, signals, typical, spot)
    tried: dict[tuple[float, ...], float] = {}
    room = SpotRoom.of(machines, machines.work(typical.rates), spot)
    demand = signals.demand(typical.rates)
    whole = typical.weight.sum()

    def fleets_at(under: Machines, counts: Array) -> HourFleets:
        return cheapest_hours(under, signals, demand, counts, room)

    def cost(counts: Array) -> float:
        key = tuple(counts.tolist())
        if key not in tried:
            allowed = bool(machines.is_allowed(counts))
            under = best_allowance(machines, plan, typical.weight, lambda one: fleets_at(one, counts))
            cost_per_h = typical.weight @ fleets_at(under, counts).cost_per_h / whole
            tried[key] = under.fixed_per_h(counts) + float(cost_per_h) if allowed else np.inf
        return tried[key]

    none = np.zeros(len(machines))
    if not can_reserve.any():
        return finished(machines, signals, rates, none, spot, plan)
    most = most_useful(machines, rates) * can_reserve
    if np.prod(most + 1) * len(rates) <= ALL_TRIED:
        counts = [np.array(one, float) for one in itertools.product(*(range(int(n) + 1) for n in most))]
        return min(
            (finished(machines, signals, rates, one, spot, plan) for one in counts if bool(machines.is_allowed(one))),
            key=lambda one: one.cost_per_h,
        )
    starts = [none, np.round(relaxation.reserved), np.floor(relaxation.reserved), np.ceil(relaxation.reserved)]
    starts += [_busy_long_enough(machines, fleets_at(machines, none).extra, typical)]
    starts += [np.asarray(one, float) for one in also]
    _descend(min((np.clip(one, 0, most) * can_reserve for one in starts), key=cost), most, cost, tried)
    return _best_of(machines, signals, rates, spot, plan, sorted(tried, key=lambda key: tried[key])[:_FINALISTS])


def _best_of(
    machines: Machines,
    signals: Signals,
    rates: Array,
    spot: Spot | None,
    plan: SavingsPlan | None,
    counts: list[tuple[float, ...]],
) -> Reservation:
    """The best of some counts on all hours; each starts with the signals that the counts before it needed."""
    best = finished(machines, signals, rates, np.array(counts[0]), spot, plan)
    for key in counts[1:]:
        reserved, known = np.array(key), best.hours.signals
        if plan is not None or least_beside(machines, known, rates, reserved, spot) < best.cost_per_h:
            found = finished(machines, known, rates, reserved, spot, plan)
            best = found if found.cost_per_h < best.cost_per_h else best
    return best


def least_beside(machines: Machines, signals: Signals, rates: Array, reserved: Array, spot: Spot | None) -> float:
    """Cost of all hours with some reserved counts according to these signals, without a check against the traffic.

    It is a lower bound for the search: more signals make no hour cheaper.
    """
    room = SpotRoom.of(machines, machines.work(rates), spot)
    fleets = cheapest_hours(machines, signals, signals.demand(rates), reserved, room)
    return machines.fixed_per_h(reserved) + float(fleets.cost_per_h.mean())


def first_checked(machines: Machines, signals: Signals, typical: TypicalHours, spot: Spot | None) -> Signals:
    """The signals, plus those that fleets of the typical hours needed, without those that never decide."""
    checked = checked_hours(machines, signals, typical.rates, np.zeros(len(machines)), spot)
    fleet = np.where(np.isfinite(checked.fleets.cost_per_h)[:, None], checked.fleets.extra, 0.0)
    demand = checked.signals.demand(typical.rates)
    given = fleet @ checked.signals.per_instance(machines).T
    close: Mask = np.asarray((demand >= _CLOSE * given).any(axis=0), bool)
    close[0] = True
    return checked.signals.chosen(np.flatnonzero(close))


def finished(
    machines: Machines,
    signals: Signals,
    rates: Array,
    reserved: Array,
    spot: Spot | None,
    plan: SavingsPlan | None = None,
) -> Reservation:
    """All hours with some reserved counts, and with a savings plan as far as it pays off."""
    if plan is not None:
        signals = checked_hours(machines, signals, rates, reserved, spot).signals
        room, demand = SpotRoom.of(machines, machines.work(rates), spot), signals.demand(rates)
        machines = best_allowance(
            machines,
            plan,
            np.ones(len(rates)),
            lambda one: cheapest_hours(one, signals, demand, reserved, room),
        )
    hours = checked_hours(machines, signals, rates, reserved, spot)
    cost = machines.fixed_per_h(reserved) + float(hours.fleets.cost_per_h.mean())
    return Reservation(machines=machines, reserved=reserved, hours=hours, cost_per_h=cost)


def most_useful(machines: Machines, rates: Array) -> Array:
    """Instances (R,) that carry all traffic that their type can serve in any hour: reserving more is of no use."""
    with np.errstate(divide="ignore"):
        each = np.where(machines.max_request_rate > 0, 1.0 / machines.max_request_rate, 0.0)
    alone = (rates @ each.T).max(axis=0) / machines.capacity
    alone += np.maximum(machines.spare, machines.spare_total) / machines.capacity
    most = np.minimum(np.ceil(alone - 1e-9), machines.most_beside(np.zeros(len(machines))))
    return np.asarray(np.maximum(most, 0.0))


def _busy_long_enough(machines: Machines, extra: Array, typical: TypicalHours) -> Array:
    """The k-th instance of each machine is reserved if it is in use for more of the hours than the price ratio."""
    ratio = np.where(np.isfinite(machines.reserved_per_h), machines.reserved_per_h / machines.on_demand_per_h, 2.0)
    counts = np.zeros(len(machines))
    for r in range(len(machines)):
        order = np.argsort(-extra[:, r], kind="stable")
        passed = np.cumsum(typical.weight[order]) / typical.weight.sum()
        enough = np.flatnonzero(passed > ratio[r])
        counts[r] = extra[order[enough[0]], r] if len(enough) else 0.0
    return counts


def _descend(best: Array, most: Array, cost: Callable[[Array], float], tried: dict[tuple[float, ...], float]) -> None:
    """Move from counts to better ones: one more or fewer of a machine, a tenth, or one machine for another."""
    types = np.flatnonzero(most > 0)
    while len(tried) < _MOST_TRIED:
        moves: list[Array] = []
        for r in types.tolist():
            for step in sorted({1.0, max(1.0, np.round(0.1 * best[r]))}):
                moves += [step * np.eye(len(best))[r], -step * np.eye(len(best))[r]]
        for a, b in itertools.permutations(types.tolist(), 2):
            if best[a] > 0:
                moves.append(np.eye(len(best))[b] - np.eye(len(best))[a])
        better = best
        for move in moves:
            counts = best + move
            if (counts < 0).any() or (counts > most).any() or len(tried) >= _MOST_TRIED:
                continue
            if cost(counts) < cost(better) - 1e-9:
                better = counts
        if better is best:
            break
        best = better
