"""A week operated by the controller: ServeGen's services, with failed starts, lost instances and a region that is out.

    python bench/operate.py ../shared/data/traces                # all three, an hour of CPU
    python bench/operate.py ../shared/data/traces --only m-small --seed 2 --every 6
    python bench/operate.py ../shared/data/traces --only m-mid --without region     # what an injected failure costs
    python bench/operate.py ../shared/data/traces --schedule 0.01    # by the rule that the back-test chose on week one

The second week of a service is lived through on paper, a look a minute: the controller sees the traffic of its last two
minutes and the fleet, and what it orders starts five minutes later. Injected: of ten orders one is refused and the type
is out of stock for half an hour; an instance is lost every two days of its life; three times a week all instances of
the most numerous type are lost and the type has no stock for three hours; once the region with the most instances has
neither instances nor stock for two hours.

Requests in excess are those beyond what the fleet that serves carries at its planned capacity, headroom kept, all sizes
alike. Beside the controller, on the same week: the clairvoyant, who has the cheapest whole fleet in every window, pays
no start and loses nothing; and a reactive autoscaler of the best single type on request rate (HPA: the last five
minutes, down after five), which loses nothing either, at the target that leaves as many requests in excess, chosen with
hindsight.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import melange
import week
from melange.deploy.operate.controller_state import ControllerState
from melange.deploy.operate.decide import decide
from melange.deploy.operate.drivers.pretend_fleet import PretendFleet
from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.deploy.operate.observation import Observation
from melange.deploy.operate.operate_settings import OperateSettings
from melange.deploy.operate.operation import Operation
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.schedule.contracts import ScheduleOptions
from melange.plan.schedule.plan_over_time import plan_over_time
from melange.plan.schedule.schedule import Schedule
from melange.profile.profile import ReplicaType
from melange.units import S_PER_H
from melange.workload.workload import Array

INJECTED = ("refusals", "losses", "types", "region")
SERVICES = ("language/m-large", "language/m-mid", "language/m-small")
REGIONS = ("us-east-1", "us-west-2")
LOOK_S, DRAIN_S = 60.0, 60.0
REFUSED, OUT_OF_STOCK_S = 0.1, 1800.0
LOST_EVERY_S, TYPES_LOST, TYPE_OUT_S, REGION_OUT_S = 48 * S_PER_H, 3, 3 * S_PER_H, 2 * S_PER_H


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """What a week came to."""

    cost_per_h: float
    short: float
    changes_per_h: list[int]
    recovered_s: list[float]


def main() -> None:
    """Print a line a service."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of servegen_rates_600s.csv.gz and servegen_hist_6h.csv.gz")
    parser.add_argument("--only", default="", help="services whose name holds this")
    parser.add_argument("--seed", type=int, default=1, help="of what fails")
    parser.add_argument("--target", type=float, default=0.0, help="target load of the rule; 0: the default")
    parser.add_argument("--every", type=int, default=1, help="the clairvoyant plans each Nth window")
    parser.add_argument("--without", choices=INJECTED, action="append", default=[], help="a failure that is left out")
    parser.add_argument(
        "--schedule", type=float, default=0.0, help="follow a schedule made for this share of requests short"
    )
    parser.add_argument("--days", type=int, default=7, help="of the week; of fewer the region is not lost")
    parser.add_argument(
        "--start-up", type=float, default=0.0, help="seconds from an order to an instance's first request"
    )
    arguments = parser.parse_args()
    print("service               clairvoyant  controller      x  in excess  changes/h median, mean, most  recovery [s]"
          "  autoscaler      x")  # fmt: skip
    for name in SERVICES:
        if arguments.only in name:
            study(name, arguments)


def study(name: str, arguments: argparse.Namespace) -> None:
    """One service."""
    demand = week.read(arguments.data, name)
    half = len(demand) // 2
    rates = demand.rates().reshape(len(demand), *demand.buckets.shape)
    rates = rates[~np.isnan(rates).any(axis=(1, 2))]
    half = len(rates) // 2
    plan = first_plan(name, demand, rates[half - 6 : half].mean(axis=0))
    planner = FleetPlanner(plan)
    week_rates = rates[half : half + int(arguments.days * 24 * S_PER_H / demand.window_s)]
    known = [planner.cost(planner.cheapest(planner.seen(one)) or {}) for one in week_rates[:: arguments.every]]
    clairvoyant = statistics.fmean(known)
    schedule = None
    if arguments.schedule:
        wanted = ScheduleOptions(short_fraction=arguments.schedule)
        past = demand.part(0, len(demand) // 2)
        schedule = plan_over_time(past, plan.question.profile, Options(drop_unservable=True), wanted)
        assert schedule.rule is not None
        print(f"{name}: {schedule.rule.replica_type}: {schedule.rule.settings.words}")
    lived = Week(planner, plan, schedule, week_rates, demand.window_s, arguments).live()
    single, cost = reactive(planner, week_rates, demand.window_s, lived.short)
    median, mean = statistics.median(lived.changes_per_h), statistics.fmean(lived.changes_per_h)
    print(
        f"{name:20s}  {clairvoyant:11.2f}  {lived.cost_per_h:10.2f}  {lived.cost_per_h / clairvoyant:5.3f}"
        f"  {lived.short:9.2%}  {median:16.1f}, {mean:4.2f}, {max(lived.changes_per_h):4d}"
        f"  {max(lived.recovered_s, default=0.0):12.0f}  {cost:10.2f}  {cost / clairvoyant:5.3f}  {single}",
        flush=True,
    )


def first_plan(name: str, demand: object, rate: Array) -> Plan:
    """The plan of the last hour of the first week, on the types that any of some windows would use, in two regions."""
    model, slo = week.SERVICES[name]
    offers = melange.load_catalog().select(providers=["aws"], markets=["on-demand"], regions=list(REGIONS)).offers
    workload = demand.workload()
    rates = demand.rates().reshape(-1, *demand.buckets.shape)
    found = melange.estimate(melange.find_model(model), offers, slo, workload)
    options = Options(drop_unservable=True)
    used: dict[str, None] = {}
    # The best types, and, without their accelerators, those that would stand in for them.
    for excluded in range(3):
        best: dict[str, None] = {}
        for one in rates[:: len(rates) // 8]:
            if not np.isfinite(one).all():
                continue
            question = Question(workload=replace(workload, request_rate=one), profile=found, options=options)
            plan = melange.solve(question)
            best |= {n: None for n, count in plan.instances_by_name.items() if count}
        used |= best
        accelerators = {one.offer.accelerator for one in found.replica_types if one.name in best}
        if excluded < 2:
            options = replace(options, exclude=tuple({*options.exclude, *accelerators}))
    shapes = {
        (one.offer.instance_type, one.tensor_parallel, one.variant) for one in found.replica_types if one.name in used
    }
    kept = [
        r
        for r, one in enumerate(found.replica_types)
        if (one.offer.instance_type, one.tensor_parallel, one.variant) in shapes
    ]
    profile = replace(
        found,
        replica_types=tuple(found.replica_types[r] for r in kept),
        engines=tuple(found.engines[r] for r in kept) if found.engines else (),
        **{key: getattr(found, key)[kept] for key in ("max_request_rate", "low", "high", "provenance", "reason")},
    )
    return melange.solve(
        Question(workload=replace(workload, request_rate=rate), profile=profile, options=Options(drop_unservable=True))
    )


def _shape(one: ReplicaType) -> tuple[str, int, str]:
    """What is the same in every region."""
    return one.offer.instance_type, one.tensor_parallel, one.variant


class UnreliableFleet(PretendFleet):
    """A fleet on paper: orders are refused, instances are lost, types and a region run out of stock."""

    def __init__(self, start_up_s: float, seed: int, without: Sequence[str]) -> None:
        super().__init__(start_up_s, DRAIN_S)
        self.random, self.without = random.Random(seed), without
        self.gone: dict[str, float] = {}

    def refuses(self, name: str, now_s: float) -> str:
        """Out of stock, by chance or since it was lost."""
        if now_s < self.gone.get(name, 0.0):
            return "out of stock"
        if "refusals" not in self.without and self.random.random() < REFUSED:
            self.gone[name] = now_s + OUT_OF_STOCK_S
            return "out of stock"
        return ""

    def age(self, length_s: float) -> None:
        """Lose some instances."""
        if "losses" in self.without:
            return
        self.instances = tuple(one for one in self.instances if self.random.random() > length_s / LOST_EVERY_S)

    def lose(self, names: set[str], until_s: float) -> None:
        """Lose all instances of types, which have no stock for some time."""
        self.gone |= dict.fromkeys(names, until_s)
        self.instances = tuple(one for one in self.instances if one.replica_type not in names)


class Week:
    """A week under the controller."""

    def __init__(
        self,
        planner: FleetPlanner,
        plan: Plan,
        schedule: Schedule | None,
        rates: Array,
        window_s: float,
        arguments: argparse.Namespace,
    ) -> None:
        self.planner, self.rates, self.window_s = planner, rates, window_s
        settings = OperateSettings(interval_s=LOOK_S, drain_s=DRAIN_S)
        if arguments.target:
            settings = replace(settings, rule=replace(settings.rule, target=arguments.target))
        if arguments.start_up:
            settings = replace(settings, start_up_s=arguments.start_up)
        operation = Operation(plan=plan, schedule=schedule)
        self.settings = operation.settings(settings)
        self.brief = replace(operation.brief(self.settings), planner=planner)
        self.fleet = UnreliableFleet(self.settings.start_up_s, arguments.seed, arguments.without)
        self.without, self.days = arguments.without, arguments.days
        self.random = random.Random(arguments.seed + 1)
        self.peaks: dict[tuple[int, tuple[tuple[str, int], ...]], float] = {}

    def live(self) -> Lived:
        """Look every minute, and count what is paid and what is in excess."""
        looks = int(len(self.rates) * self.window_s / LOOK_S)
        per_window = int(self.window_s / LOOK_S)
        lost = round(TYPES_LOST * self.days / 7)
        hits = [(self.random.randrange(looks), "types", self._lose_type) for _ in range(lost)]
        if self.days >= 7:
            hits.append((self.random.randrange(looks), "region", self._lose_region))
        hit = {look: lose for look, kind, lose in hits if kind not in self.without}
        state, paid, short, total = ControllerState(), 0.0, 0.0, 0.0
        changes = [0] * (looks // 60 + 1)
        waiting: list[tuple[float, set[str]]] = []
        recovered: list[float] = []
        warm = 10  # the fleet comes up before the week begins
        for look in range(-warm, looks):
            now_s = 1e9 + look * LOOK_S
            window = max(look, 0) // per_window
            if look >= 0:
                self.fleet.age(LOOK_S)
            if look in hit and (lost := hit[look](now_s)):
                waiting.append((now_s, lost))
            rate = self.rates[max(0, look - 1) // per_window]
            lately = int(self.settings.window_s / LOOK_S)
            parts = [self.rates[max(0, k) // per_window] for k in range(look - lately, look)]
            rate = np.mean(parts, axis=0)
            seen = Observation(at_s=now_s, fleet=self.fleet.look(now_s), request_rate=rate)
            decision = decide(self.brief, state, seen)
            state = decision.state
            self.fleet.take(decision.steps, now_s)
            if look < 0:
                continue
            changes[look // 60] += decision.is_changed
            for since_s, lost in tuple(waiting):
                if not lost & {name for name, count in (state.target or {}).items() if count}:
                    waiting.remove((since_s, lost))
                    recovered.append(now_s - since_s)
            ready = {name: one.ready for name, one in seen.fleet.items() if one.ready}
            requests = float(self.rates[window].sum())
            total += requests
            short += requests * max(0.0, 1.0 - 1.0 / max(self._peak(window, ready), 1.0))
            paid += sum(self.planner.cost_per_h[one.replica_type] for one in self.fleet.instances) * LOOK_S / S_PER_H
        return Lived(
            cost_per_h=paid / (looks * LOOK_S / S_PER_H),
            short=short / total,
            changes_per_h=changes[: looks // 60],
            recovered_s=recovered + [float("inf")] * len(waiting),
        )

    def _peak(self, window: int, ready: dict[str, int]) -> float:
        key = (window, tuple(sorted(ready.items())))
        if key not in self.peaks:
            self.peaks[key] = self.planner.peak(ready, self.planner.seen(self.rates[window]))
        return self.peaks[key]

    def _lose_type(self, now_s: float) -> set[str]:
        """The type with the most instances."""
        names = [one.replica_type for one in self.fleet.instances]
        lost = {max(sorted(set(names)), key=names.count)} if names else set()
        self.fleet.lose(lost, now_s + TYPE_OUT_S)
        return lost

    def _lose_region(self, now_s: float) -> set[str]:
        """The region with the most instances."""
        types = self.planner.types_by_name
        regions = [types[one.replica_type].offer.region for one in self.fleet.instances]
        worst = max(sorted(set(regions)), key=regions.count) if regions else REGIONS[0]
        lost = {name for name, one in types.items() if one.offer.region == worst}
        running = {one.replica_type for one in self.fleet.instances}
        self.fleet.lose(lost, now_s + REGION_OUT_S)
        return lost & running


def reactive(planner: FleetPlanner, rates: Array, window_s: float, short: float) -> tuple[str, float]:
    """An autoscaler of one type on request rate: the type, and its cost [USD/h] where it leaves as much in excess."""
    best = ("none", float("inf"))
    served = [planner.seen(one) for one in rates]
    for one in planner.types:
        if one.offer.region != REGIONS[0]:
            continue
        # Load of one instance's planned capacity in each window; sizes that it cannot serve rule it out.
        loads = np.array([planner.peak({one.name: 1}, rate) for rate in served])
        if not np.isfinite(loads).all():
            continue
        low, high = 0.05, 2.0
        cost, excess = _autoscaled(loads, rates.sum(axis=(1, 2)), window_s, low)
        if excess > short:
            continue
        for _ in range(20):
            middle = (low + high) / 2
            cost_there, excess = _autoscaled(loads, rates.sum(axis=(1, 2)), window_s, middle)
            low, high, cost = (middle, high, cost_there) if excess <= short else (low, middle, cost)
        best = min(best, (one.name, cost * planner.cost_per_h[one.name]), key=lambda pair: pair[1])
    return best


def _autoscaled(loads: Array, requests: Array, window_s: float, target: float) -> tuple[float, float]:
    """Instances paid on average, and the share of requests in excess, of a scaler on request rate."""
    per_window = int(window_s / LOOK_S)
    # Requests that an instance is said to take: what the mean mix of the week allows, at the target.
    each = target * requests.mean() / loads.mean()
    rate = np.repeat(requests, per_window)
    load = np.repeat(loads, per_window)
    lately = int(300 / LOOK_S)
    seen = np.convolve(np.concatenate([np.full(lately, rate[0]), rate]), np.full(lately, 1 / lately))[
        : len(rate) + lately
    ]
    asked = np.ceil(seen[lately - 1 : lately - 1 + len(rate)] / each)
    # Down only to the most that was asked for in the last five minutes.
    padded = np.concatenate([np.full(lately - 1, asked[0]), asked])
    wanted = np.lib.stride_tricks.sliding_window_view(padded, lately).max(axis=1)
    start = int(OperateSettings().start_up_s / LOOK_S)
    late = np.concatenate([np.full(start, wanted[0]), wanted])
    ready = np.lib.stride_tricks.sliding_window_view(late, start + 1).min(axis=1)
    excess = np.maximum(0.0, 1.0 - ready / np.maximum(load, 1e-12))
    return float(wanted.mean()), float((excess * rate).sum() / rate.sum())


if __name__ == "__main__":
    main()
