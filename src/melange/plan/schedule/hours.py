"""Each hour by itself: the cheapest instances beside those that are paid anyway, over all hours at once.

Fleets of one or two machines beside the reserved ones are looked at; the count of the second follows from that of the
first by the signals. Arrays have the axes (hour H, machine R).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from melange.plan.schedule.contracts import Spot
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.signals import FITS, Signals, peak_load
from melange.workload.demand import Indices
from melange.workload.workload import Array, Mask

# Counts of the first of two machines that are looked at: all of them in small fleets, and around the best split without
# whole instances in large ones.
_COUNTS = 12
# That split is found to within this many instances; each step leaves two thirds of the range.
_NEAR = 2.0
_EPS = 1e-9
# Rounds in which fleets that fell short add the signals which say so, and signals that each adds at most.
_ROUNDS, _MORE = 8, 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HourFleets:
    """What is rented in each hour besides the reserved instances.

    Parameters
    ----------
    extra
        Instances on demand and on spot together (H, R).
    spot
        Those of them on spot (H, R).
    cost_per_h
        What they cost (H,) [USD/h]; infinite where none was found.
    """

    extra: Array
    spot: Array
    cost_per_h: Array


def spot_room(machines: Machines, work: Array, spot: Spot | None) -> tuple[Array, Array]:
    """How much of an hour may be on spot, in all and of one machine (H,), at on-demand prices [USD/h]."""
    if spot is None or not np.isfinite(machines.spot_per_h).any():
        return np.zeros(len(work)), np.zeros(len(work))
    return spot.max_share * work, min(spot.max_share, spot.max_share_per_pool * spot.zones) * work


def split_spot(machines: Machines, extra: Array, room: Array, room_each: Array) -> Array:
    """How many of some instances (..., R) are on spot: as much as there is room for, the largest savings first."""
    cost, saved = machines.on_demand_per_h, machines.on_demand_per_h - machines.spot_per_h
    on_spot = np.zeros_like(extra)
    left = np.array(np.broadcast_to(room, extra.shape[:-1]), float)
    for r in np.argsort(-saved / cost, kind="stable"):
        if not (np.isfinite(saved[r]) and saved[r] > 0):
            continue
        most = np.floor(np.minimum(left, room_each) / cost[r] + _EPS)
        on_spot[..., r] = np.minimum(extra[..., r], most)
        left -= cost[r] * on_spot[..., r]
    return on_spot


def cheapest_hours(
    machines: Machines, signals: Signals, demand: Array, reserved: Array, room: Array, room_each: Array
) -> HourFleets:
    """The cheapest one or two machines beside the reserved instances, for every hour.

    Parameters
    ----------
    demand
        What the traffic takes of each signal (H, K).
    reserved
        Instances that are paid anyway (R,).
    room, room_each
        As of :func:`spot_room` (H,).
    """
    gives = signals.per_instance(machines)
    lack = demand - gives @ reserved
    hours, count = len(demand), len(machines)
    best = HourFleets(extra=np.zeros((hours, count)), spot=np.zeros((hours, count)), cost_per_h=np.full(hours, np.inf))
    enough = (lack <= _EPS * np.maximum(demand, 1e-30)).all(axis=1)
    best.cost_per_h[enough] = 0.0
    alone = np.stack([_alone(lack, gives[:, r]) for r in range(count)], axis=1)
    offer = _Offer(machines, reserved, room, room_each, best)
    open_hours = np.flatnonzero(~enough)
    if not len(open_hours):
        return best
    for r in range(count):
        extra = np.zeros((len(open_hours), 1, count))
        extra[:, 0, r] = np.ceil(alone[open_hours, r] - 1e-7)
        offer.add(open_hours, extra)
    for first, second in itertools.permutations(range(count), 2):
        if machines.on_demand_per_h[first] < machines.on_demand_per_h[second] or (
            machines.on_demand_per_h[first] == machines.on_demand_per_h[second] and first > second
        ):
            continue  # each pair once: the count of the more expensive one is looked at, which has fewer of them
        offer.add(open_hours, _pairs(machines, lack[open_hours], gives, alone[open_hours], first, second))
    return best


def _alone(lack: Array, gives: Array) -> Array:
    """Instances of one machine that make up what is lacking (H,), in parts; infinite where it cannot."""
    with np.errstate(divide="ignore", invalid="ignore"):
        need = np.where(lack > 0, lack / gives, 0.0)
    return np.asarray(need.max(axis=1))


def _pairs(machines: Machines, lack: Array, gives: Array, alone: Array, first: int, second: int) -> Array:
    """Fleets of two machines for each hour (H, _COUNTS, R); nan where there is none."""
    cost = machines.on_demand_per_h
    only_first = gives[:, second] <= 0
    # The least and the most of the first that make sense.
    low = _alone(lack[:, only_first], gives[only_first, first]) if only_first.any() else np.zeros(len(lack))
    with np.errstate(divide="ignore", invalid="ignore"):
        high = np.where((lack > 0) & (gives[:, first] > 0), lack / gives[:, first], 0.0).max(axis=1)
    high = np.maximum(
        np.where(np.isfinite(alone[:, first]), alone[:, first], high), np.where(np.isfinite(low), low, 0.0)
    )

    def needed(counts: Array) -> Array:
        """Of the second, in parts, beside counts of the first (H, ...)."""
        rest = lack[:, None, :] - counts[:, :, None] * gives[:, first]
        with np.errstate(divide="ignore", invalid="ignore"):
            need = np.where(rest > _EPS * lack[:, None, :], rest / gives[:, second], 0.0)
        return np.asarray(need.max(axis=2))

    start, end = np.where(np.isfinite(low), low, 0.0), high.copy()
    widest = float((np.ceil(high) - np.floor(start)).max())
    steps = int(np.ceil(np.log(widest / _NEAR) / np.log(1.5))) if widest >= _COUNTS else 0
    for _ in range(steps):
        thirds = np.stack([start + (end - start) / 3, end - (end - start) / 3], axis=1)
        total = cost[first] * thirds + cost[second] * needed(thirds)
        is_left = total[:, 0] <= total[:, 1]
        start, end = np.where(is_left, start, thirds[:, 0]), np.where(is_left, thirds[:, 1], end)
    least = np.ceil(np.where(np.isfinite(low), low, 0.0) - 1e-7)
    most = np.ceil(high - 1e-7)
    begin = np.maximum(least, np.minimum(np.floor((start + end) / 2) - _COUNTS // 2 + 1, most - _COUNTS + 1))
    counts = begin[:, None] + np.arange(_COUNTS)
    counts = np.where(counts <= most[:, None], counts, np.nan)
    counts[~np.isfinite(low)] = np.nan
    fleets = np.zeros((len(lack), _COUNTS, len(machines)))
    fleets[:, :, first] = counts
    fleets[:, :, second] = np.ceil(needed(np.nan_to_num(counts)) - 1e-7)
    return fleets


class _Offer:
    """The best fleet of each hour so far, to which others are held."""

    def __init__(self, machines: Machines, reserved: Array, room: Array, room_each: Array, best: HourFleets) -> None:
        self._machines, self._reserved, self._best = machines, reserved, best
        self._room, self._room_each = room, room_each

    def add(self, hours: Indices, extra: Array) -> None:
        """Fleets (H, N, R) of some hours; those that are not finite are none."""
        machines, best = self._machines, self._best
        is_fleet: Mask = np.asarray(np.isfinite(extra).all(axis=2), bool)
        whole = np.where(is_fleet[:, :, None], extra, 0.0)
        if machines.limits:
            is_fleet &= machines.is_allowed(self._reserved + whole)
        on_spot = split_spot(machines, whole, self._room[hours][:, None], self._room_each[hours][:, None])
        saved = np.where(on_spot > 0, machines.on_demand_per_h - machines.spot_per_h, 0.0) * on_spot
        cost = np.where(is_fleet, whole @ machines.on_demand_per_h - saved.sum(axis=2), np.inf)
        place = cost.argmin(axis=1)
        rows = np.arange(len(hours))
        better = cost[rows, place] < best.cost_per_h[hours] - 1e-12
        which = hours[better]
        best.cost_per_h[which] = cost[rows, place][better]
        best.extra[which] = whole[rows, place][better]
        best.spot[which] = on_spot[rows, place][better]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckedHours:
    """Fleets of all hours, each of which carries its traffic, and the signals that it took to find them.

    Parameters
    ----------
    fleets
        What is rented besides the reserved instances.
    signals
        All of them, for the next search.
    share
        Fraction of each size that goes to each machine (H, R, B), 0-1.
    """

    fleets: HourFleets
    signals: Signals
    share: Array


def checked_hours(
    machines: Machines, signals: Signals, rates: Array, reserved: Array, spot: Spot | None
) -> CheckedHours:
    """The cheapest fleets of all hours, each held to its traffic by a linear program of its own.

    A fleet that falls short names the signal that says so, and all hours are looked at again with it.
    """
    work = machines.work(rates)
    room, room_each = spot_room(machines, work, spot)
    fits = np.zeros(len(rates), bool)
    share = np.zeros((len(rates), len(machines), rates.shape[1]))
    seen: dict[int, Array] = {}
    fleets = cheapest_hours(machines, signals, signals.demand(rates), reserved, room, room_each)
    for _ in range(_ROUNDS):
        short: list[tuple[float, Array]] = []
        for hour in np.flatnonzero(~fits).tolist():
            if not np.isfinite(fleets.cost_per_h[hour]):
                continue
            seen[hour] = fleets.extra[hour].copy()
            peak, price, share[hour] = peak_load(machines, rates[hour], reserved + fleets.extra[hour])
            fits[hour] = peak <= FITS
            if not fits[hour]:
                short.append((peak, price))
        if not short:
            break
        short.sort(key=lambda one: -one[0])
        signals = signals.with_more(machines, np.array([price for _, price in short[:_MORE]]))
        fleets = cheapest_hours(machines, signals, signals.demand(rates), reserved, room, room_each)
        for hour in np.flatnonzero(fits).tolist():
            fits[hour] = np.array_equal(seen[hour], fleets.extra[hour])
    fleets = _made_up(machines, rates, reserved, fleets, fits, share, room, room_each)
    return CheckedHours(fleets=fleets, signals=signals, share=share)


def _made_up(
    machines: Machines,
    rates: Array,
    reserved: Array,
    fleets: HourFleets,
    fits: Mask,
    share: Array,
    room: Array,
    room_each: Array,
) -> HourFleets:
    """Fleets that still fall short, with instances added one by one until they do not."""
    extra, on_spot, cost = fleets.extra.copy(), fleets.spot.copy(), fleets.cost_per_h.copy()
    for hour in np.flatnonzero(~fits & np.isfinite(fleets.cost_per_h)).tolist():
        for _ in range(1000):
            peak, price, share[hour] = peak_load(machines, rates[hour], reserved + extra[hour])
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
            on_spot[hour] = split_spot(machines, extra[hour], room[hour], room_each[hour])
            saved = np.where(on_spot[hour] > 0, machines.on_demand_per_h - machines.spot_per_h, 0.0) * on_spot[hour]
            cost[hour] = extra[hour] @ machines.on_demand_per_h - saved.sum()
    return replace(fleets, extra=extra, spot=on_spot, cost_per_h=cost)
