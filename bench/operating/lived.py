"""Simulate a week under the controller: cost, requests short by cause, and the controller's log."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from melange.deploy.operate.controller_state import ControllerState
from melange.deploy.operate.decide import Decision, decide
from melange.deploy.operate.drivers.pretend_fleet import Pretended
from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.deploy.operate.observation import Observation
from melange.deploy.operate.operate_settings import OperateSettings
from melange.deploy.operate.operation import Operation
from melange.files import Json
from melange.plan.plan import Plan
from melange.plan.schedule.schedule import Schedule
from melange.units import S_PER_H
from melange.workload.workload import Array
from operating.first_plan import REGIONS
from operating.unreliable_fleet import DRAIN_S, UnreliableFleet

INJECTED = ("refusals", "losses", "types", "region")
LOOK_S = 60.0
TYPES_LOST, TYPE_OUT_S, REGION_OUT_S = 3, 3 * S_PER_H, 2 * S_PER_H
# Requests short are attributed to a lost instance until its replacement can serve: a start-up and two iterations.
_LOOKS_TO_REPLACE = 2
FULL = 1 + 1e-6

SETTINGS = OperateSettings(interval_s=LOOK_S, drain_s=DRAIN_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Options of a simulation.

    Parameters
    ----------
    seed
        Seed of the failures.
    days
        Days of the week; there is no region outage if fewer than seven.
    without
        Failures that are left out.
    settings
        Settings of the controller.
    is_told
        Whether the controller sees the highest traffic until its orders serve, instead of that of the last window.
    """

    seed: int = 1
    days: float = 7
    without: tuple[str, ...] = ()
    settings: OperateSettings = SETTINGS
    is_told: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """The results of a week.

    Parameters
    ----------
    cost_per_h
        Cost of all instances from their order to their end [USD/h].
    short
        Requests above the planned capacity of the serving instances, as a share of all requests.
    short_by_cause
        The same by cause: see :data:`CAUSES`.
    changes_per_h
        Changes of the target fleet in each hour.
    ordered_s
        Time from each loss of a type or region until the target no longer contains it [s].
    carried_s
        Time from each loss until the serving instances carry the traffic again [s].
    log
        Observations and decisions of all iterations with a line of the controller or with requests short.
    """

    cost_per_h: float
    short: float
    short_by_cause: Mapping[str, float]
    changes_per_h: list[int]
    ordered_s: list[float]
    carried_s: list[float]
    log: list[Json]


# Causes of requests short: all during a region outage and until its replacements serve; otherwise the part that the
# instances lost in the last minutes would serve; of the rest, the part that wanted instances will serve once they have
# started; and the remaining part, because more instances were not wanted or not available.
CAUSES = REGION, LOST, STARTING, WANTED = ("region out", "lost", "starting", "not wanted")


class Week:
    """A week under the controller."""

    def __init__(
        self,
        planner: FleetPlanner,
        plan: Plan,
        schedule: Schedule | None,
        rates: Array,
        window_s: float,
        chosen: Chosen,
    ) -> None:
        self.planner, self.rates, self.window_s, self.chosen = planner, rates, window_s, chosen
        operation = Operation(plan=plan, schedule=schedule)
        self.settings = operation.settings(chosen.settings)
        self.brief = replace(operation.brief(self.settings), planner=planner)
        self.fleet = UnreliableFleet(self.settings.start_up_s, chosen.seed, chosen.without)
        self.random = random.Random(chosen.seed + 1)
        self.shorts: dict[tuple[int, tuple[tuple[str, int], ...]], float] = {}
        self.per_window = int(window_s / LOOK_S)
        self.looks = int(len(rates) * window_s / LOOK_S)
        self.lost: list[tuple[int, str]] = []
        self.region_until = -1
        self.replaced = int(self.settings.start_up_s / LOOK_S) + _LOOKS_TO_REPLACE

    def live(self) -> Lived:
        """Run one iteration per minute, and count cost and requests short."""
        hits = self._hits()
        state, paid, total = ControllerState(), 0.0, 0.0
        short = dict.fromkeys(CAUSES, 0.0)
        changes = [0] * (self.looks // 60 + 1)
        wanted, carried = _Waiting(), _Waiting()
        log: list[Json] = []
        warm = 10  # the fleet starts before the week begins
        for look in range(-warm, self.looks):
            now_s = 1e9 + look * LOOK_S
            before = self.fleet.instances
            if look >= 0:
                self.fleet.age(LOOK_S)
            hit = hits[look](now_s) if look in hits else set()
            self._remember(look, before)
            wanted.add(now_s, hit)
            carried.add(now_s, hit)
            seen = Observation(at_s=now_s, fleet=self.fleet.look(now_s), request_rate=self._seen(look))
            decision = decide(self.brief, state, seen)
            state = decision.state
            self.fleet.take(decision.steps, now_s)
            if look < 0:
                continue
            changes[look // 60] += decision.is_changed
            window = look // self.per_window
            ready = {name: one.ready for name, one in seen.fleet.items() if one.ready}
            target = {name: count for name, count in (state.target or {}).items() if count}
            requests = float(self.rates[window].sum())
            parts = self._excess(look, window, ready, target)
            total += requests
            for cause, part in parts.items():
                short[cause] += requests * part
            wanted.done(now_s, partial(_is_replaced, target))
            carried.done(now_s, partial(_is_carried, parts))
            paid += sum(self.planner.cost_per_h[one.replica_type] for one in self.fleet.instances) * LOOK_S / S_PER_H
            if decision.lines or any(parts.values()) or hit:
                log.append(_logged(look, hit, decision, ready, target, parts))
        return Lived(
            cost_per_h=paid / (self.looks * LOOK_S / S_PER_H),
            short=sum(short.values()) / total,
            short_by_cause={cause: part / total for cause, part in short.items()},
            changes_per_h=changes[: self.looks // 60],
            ordered_s=wanted.all_s(),
            carried_s=carried.all_s(),
            log=log,
        )

    def _hits(self) -> dict[int, Callable[[float], set[str]]]:
        """The injected losses, by iteration."""
        days, without = self.chosen.days, self.chosen.without
        hits = [
            (self.random.randrange(self.looks), "types", self._lose_type) for _ in range(round(TYPES_LOST * days / 7))
        ]
        if days >= 7:
            hits.append((self.random.randrange(self.looks), "region", self._lose_region))
        return {look: lose for look, kind, lose in hits if kind not in without}

    def _remember(self, look: int, before: tuple[Pretended, ...]) -> None:
        """Record the serving or starting instances that were lost in the last minutes."""
        latest = look - self.replaced
        gone = Counter(one.replica_type for one in before) - Counter(one.replica_type for one in self.fleet.instances)
        self.lost = [one for one in self.lost if one[0] >= latest] + [(look, name) for name in gone.elements()]

    def _seen(self, look: int) -> Array:
        """The traffic that the controller observes."""
        lately = int(self.settings.window_s / LOOK_S)
        minutes = range(look - lately, look)
        if self.chosen.is_told:
            minutes = range(look, look + int(self.settings.start_up_s / LOOK_S) + lately + 1)
        windows = [min(max(0, k) // self.per_window, len(self.rates) - 1) for k in minutes]
        parts = self.rates[windows]
        if self.chosen.is_told:
            work = (parts * self.planner.work).sum(axis=(1, 2))
            return np.asarray(parts[int(work.argmax())])
        return np.asarray(parts.mean(axis=0))

    def _excess(self, look: int, window: int, ready: Mapping[str, int], target: Mapping[str, int]) -> dict[str, float]:
        """The share of a minute's requests short, by cause."""
        whole = self._short(window, ready)
        if not whole:
            return dict.fromkeys(CAUSES, 0.0)
        if look <= self.region_until:
            return dict.fromkeys(CAUSES, 0.0) | {REGION: whole}
        restored = Counter(ready) + Counter(name for _, name in self.lost)
        unlost = min(whole, self._short(window, restored))
        complete = {name: max(restored.get(name, 0), target.get(name, 0)) for name in {*restored, *target}}
        wanted = min(unlost, self._short(window, complete))
        return {REGION: 0.0, LOST: whole - unlost, STARTING: unlost - wanted, WANTED: wanted}

    def _short(self, window: int, fleet: Mapping[str, int]) -> float:
        """The share of a window's requests above a fleet's capacity, including sizes that it does not serve."""
        key = (window, tuple(sorted(fleet.items())))
        if key not in self.shorts:
            rate = self.planner.seen(self.rates[window])
            used = [r for r, one in enumerate(self.planner.types) if fleet.get(one.name)]
            is_served = (self.planner.question.profile.max_request_rate[used] > 0).any(axis=0)
            served = np.where(is_served, rate, 0.0)
            peak = self.planner.peak(fleet, served)
            part = float(served.sum() / rate.sum()) if rate.any() else 1.0
            self.shorts[key] = 1.0 - part / max(peak, 1.0) if peak > FULL or part < 1 else 0.0
        return self.shorts[key]

    def _lose_type(self, now_s: float) -> set[str]:
        """Lose the type with the most instances."""
        names = [one.replica_type for one in self.fleet.instances]
        lost = {max(sorted(set(names)), key=names.count)} if names else set()
        self.fleet.lose(lost, now_s + TYPE_OUT_S)
        return lost

    def _lose_region(self, now_s: float) -> set[str]:
        """Lose the region with the most instances."""
        types = self.planner.types_by_name
        regions = [types[one.replica_type].offer.region for one in self.fleet.instances]
        worst = max(sorted(set(regions)), key=regions.count) if regions else REGIONS[0]
        lost = {name for name, one in types.items() if one.offer.region == worst}
        running = {one.replica_type for one in self.fleet.instances}
        self.fleet.lose(lost, now_s + REGION_OUT_S)
        self.region_until = round((now_s + REGION_OUT_S - 1e9) / LOOK_S) + self.replaced
        return lost & running


def _is_replaced(target: Mapping[str, int], lost: set[str]) -> bool:
    return not lost & target.keys()


def _is_carried(parts: Mapping[str, float], _: set[str]) -> bool:
    return not sum(parts.values())


class _Waiting:
    """Losses that are waiting for an event, and the times until the event after earlier losses."""

    def __init__(self) -> None:
        self.open: list[tuple[float, set[str]]] = []
        self.closed_s: list[float] = []

    def add(self, now_s: float, lost: set[str]) -> None:
        """Add a loss."""
        if lost:
            self.open.append((now_s, lost))

    def done(self, now_s: float, is_done: Callable[[set[str]], bool]) -> None:
        """Close the losses after which the event has happened by now."""
        self.closed_s += [now_s - since_s for since_s, lost in self.open if is_done(lost)]
        self.open = [one for one in self.open if not is_done(one[1])]

    def all_s(self) -> list[float]:
        """Time from each loss to its event [s]; infinite if it never happened."""
        return self.closed_s + [float("inf")] * len(self.open)


def _logged(
    look: int,
    hit: set[str],
    decision: Decision,
    ready: Mapping[str, int],
    target: Mapping[str, int],
    parts: Mapping[str, float],
) -> Json:
    """One iteration as a JSON object."""
    return {
        "hour": round(look / 60, 3),
        "lost": sorted(hit),
        "said": list(decision.lines),
        "serving": dict(ready),
        "wanted": dict(target),
        "in_excess": {cause: round(part, 5) for cause, part in parts.items() if part},
    }
