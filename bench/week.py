"""Schedules for a week, planned from the week before: five real services, simulated window by window.

    python bench/week.py ../shared/data/traces                # all five, minutes of CPU
    python bench/week.py ../shared/data/traces --only mm-image --write docs/schedule.md

ServeGen's traces contain two weeks of three services and one day of two others, in windows of ten minutes. Reserved
instances, the type to scale and the rule are chosen on the first half (a week, or half a day). The second half is
simulated with that rule, with start-up, drains and spot outages; nothing is chosen again. It is compared on the second
half with:

- perfect foresight, a plan made with knowledge of the traffic: it reserves instances with the same commitments, and
  rents the cheapest whole instances in every window; with a lower bound for all plans;
- autoscalers of one on-demand type, on request rate and on load, with a target chosen with hindsight, so that as many
  requests are short.

Reserved instances cost 0.45 of the on-demand price, and spot instances 0.4, because no price list contains them for
these machines. The rule is chosen for several shares of requests short, which gives a frontier.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import io
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import melange
from melange.plan.options import Options
from melange.plan.schedule.alternatives import best_single_type, reactive
from melange.plan.schedule.backtest import History, RunningCost
from melange.plan.schedule.choose_rule import Trial, choose_rule, sharpened
from melange.plan.schedule.contention import in_contention
from melange.plan.schedule.contracts import Reserved, ScheduleOptions, Spot
from melange.plan.schedule.hours import cheapest_hours
from melange.plan.schedule.machines import Machines, machines_of
from melange.plan.schedule.plan_over_time import plan_over_time
from melange.plan.schedule.relaxed import bound_per_h, relax
from melange.plan.schedule.reserve import search_reserved
from melange.plan.schedule.signals import first_signals
from melange.plan.schedule.spot_room import SpotRoom
from melange.plan.schedule.typical import merged_sizes, typical_hours
from melange.plan.schedule.whole_hours import best_hours, longer_search, whole_bound_per_h
from melange.processes import each_of, on_cluster
from melange.profile.profile import Profile
from melange.workload.cycle import fold
from melange.workload.demand import Demand
from melange.workload.demand_table import read_demand_tables

# Model and SLO of each service: published models of the size that the service's name indicates.
SERVICES = {
    "language/m-large": ("meta-llama/Llama-3.3-70B-Instruct", melange.Slo(tpot_s=0.06, ttft_s=3.0)),
    "language/m-mid": ("Qwen/Qwen3-32B", melange.Slo(tpot_s=0.06, ttft_s=3.0)),
    "language/m-small": ("meta-llama/Llama-3.1-8B-Instruct", melange.Slo(tpot_s=0.06, ttft_s=2.0)),
    "multimodal/mm-image": ("Qwen/Qwen2.5-72B-Instruct", melange.Slo(tpot_s=0.06, ttft_s=3.0)),
    "reason/deepseek-r1": ("deepseek-ai/DeepSeek-R1", melange.Slo(tpot_s=0.08, ttft_s=5.0)),
}
SHORTAGES = (0.0025, 0.0035, 0.005, 0.007, 0.01, 0.014, 0.02)
# Markers around the table in a document.
BEGIN, END = "<!-- bench/week.py -->", "<!-- end of bench/week.py -->"
SETTINGS = ScheduleOptions(
    reserved=(Reserved(term_years=3, discount=0.55),),
    spot=Spot(discount=0.6, zones=3),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """The simulated second half with a rule chosen on the first."""

    wanted: float
    chosen: str
    outcome: RunningCost
    on_load: RunningCost
    on_rate: RunningCost


def main() -> None:
    """Print a table for each service."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of servegen_rates_600s.csv.gz and servegen_hist_6h.csv.gz")
    parser.add_argument("--only", default="", help="services whose name contains this")
    parser.add_argument("--write", type=Path, help="document whose table gets the rows of these services")
    parser.add_argument("--on", help="a Ray cluster that runs the services in parallel: ray://host:10001, or local")
    arguments = parser.parse_args()
    jobs = [(name, read(arguments.data, name)) for name in SERVICES if arguments.only in name]
    with on_cluster(arguments.on):
        for (name, _), (printed, rows) in zip(jobs, each_of(studied, jobs, len(jobs) + 1), strict=True):
            print(printed, end="", flush=True)
            if arguments.write:
                write(arguments.write, name, rows)


def studied(job: tuple[str, Demand]) -> tuple[str, list[str]]:
    """The printed text of a service, and its rows."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        rows = study(*job)
    return printed.getvalue(), rows


def write(page: Path, name: str, rows: list[str]) -> None:
    """Replace a service's rows in the table of a document."""
    text = page.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    order = [one.partition("/")[2] for one in SERVICES]
    kept = [
        line for line in text[begin:end].strip().splitlines() if not line.startswith(f"| {name.partition('/')[2]} ")
    ]
    head, body = kept[:2], [*kept[2:], *rows]
    body.sort(key=lambda line: order.index(line.split()[1]))
    page.write_text(text[:begin] + "\n" + "\n".join([*head, *body]) + "\n" + text[end:])


def read(data: Path, name: str) -> Demand:
    """The demand of one service of the traces."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for table in ("servegen_rates_600s", "servegen_hist_6h"):
            with gzip.open(data / f"{table}.csv.gz", "rt") as stream:
                rows = [row for row in csv.DictReader(stream) if row["workload"] == name]
            paths.append(Path(folder, f"{table}.csv"))
            with paths[-1].open("w") as stream:
                writer = csv.DictWriter(stream, rows[0].keys())
                writer.writeheader()
                writer.writerows(rows)
        return read_demand_tables(*paths)


def study(name: str, demand: Demand) -> list[str]:
    """Plan on the first half, simulate the second, and print the results; returns the rows of a document's table."""
    model, slo = SERVICES[name]
    half = len(demand) // 2
    first, second = demand.part(0, half), demand.part(half, len(demand))
    over = "week" if half >= 7 * 24 * 6 else "day"
    if over == "day":  # half a day cannot be folded by day: it is used for both halves of a day
        first = twice(first)
    offers = melange.load_catalog().select(providers=["aws"], markets=["on-demand"], regions=["us-east-1"]).offers
    profile = melange.estimate(melange.find_model(model), offers, slo, demand.workload())
    began = time.process_time()
    schedule = plan_over_time(first, profile, Options(drop_unservable=True), SETTINGS, over=over)
    took = time.process_time() - began
    held = dict(zip((one.name for one in schedule.replica_types), schedule.reserved, strict=True))
    known = Known.of(profile, second)
    print(
        f"\n{name}: {model}, {first.mean_rate:.4g} requests/s in the first half, {second.mean_rate:.4g} in the second"
    )
    print(f"  planned in {took:.1f} s of CPU: {len(schedule.labels)} hours, {len(known.everything)} machines")
    base = ", ".join(f"{n:.0f} x {one}" for one, n in held.items() if n) or "nothing"
    print(f"  reserved {base}; gap {schedule.gap:.1%}")
    above = known.cost_per_h / known.bound_per_h - 1
    print(f"  perfect foresight {known.cost_per_h:.2f} USD/h, bound {known.bound_per_h:.2f} ({above:.1%} above)")
    print("  target    USD/h    x foresight  x bound  requests short  windows short   on rate   on load  saved  rule")
    rows: list[str] = []
    best = best_known(name, profile, first, over, schedule)
    beyond = "" if best is None else f"{max(0.0, schedule.planned_per_h / best - 1):.1%}"
    if best is not None:
        print(f"  hours: {schedule.planned_per_h:.2f} USD/h, best of a longer search {best:.2f} ({beyond} above)")
    lived = Second(known, profile, first, second, held, SETTINGS)
    for wanted in SHORTAGES:
        one = lived.live(replace(SETTINGS, short_fraction=wanted))
        cost = one.outcome.cost_per_h
        print(
            f"  {wanted:6.2%} {cost:8.2f}  {cost / known.cost_per_h:13.3f}  {cost / known.bound_per_h:7.3f}   "
            f"{one.outcome.short_fraction:14.2%}  {one.outcome.short_windows_fraction:13.1%}  "
            f"{one.on_rate.cost_per_h:8.2f}  {one.on_load.cost_per_h:8.2f}  {1 - cost / one.on_rate.cost_per_h:5.1%}  "
            f"{one.chosen}",
            flush=True,
        )
        rows.append(
            f"| {name.partition('/')[2]} | {wanted:.2%} | {one.outcome.short_fraction:.2%} | "
            f"{one.outcome.short_windows_fraction:.0%} | {cost / known.cost_per_h:.2f} | "
            f"{cost / known.bound_per_h:.2f} | "
            f"{1 - cost / one.on_rate.cost_per_h:.0%} | {1 - cost / one.on_load.cost_per_h:.0%} | {schedule.gap:.1%} | "
            f"{beyond or '-'} | {took:.1f} |"
        )
    return rows


def best_known(name: str, profile: Profile, first: Demand, over: str, schedule: melange.Schedule) -> float | None:
    """The cost that a longer search finds for the hours of a day: optimal hours for reserved counts near the plan's.

    None for a week, whose 168 optimal hours take minutes.
    """
    if over != "day":
        return None
    cycle = fold(first, over, statistic="max")
    traffic = np.nan_to_num(first.rates()).sum(axis=0)
    spot = SETTINGS.spot
    machines, _ = machines_of(profile, traffic, Options(drop_unservable=True), SETTINGS.reserved[0], spot)
    rates = cycle.request_rate[:, machines.cells]
    typical = typical_hours(machines, rates, count=48)
    relaxation = relax(machines, typical, merged_sizes(machines, rates), spot)
    held = dict(zip((one.name for one in schedule.replica_types), schedule.reserved, strict=True))
    places = in_contention(machines, rates, relaxation)
    few = machines.only(places)
    start = np.array([held.get(one, 0.0) for one in few.names])
    counts, _ = longer_search(few, rates, np.ones(len(rates)), start, spot, deadline=time.monotonic() + 60)
    whole = np.zeros(len(machines))
    whole[places] = counts
    hours = best_hours(machines, rates, whole, spot, deadline=time.monotonic() + 60)
    bound, solved = whole_bound_per_h(
        machines, rates, relaxation.price[typical.of_hour], spot, deadline=time.monotonic() + 60
    )
    print(f"  bound of {name} with whole instances: {bound:.2f} USD/h over {solved} hours")
    return float(whole @ np.where(whole > 0, machines.reserved_per_h, 0.0)) + float(np.nanmean(hours))


def twice(demand: Demand) -> Demand:
    """The demand repeated once."""
    return replace(
        demand,
        rate=np.concatenate([demand.rate, demand.rate]),
        period=np.concatenate([demand.period, demand.period]),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """The plan of the second half with perfect foresight, and its bound."""

    everything: Machines
    cost_per_h: float
    bound_per_h: float

    @classmethod
    def of(cls, profile: Profile, demand: Demand) -> Known:
        """The cheapest whole instances in every window in addition to the best reserved ones, and the bound."""
        rates = demand.rates()
        machines, _ = machines_of(
            profile,
            np.nan_to_num(rates).sum(axis=0),
            Options(drop_unservable=True),
            SETTINGS.reserved[0],
            SETTINGS.spot,
        )
        rates = rates[~demand.is_missing][:, machines.cells]
        typical = typical_hours(machines, rates, count=96)
        relaxation = relax(machines, typical, merged_sizes(machines, rates), SETTINGS.spot)
        bound = bound_per_h(machines, rates, relaxation.price[typical.of_hour], SETTINGS.spot)
        places = in_contention(machines, rates, relaxation)
        few = machines.only(places)
        part = replace(relaxation, reserved=relaxation.reserved[places], used_share=relaxation.used_share[places])
        # The search for reserved instances uses every sixth window; then all windows are planned with the result.
        found = search_reserved(few, first_signals(few), rates[::6], typical_hours(few, rates), part, SETTINGS.spot)
        room = SpotRoom.of(few, few.work(rates), SETTINGS.spot)
        signals = found.hours.signals
        hours = cheapest_hours(few, signals, signals.demand(rates), found.reserved, room)
        fixed = float(found.reserved @ few.reserved_per_h)
        return cls(everything=machines, cost_per_h=fixed + float(hours.cost_per_h.mean()), bound_per_h=bound)


class Second:
    """The second half, simulated with rules from the first and with the instances reserved for it."""

    def __init__(
        self,
        known: Known,
        profile: Profile,
        first: Demand,
        second: Demand,
        held: dict[str, float],
        settings: ScheduleOptions,
    ) -> None:
        """Machines in contention in the first half, and those that are reserved."""
        traffic = np.nan_to_num(first.rates()).sum(axis=0) + np.nan_to_num(second.rates()).sum(axis=0)
        machines, _ = machines_of(profile, traffic, Options(drop_unservable=True), settings.reserved[0], settings.spot)
        self.past = History.of(first.rates()[:, machines.cells], first.window_s)
        self.lived = History.of(second.rates()[:, machines.cells], second.window_s)
        seen = self.past.rates[self.past.is_known]
        typical = typical_hours(machines, seen, count=48)
        relaxation = relax(machines, typical, merged_sizes(machines, seen), settings.spot)
        places = set(in_contention(machines, seen, relaxation).tolist())
        places |= {machines.names.index(name) for name, count in held.items() if count}
        self.machines, self.few = machines, machines.only(np.array(sorted(places)))
        self.reserved = np.array([held.get(one, 0.0) for one in self.few.names])
        self.signals = sharpened(self.few, first_signals(self.few), self.reserved, self.past)
        # Shortages of the second half are computed from its own windows; the rule still uses the signals of the first.
        self.judged = sharpened(self.few, self.signals, self.reserved, self.lived)
        windows = History.of(second.rates()[:, known.everything.cells], second.window_s)
        single = best_single_type(known.everything, windows)
        assert single is not None
        self.single = machines.names.index(known.everything.names[single])

    def live(self, settings: ScheduleOptions) -> Lived:
        """Choose a rule on the whole first half, and simulate the second with it."""
        chosen = choose_rule(self.few, self.signals, self.reserved, self.past, settings)
        trial = Trial(self.few, self.judged, self.reserved, chosen.place, list(chosen.watched), settings, seed=1)
        outcome = trial.run([chosen.settings], self.lived)[0][0]
        scalers = [
            reactive(
                self.machines, self.single, self.past, self.lived, settings, outcome.short_fraction, on_rate=on_rate
            )
            for on_rate in (False, True)
        ]
        words = f"{self.few.names[chosen.place]}: {chosen.settings.words}"
        return Lived(
            wanted=settings.short_fraction, chosen=words, outcome=outcome, on_load=scalers[0], on_rate=scalers[1]
        )


if __name__ == "__main__":
    main()
