"""Each hour separately: the cheapest instances in addition to those that are paid anyway, for all hours at once.

Fleets of one or two machines in addition to the reserved ones are tried. The signals give the count of the second
machine for each count of the first. Arrays have the axes (hour H, machine R).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from melange.plan.schedule.contracts import Spot
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.need import Need
from melange.plan.schedule.peak import FITS, peak_load, peak_of
from melange.plan.schedule.signals import Signals
from melange.plan.schedule.spot_room import SpotRoom, split_spot
from melange.workload.demand import Indices
from melange.workload.workload import Array, Mask

# Counts of the first of two machines that are tried: all counts in small fleets, and the counts around the best
# fractional split in large ones.
_COUNTS = 12
# That split is found to within this many instances; each step leaves two thirds of the range.
_NEAR = 2.0
# Numbers of additional instances that are tried as cover for lost pools.
_STANDING = (1, 2, 3, 4, 6, 8)
# A unit cost above that of any fleet, and the rounding error that is allowed for in a bound.
_NEVER, _SLACK = 1e30, 1e-6
# Rounds in which short fleets add the signals that show their shortage, and most signals that a round adds.
_ROUNDS, _MORE = 8, 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HourFleets:
    """What is rented in each hour in addition to the reserved instances.

    Parameters
    ----------
    extra
        Instances on demand and on spot together (H, R).
    spot
        How many of these instances are on spot (H, R).
    cost_per_h
        What they cost (H,) [USD/h]; infinite if no fleet was found.
    """

    extra: Array
    spot: Array
    cost_per_h: Array


def cheapest_hours(machines: Machines, signals: Signals, demand: Array, reserved: Array, room: SpotRoom) -> HourFleets:
    """The cheapest one or two machines in addition to the reserved instances, for every hour.

    Parameters
    ----------
    demand
        The traffic's demand for each signal (H, K).
    reserved
        Instances that are paid anyway (R,).
    room
        What may be on spot (H,).
    """
    hours, count = len(demand), len(machines)
    best = HourFleets(extra=np.zeros((hours, count)), spot=np.zeros((hours, count)), cost_per_h=np.full(hours, np.inf))
    need = Need(machines, signals, demand, reserved)
    enough = need.is_met()
    best.cost_per_h[enough] = 0.0
    open_hours = np.flatnonzero(~enough)
    if not len(open_hours):
        return best
    need = Need(machines, signals, demand[open_hours], reserved)
    alone = np.stack([need.of(r) for r in range(count)], axis=1)
    for r in range(count):
        extra = np.zeros((len(open_hours), 1, count))
        extra[:, 0, r] = np.ceil(alone[:, r] - 1e-7)
        _Offer(machines, need, open_hours, room, best).add(extra, r)
    # Each pair once: counts of the more expensive machine are tried, because there are fewer of them.
    cost = machines.on_demand_per_h
    pairs = [
        (first, second)
        for first, second in itertools.permutations(range(count), 2)
        if cost[first] > cost[second] or (cost[first] == cost[second] and first < second)
    ]
    least = _least_of_pairs(machines, need, pairs) - _most_saved(machines, room)[open_hours, None]
    for place, (first, second) in enumerate(pairs):
        may_win = np.flatnonzero(least[:, place] < best.cost_per_h[open_hours])
        if len(may_win):
            part = need.at(may_win)
            fleets = _pairs(machines, part, alone[may_win], first, second)
            _Offer(machines, part, open_hours[may_win], room, best).add(fleets, second)
    return best


def _least_of_pairs(machines: Machines, need: Need, pairs: list[tuple[int, int]]) -> Array:
    """Lower bound on the on-demand cost of two machines in addition to the reserved ones (H, P) [USD/h].

    For each signal alone, the machine with the lower cost per unit of the signal covers what is lacking.
    """
    with np.errstate(divide="ignore"):
        unit = np.where(need.gives > 0, machines.on_demand_per_h / need.gives, _NEVER)
    lacking = need.lacking()
    found = np.empty((len(lacking), len(pairs)))
    for place, (first, second) in enumerate(pairs):
        found[:, place] = (lacking * np.minimum(unit[:, first], unit[:, second])).max(axis=1)
    return found


def _most_saved(machines: Machines, room: SpotRoom) -> Array:
    """Most that spot and a savings plan can take off the on-demand cost of an hour's fleet (H,) [USD/h]."""
    cost = machines.on_demand_per_h
    saved = np.where(np.isfinite(machines.spot_per_h), 1 - machines.spot_per_h / cost, 0.0).max(initial=0.0)
    return np.asarray(saved * room.whole + machines.allowance_per_h + _SLACK * (1 + room.whole))


def _pairs(machines: Machines, need: Need, alone: Array, first: int, second: int) -> Array:
    """Fleets of two machines for each hour (H, _COUNTS, R); nan where there is none."""
    cost = machines.on_demand_per_h
    # The smallest and the largest useful count of the first machine.
    low = need.of(first, only=need.gives[:, second] <= 0)
    high = np.maximum(
        np.where(np.isfinite(alone[:, first]), alone[:, first], need.of(first, only=need.gives[:, first] > 0)),
        np.where(np.isfinite(low), low, 0.0),
    )
    start, end = np.where(np.isfinite(low), low, 0.0), high.copy()
    widest = float((np.ceil(high) - np.floor(start)).max())
    steps = int(np.ceil(np.log(widest / _NEAR) / np.log(1.5))) if widest >= _COUNTS else 0
    beside = need.beside(first, second)
    for _ in range(steps):
        thirds = np.stack([start + (end - start) / 3, end - (end - start) / 3], axis=1)
        total = cost[first] * thirds + cost[second] * beside(thirds)
        is_left = total[:, 0] <= total[:, 1]
        start, end = np.where(is_left, start, thirds[:, 0]), np.where(is_left, thirds[:, 1], end)
    least = np.ceil(np.where(np.isfinite(low), low, 0.0) - 1e-7)
    most = np.ceil(high - 1e-7)
    begin = np.maximum(least, np.minimum(np.floor((start + end) / 2) - _COUNTS // 2 + 1, most - _COUNTS + 1))
    counts = begin[:, None] + np.arange(_COUNTS)
    counts = np.where(counts <= most[:, None], counts, np.nan)
    counts[~np.isfinite(low)] = np.nan
    fleets = np.zeros((len(counts), _COUNTS, len(machines)))
    fleets[:, :, first] = counts
    fleets[:, :, second] = np.ceil(beside(np.nan_to_num(counts)) - 1e-7)
    return fleets


class _Offer:
    """The best fleet of each hour so far, with which other fleets are compared."""

    def __init__(self, machines: Machines, need: Need, hours: Indices, room: SpotRoom, best: HourFleets) -> None:
        self._machines, self._need, self._hours, self._best = machines, need, hours, best
        self._room = room.at(hours)

    def add(self, extra: Array, place: int) -> None:
        """Compare fleets (H, N, R), ignoring those that are not finite. More of machine ``place`` cover lost pools."""
        self._hold(extra)
        spot = self._room.spot
        if spot is not None and spot.spare_pools:
            for more in _STANDING:
                cover = extra.copy()
                cover[:, :, place] += more
                self._hold(cover)

    def _hold(self, extra: Array) -> None:
        machines, best, room = self._machines, self._best, self._room
        is_fleet: Mask = np.asarray(np.isfinite(extra).all(axis=2), bool)
        whole = np.where(is_fleet[:, :, None], extra, 0.0)
        if machines.limits:
            is_fleet &= machines.is_allowed(self._need.reserved + whole)
        spare = None if room.spot is None or not room.spot.spare_pools else self._need.left_over(whole)
        on_spot = split_spot(machines, whole, room, spare)
        cost = np.where(is_fleet, machines.bill_per_h(whole - on_spot, on_spot), np.inf)
        place = cost.argmin(axis=1)
        rows = np.arange(len(cost))
        better = cost[rows, place] < best.cost_per_h[self._hours] - 1e-12
        which = self._hours[better]
        best.cost_per_h[which] = cost[rows, place][better]
        best.extra[which] = whole[rows, place][better]
        best.spot[which] = on_spot[rows, place][better]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckedHours:
    """Fleets of all hours, each of which carries its traffic, and the signals that were needed to find them.

    Parameters
    ----------
    fleets
        What is rented in addition to the reserved instances.
    signals
        All signals, for the next search.
    share
        Fraction of each size that goes to each machine (H, R, B), 0-1.
    """

    fleets: HourFleets
    signals: Signals
    share: Array


def checked_hours(
    machines: Machines, signals: Signals, rates: Array, reserved: Array, spot: Spot | None
) -> CheckedHours:
    """The cheapest fleets of all hours, each checked against its traffic by a separate linear program.

    A short fleet yields a signal that shows the shortage, and all hours are searched again with that signal.
    """
    room = SpotRoom.of(machines, machines.work(rates), spot)
    fits = np.zeros(len(rates), bool)
    share = np.zeros((len(rates), len(machines), rates.shape[1]))
    seen: dict[int, Array] = {}
    fleets = cheapest_hours(machines, signals, signals.demand(rates), reserved, room)
    for _ in range(_ROUNDS):
        short: list[tuple[float, Array]] = []
        for hour in np.flatnonzero(~fits).tolist():
            if not np.isfinite(fleets.cost_per_h[hour]):
                continue
            rented = np.stack([fleets.extra[hour], fleets.spot[hour]])
            seen[hour] = rented.copy()
            peak, price, share[hour] = worst_peak(machines, rates[hour], reserved + rented[0], rented[1], room.spot)
            fits[hour] = peak <= FITS
            if not fits[hour]:
                short.append((peak, price))
        if not short:
            break
        short.sort(key=lambda one: -one[0])
        signals = signals.with_more(machines, np.array([price for _, price in short[:_MORE]]))
        fleets = cheapest_hours(machines, signals, signals.demand(rates), reserved, room)
        for hour in np.flatnonzero(fits).tolist():
            fits[hour] = np.array_equal(seen[hour], np.stack([fleets.extra[hour], fleets.spot[hour]]))
    fleets = _made_up(machines, rates, reserved, fleets, fits, share, room)
    return CheckedHours(fleets=fleets, signals=signals, share=share)


def worst_peak(
    machines: Machines, rates: Array, instances: Array, on_spot: Array, spot: Spot | None
) -> tuple[float, Array, Array]:
    """Like :func:`peak_load`, but also after the loss of each type's spare pools on spot; a peak of 1 is enough."""
    worst = peak_load(machines, rates, instances, enough=1.0)
    if spot is None or not spot.spare_pools:
        return worst
    lost = spot.lost_with_pools(on_spot)
    for r in np.flatnonzero(on_spot > 0).tolist():
        kept = instances - lost * (np.arange(len(machines)) == r)
        peak, price, _ = peak_of(machines, rates, machines.capacity * kept, enough=1.0)
        if peak > worst[0]:
            worst = (peak, price, worst[2])
    return worst


def _made_up(
    machines: Machines,
    rates: Array,
    reserved: Array,
    fleets: HourFleets,
    fits: Mask,
    share: Array,
    room: SpotRoom,
) -> HourFleets:
    """Add on-demand instances one by one to the fleets that are still short, until they carry their traffic."""
    extra, on_spot, cost = fleets.extra.copy(), fleets.spot.copy(), fleets.cost_per_h.copy()
    for hour in np.flatnonzero(~fits & np.isfinite(fleets.cost_per_h)).tolist():
        for _ in range(1000):
            peak, price, share[hour] = worst_peak(
                machines, rates[hour], reserved + extra[hour], on_spot[hour], room.spot
            )
            if peak <= FITS:
                break
            worth = price * machines.capacity / machines.on_demand_per_h
            for r in np.argsort(-worth, kind="stable").tolist():
                more = extra[hour] + np.eye(len(machines))[r]
                if bool(machines.is_allowed(reserved + more)):
                    extra[hour] = more
                    break
            else:
                cost[hour] = np.inf
                break
        if np.isfinite(cost[hour]):
            if room.spot is not None and not room.spot.spare_pools:
                on_spot[hour] = split_spot(machines, extra[[hour], None], room.at(np.array([hour])))[0, 0]
            cost[hour] = machines.bill_per_h(extra[hour] - on_spot[hour], on_spot[hour])
    return replace(fleets, extra=extra, spot=on_spot, cost_per_h=cost)
