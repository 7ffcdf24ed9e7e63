"""Simulate a week of the controller on ServeGen's services, with failed starts, lost instances and a region outage.

    python bench/operate.py ../shared/data/traces                # three services, three seeds each: half an hour of CPU
    python bench/operate.py ../shared/data/traces --only m-small --seeds 2 --days 2 --log out.jsonl
    python bench/operate.py ../shared/data/traces --only m-mid --without region     # the cost of an injected failure
    python bench/operate.py ../shared/data/traces --told         # the cost of failures with known traffic
    python bench/operate.py ../shared/data/traces --schedule 0.01    # by the rule that the back-test chose on week one
    python bench/operate.py ../shared/data/traces --week 1 --set slack=0.1 --set rule.target=0.9    # to choose settings
    python bench/operate.py ../shared/data/traces --write docs/operate.md    # the table of the document

The second week of a service is simulated with one iteration of the controller per minute. The controller sees the fleet
and the traffic of the last two minutes, and its orders start after five minutes. Injected failures: one of ten orders
is refused, and the type is out of stock for half an hour; an instance is lost after two days on average; three times a
week, all instances of the most numerous type are lost, and the type is out of stock for three hours; once, the region
with the most instances has neither instances nor stock for two hours.

Requests short are those beyond the planned capacity of the serving fleet, with its headroom, the same share of all
sizes. They are divided by cause: during the region outage; because of instances lost in the last minutes; while wanted
instances start; and the rest. Settings were chosen on the first week, and are tested on the second.

The controller is compared on the same week with perfect foresight (the cheapest fleet of whole instances in every
window, without start-up cost or losses); the same plan with each fleet paid from five minutes before it is needed; and
a reactive autoscaler of the best single type on request rate (HPA: the mean of five minutes, scale-down after five),
also without losses. The autoscaler's target is chosen with hindsight, so that as many requests are short.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import week
from melange.deploy.operate.fleet_planner import FleetPlanner
from melange.deploy.operate.fleet_wanted import DOWN, LOST, MIX, UP
from melange.deploy.operate.operate_settings import OperateSettings
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.schedule.contracts import ScheduleOptions
from melange.plan.schedule.plan_over_time import plan_over_time
from melange.plan.schedule.schedule import Schedule
from melange.units import S_PER_H
from melange.workload.workload import Array
from operating.autoscaler import Autoscaler
from operating.first_plan import first_plan
from operating.lived import CAUSES, INJECTED, LOOK_S, SETTINGS, Chosen, Lived, Week

SERVICES = ("language/m-large", "language/m-mid", "language/m-small")
# Markers around the table in a document.
BEGIN, END = "<!-- bench/operate.py -->", "<!-- end of bench/operate.py -->"
HEAD = (
    "| service, served by | seed | perfect foresight [USD/h] | controller [USD/h] | cost / perfect foresight | short "
    "| of which region out, lost, starting, not ordered | changes an hour: median, mean, max "
    "| order after a loss [polls]: median, max | recovery [min]: median, max "
    "| autoscaler of one type, nothing lost: cost / perfect foresight |",
    "|---|---:|---:|---:|---:|---:|---|---|---|---|---:|",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service's week, with all values that do not depend on the failures."""

    name: str
    planner: FleetPlanner
    plan: Plan
    schedule: Schedule | None
    rates: Array
    window_s: float
    clairvoyant: float
    with_starts: float
    autoscaler: Autoscaler | None


def main() -> None:
    """Print a line for each service and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of servegen_rates_600s.csv.gz and servegen_hist_6h.csv.gz")
    parser.add_argument("--only", default="", help="services whose name contains this")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13], help="seeds of the failures")
    parser.add_argument("--week", type=int, choices=(1, 2), default=2, help="week of the trace that is simulated")
    parser.add_argument("--days", type=float, default=7, help="days of the week; no region outage if fewer than 7")
    parser.add_argument("--every", type=int, default=1, help="plan with perfect foresight for every Nth window only")
    parser.add_argument("--without", choices=INJECTED, action="append", default=[], help="leave out this failure")
    parser.add_argument("--told", action="store_true", help="the controller knows the traffic until its orders serve")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the controller")
    parser.add_argument(
        "--schedule", type=float, default=0.0, help="follow a schedule made for this share of requests short"
    )
    parser.add_argument("--without-autoscaler", action="store_true", help="leave out the autoscaler of one type")
    parser.add_argument("--log", type=Path, help="file for observations and decisions, one JSON object per line")
    parser.add_argument("--write", type=Path, help="document whose table gets the rows of these services")
    arguments = parser.parse_args()
    print(*HEAD, sep="\n")
    for name in SERVICES:
        if arguments.only in name:
            rows = study(name, arguments)
            if arguments.write:
                write(arguments.write, name, rows)


def study(name: str, arguments: argparse.Namespace) -> list[str]:
    """Simulate one service: a row for each seed, and one for all seeds."""
    service = prepared(name, arguments)
    settings = SETTINGS
    for text in arguments.set:
        settings = with_setting(settings, *text.split("=", 1))
    rows, lives, autoscaled = [], [], []
    for seed in arguments.seeds:
        began = time.process_time()
        chosen = Chosen(
            seed=seed,
            days=arguments.days,
            without=tuple(arguments.without),
            settings=settings,
            is_told=arguments.told,
        )
        lived = Week(service.planner, service.plan, service.schedule, service.rates, service.window_s, chosen).live()
        lives.append(lived)
        if service.autoscaler is not None:
            autoscaled.append(service.autoscaler.cost_per_h(lived.short) / service.clairvoyant)
        rows.append(row(service, str(seed), [lived], autoscaled[-1:]))
        print(f"{rows[-1]}  {time.process_time() - began:.0f} s of CPU", flush=True)
        if arguments.log:
            with arguments.log.open("a") as stream:
                stream.writelines(json.dumps({"service": name, "seed": seed, **one}) + "\n" for one in lived.log)
    if len(lives) > 1:
        rows.append(row(service, "all", lives, autoscaled))
        print(rows[-1], flush=True)
    print(f"perfect foresight with start-up cost: {service.with_starts:,.4g} USD/h")
    print(kinds(lives), flush=True)
    return rows


def kinds(lives: Sequence[Lived]) -> str:
    """Changes per hour by kind, and their median without replacements of unavailable types."""
    verbs = (LOST, UP, DOWN, MIX)
    said = [
        (life, int(one["hour"]), verb)
        for life, lived in enumerate(lives)
        for one in lived.log
        for line in one["said"]
        for verb in verbs
        if line.startswith(f"{verb}: ")
    ]
    hours = [(life, hour) for life, lived in enumerate(lives) for hour in range(len(lived.changes_per_h))]
    each = ", ".join(f"{verb} {sum(one[2] == verb for one in said) / len(hours):.2f}" for verb in verbs)
    others = Counter(one[:2] for one in said if one[2] != LOST)
    return f"changes per hour: {each}; median without {LOST} {statistics.median(others[one] for one in hours):g}"


def with_setting(settings: OperateSettings, name: str, value: str) -> OperateSettings:
    """The settings with one changed value, such as ``slack``, ``settle_s`` or ``rule.target``."""
    outer, _, inner = name.partition(".")
    if inner:
        return replace(settings, rule=replace(settings.rule, **{inner: _typed(getattr(settings.rule, inner), value)}))
    return replace(settings, **{outer: _typed(getattr(settings, outer), value)})


def _typed(before: Any, value: str) -> Any:
    return type(before)(value)


def prepared(name: str, arguments: argparse.Namespace) -> Service:
    """A service with its first plan and the plans for comparison."""
    demand = week.read(arguments.data, name)
    rates = demand.rates().reshape(len(demand), *demand.buckets.shape)
    rates = rates[~np.isnan(rates).any(axis=(1, 2))]
    # For week 1, the last six days are simulated, with a first plan for the hour before them.
    half = len(rates) // 2 if arguments.week == 2 else len(rates) // 14
    plan = first_plan(name, demand, rates[half - 6 : half].mean(axis=0))
    planner = FleetPlanner(plan)
    windows = int(arguments.days * 24 * S_PER_H / demand.window_s)
    lived_rates = rates[half : min(half + windows, len(rates) if arguments.week == 2 else len(rates) // 2)]
    known = [planner.cost(planner.cheapest(planner.seen(one)) or {}) for one in lived_rates[:: arguments.every]]
    start = min(1.0, OperateSettings().start_up_s / demand.window_s)
    started = [
        (1 - start) * now + start * max(now, later) for now, later in zip(known, [*known[1:], known[-1]], strict=True)
    ]
    schedule = None
    if arguments.schedule:
        wanted = ScheduleOptions(short_fraction=arguments.schedule)
        past = demand.part(0, len(demand) // 2)
        schedule = plan_over_time(past, plan.question.profile, Options(drop_unservable=True), wanted)
        assert schedule.rule is not None
        print(f"{name}: {schedule.rule.replica_type}: {schedule.rule.settings.words}")
    return Service(
        name=name,
        planner=planner,
        plan=plan,
        schedule=schedule,
        rates=lived_rates,
        window_s=demand.window_s,
        clairvoyant=statistics.fmean(known),
        with_starts=statistics.fmean(started),
        autoscaler=None if arguments.without_autoscaler else Autoscaler(planner, lived_rates, demand.window_s),
    )


def row(service: Service, seed: str, lives: Sequence[Lived], autoscaled: Sequence[float]) -> str:
    """A line of the table, for one seed or for all (means, and medians and maxima over all hours and losses)."""
    cost, short = statistics.fmean(one.cost_per_h for one in lives), statistics.fmean(one.short for one in lives)
    causes = ", ".join(f"{statistics.fmean(one.short_by_cause[cause] for one in lives):.2%}" for cause in CAUSES)
    changes = [count for one in lives for count in one.changes_per_h]
    ordered = [each / LOOK_S for one in lives for each in one.ordered_s]
    carried = [each / 60 for one in lives for each in one.carried_s]
    scaled = f"{statistics.fmean(autoscaled):.2f}" if autoscaled else ""
    model = week.SERVICES[service.name][0].partition("/")[2].removesuffix("-Instruct")
    return (
        f"| {service.name.partition('/')[2]}, {model} | {seed} | {service.clairvoyant:,.4g} | {cost:,.4g} "
        f"| {cost / service.clairvoyant:.2f} | {short:.2%} | {causes} "
        f"| {statistics.median(changes):g}, {statistics.fmean(changes):.1f}, {max(changes)} "
        f"| {_median_and_most(ordered)} | {_median_and_most(carried)} | {scaled} |"
    )


def _median_and_most(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f}, {max(values):.0f}" if values else ""


def write(page: Path, name: str, rows: Sequence[str]) -> None:
    """Replace a service's rows in the table of a document."""
    text = page.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    short = name.partition("/")[2]
    kept = [line for line in text[begin:end].strip().splitlines()[2:] if not line.startswith(f"| {short},")]
    order = [one.partition("/")[2] for one in SERVICES]
    body = sorted([*kept, *rows], key=lambda line: order.index(line.split()[1].rstrip(",")))
    page.write_text(text[:begin] + "\n\n" + "\n".join([*HEAD, *body]) + "\n\n" + text[end:])


if __name__ == "__main__":
    main()
