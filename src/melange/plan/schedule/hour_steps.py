"""Cost of an hour as a function of the additional work that it takes: one step for each larger fleet.

Arrays have the axes (hour H, machine R, bucket B).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.plan.schedule.contracts import Spot
from melange.plan.schedule.hours import cheapest_hours
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.signals import Signals
from melange.plan.schedule.spot_room import SpotRoom
from melange.workload.demand import Indices
from melange.workload.workload import Array, Mask

# Steps of an hour over the whole range of additional work; the first ones have no minimum distance, so that small
# fleets miss none. Then the steps around the work that the hour already takes, and their minimum distance as a share of
# the range.
_STEPS, _AS_THEY_COME = 14, 6
_AROUND, _FINE = 6, 0.0167
_EPS = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HourSteps:
    """Fleets of hours by the additional work that they take; each one costs more and takes more than the one before.

    Parameters
    ----------
    hour
        Hour of each step (J,), ascending.
    room
        Additional work that the fleet takes (J,) [USD/h].
    cost_per_h
        Cost of the fleet on top of what is paid anyway (J,) [USD/h].
    """

    hour: Indices
    room: Array
    cost_per_h: Array


def hour_steps(
    machines: Machines,
    signals: Signals,
    rates: Array,
    mix: Array,
    reserved: Array,
    spot: Spot | None,
    most: Array,
    sent: Array,
) -> HourSteps:
    """The steps of all hours, in addition to reserved instances.

    Parameters
    ----------
    rates
        The hours' own traffic (H, B) [1/s].
    mix
        Rate of each size in a unit of the additional work (H, B).
    most
        Most additional work that each hour may have to take (H,) [USD/h].
    sent
        Additional work that each hour takes in the known placement (H,) [USD/h].
    """
    most = np.maximum(most, _EPS)
    climb = _Climb(machines, signals, rates, mix, reserved, spot, most)
    climb.from_level(np.zeros(len(rates)), _STEPS, _AS_THEY_COME, most / (_STEPS - _AS_THEY_COME))
    fine = _FINE * most
    # The known placement is a level too, so that it is among the choices.
    climb.from_level(np.minimum(sent, most), 1, 0, fine)
    climb.from_level(np.clip(sent - _AROUND / 2 * fine, 0.0, most), _AROUND, 0, fine)
    return climb.steps()


class _Climb:
    """Fleets of hours; each one starts at the work that the one before could not take."""

    def __init__(
        self,
        machines: Machines,
        signals: Signals,
        rates: Array,
        mix: Array,
        reserved: Array,
        spot: Spot | None,
        most: Array,
    ) -> None:
        self._machines, self._signals, self._reserved = machines, signals, reserved
        self._spot, self._most = spot, most
        self._work, self._work_each = machines.work(rates), machines.work(mix)
        self._own, self._each = signals.demand(rates), signals.demand(mix)
        self._found: list[tuple[Indices, Array, Array]] = []

    def from_level(self, level: Array, count: int, as_they_come: int, grain: Array) -> None:
        """Add ``count`` fleets of each hour from a level (H,) on; after the first, at least ``grain`` (H,) apart."""
        level, waits, most = level.copy(), np.ones(len(level), bool), self._most
        for step in range(count):
            where = np.flatnonzero(waits)
            if not len(where):
                break
            holds, is_fleet = self._fleets(where, level[where])
            waits[where] = is_fleet & (holds < most[where] - _EPS)
            least = level[where] + (0.0 if step < as_they_come else 1.0) * grain[where]
            level[where] = np.minimum(np.maximum(holds * (1 + _EPS) + _EPS, least), most[where])

    def _fleets(self, where: Indices, level: Array) -> tuple[Array, Mask]:
        """Most work that the cheapest fleets for a level of work take (H,), and whether there are such fleets."""
        machines, signals = self._machines, self._signals
        room = SpotRoom.of(machines, self._work[where] + level * self._work_each[where], self._spot)
        demand = self._own[where] + level[:, None] * self._each[where]
        fleets = cheapest_hours(machines, signals, demand, self._reserved, room)
        given = _given(machines, signals, self._reserved + fleets.extra)
        with np.errstate(divide="ignore", invalid="ignore"):
            holds = np.where(self._each[where] > 0, (given - self._own[where]) / self._each[where], np.inf).min(axis=1)
        holds = np.clip(holds, level, np.maximum(self._most[where], level))
        is_fleet: Mask = np.asarray(np.isfinite(fleets.cost_per_h), bool)
        self._found.append((where[is_fleet], holds[is_fleet], fleets.cost_per_h[is_fleet]))
        return holds, is_fleet

    def steps(self) -> HourSteps:
        """All steps that were found, without those that another step dominates."""
        return _rising(*(np.concatenate(part) for part in zip(*self._found, strict=True)))


def hull_of(steps: HourSteps) -> HourSteps:
    """The steps on the lower convex hull of their hour: a program with fractional fleets needs no others."""
    kept: list[int] = []
    begin = 0  # of the hour's steps in ``kept``
    for j, (hour, room, cost) in enumerate(
        zip(steps.hour.tolist(), steps.room.tolist(), steps.cost_per_h.tolist(), strict=True)
    ):
        if not kept or steps.hour[kept[-1]] != hour:
            begin = len(kept)
        while len(kept) - begin >= 2:
            a, b = kept[-2], kept[-1]
            if (cost - steps.cost_per_h[a]) * (steps.room[b] - steps.room[a]) > (
                steps.cost_per_h[b] - steps.cost_per_h[a]
            ) * (room - steps.room[a]):
                break
            kept.pop()
        kept.append(j)
    return HourSteps(hour=steps.hour[kept], room=steps.room[kept], cost_per_h=steps.cost_per_h[kept])


def _given(machines: Machines, signals: Signals, fleets: Array) -> Array:
    """What fleets (H, R) give to each signal after any loss of replicas (H, K)."""
    if machines.spare_total > 0:
        return np.stack([signals.given(machines, fleet) for fleet in fleets])
    return np.asarray(machines.carried(fleets) @ signals.price.T)


def _rising(hour: Indices, room: Array, cost: Array) -> HourSteps:
    """The steps without those that cost no less and take no more than another step of the same hour."""
    order = np.lexsort((cost, -room, hour))
    kept: list[int] = []
    last_hour, least = -1, np.inf
    for j in order.tolist():  # in each hour, the step with the most room first
        if hour[j] != last_hour:
            last_hour, least = int(hour[j]), np.inf
        if cost[j] < least - _EPS:
            kept.append(j)
            least = float(cost[j])
    chosen = np.array(kept, np.int64)
    chosen = chosen[np.lexsort((cost[chosen], hour[chosen]))]
    return HourSteps(hour=hour[chosen], room=room[chosen], cost_per_h=cost[chosen])
