"""Deferrable requests: schedules for real services in which a share of the requests becomes batch work.

    python bench/deferral.py ../shared/data/traces                 # four services, minutes of CPU
    python bench/deferral.py ../shared/data/traces --only m-small --write docs/classes.md

A share of the requests of each service of ServeGen's traces (see week.py) gets a deadline. The first half of the trace
is planned without these requests, with all requests served as they arrive, and with the schedule that defers them.
Eight windows of the schedule are then simulated request by request, each also without the deferrable requests. Reserved
instances cost 0.45 of the on-demand price, spot instances 0.4.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import melange
from melange.plan.options import Options
from melange.plan.schedule.beside_others import carried_beside
from melange.plan.schedule.contracts import Deferral
from melange.plan.schedule.plan_over_time import plan_over_time
from melange.plan.schedule.schedule import Schedule
from melange.slo import RequestClass, Slo
from melange.units import S_PER_H
from melange.validate.play_rule import play_rule
from melange.workload.classed_demand import demand_of_classes
from melange.workload.demand import Demand
from week import SERVICES, SETTINGS, read, twice

CASES = ((0.3, 4), (0.3, 24))
BEGIN, END = "<!-- bench/deferral.py -->", "<!-- end of bench/deferral.py -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One service with a share of deferrable requests, and their deadline."""

    share: float
    deadline_h: int
    schedule: Schedule
    took_s: float

    def cells(self, name: str) -> str:
        """As a line of a table."""
        found, deferred = self.schedule, self.schedule.deferred
        assert deferred is not None
        at_once, run = deferred.at_once, found.running
        assert at_once is not None
        assert deferred.at_once_per_h is not None
        base = deferred.without_per_h
        played = [one for one in found.played if one.attainment_alone is not None]
        worst = max((one.attainment_alone or 0.0) - one.attainment for one in played) if played else np.nan
        waited = [one.deferred_attainment for one in played if one.deferred_attainment is not None]
        cells = (
            name.partition("/")[2],
            f"{self.share:.0%}",
            f"{self.deadline_h} h",
            f"{deferred.at_once_per_h / base - 1:+.1%}",
            f"{found.planned_per_h / base - 1:+.1%}",
            f"{found.bound_per_h / found.planned_per_h:.3f}",
            f"{1 - run.cost_per_h / at_once.cost_per_h:.1%}",
            f"{at_once.short_fraction:.2%}",
            f"{run.short_fraction:.2%}",
            f"{run.late_fraction:.2%}",
            f"{worst:.2%}",
            f"{min(waited, default=np.nan):.2%}",
            f"{deferred.classes[0].mean_wait_s / S_PER_H:.1f}",
            f"{self.took_s:.1f}",
        )
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| service | may wait | deadline | at once | deferred | bound / cost | saved by the rule | short at once | short | "
    "late | most harm | batch met | mean wait [h] | planning time [s] |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
)


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of servegen_rates_600s.csv.gz and servegen_hist_6h.csv.gz")
    parser.add_argument("--only", default="", help="services whose name contains this")
    parser.add_argument("--write", type=Path, help="document whose table is replaced by these rows")
    arguments = parser.parse_args()
    print("\n".join(HEAD))
    rows = []
    for name in SERVICES:
        if arguments.only not in name:
            continue
        for share, deadline_h in CASES:
            rows.append(study(name, read(arguments.data, name), share, deadline_h).cells(name))
            print(rows[-1], flush=True)
    if arguments.write:
        text = arguments.write.read_text()
        begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        arguments.write.write_text(text[:begin] + "\n" + "\n".join([*HEAD, *rows]) + "\n" + text[end:])


def study(name: str, demand: Demand, share: float, deadline_h: int) -> Row:
    """Plan and simulate one service."""
    model, slo = SERVICES[name]
    half = len(demand) // 2
    over = "week" if half >= 7 * 24 * 6 else "day"
    first = demand.part(0, half) if over == "week" else twice(demand.part(0, half))
    parts = {"default": replace(first, rate=first.rate * (1 - share)), "batch": replace(first, rate=first.rate * share)}
    both = demand_of_classes(parts)
    offers = melange.load_catalog().select(providers=["aws"], markets=["on-demand"], regions=["us-east-1"]).offers
    # On shared replicas, a step may take no longer than the TPOT limit of the other class, as in melange schedule.
    beside, own = Slo(latency_s=600.0, tpot_s=slo.tpot_s), Slo(latency_s=600.0)
    profile = melange.estimate(melange.find_model(model), offers, with_batch(slo, beside), both.workload())
    profile = carried_beside(replace(profile, slo=with_batch(slo, own)), {"batch"})
    settings = replace(SETTINGS, deferrals=(Deferral(name="batch", deadline_s=deadline_h * S_PER_H),))
    options = Options(drop_unservable=True)
    began = time.process_time()
    found = plan_over_time(both, profile, options, settings, over=over)
    took_s = time.process_time() - began
    return Row(
        share=share,
        deadline_h=deadline_h,
        schedule=replace(found, played=play_rule(found, both, profile, options)),
        took_s=took_s,
    )


def with_batch(slo: Slo, batch: Slo) -> Slo:
    """The SLO of a service with an additional class of batch requests with lower priority."""
    classes = (RequestClass(name="default", slo=slo), RequestClass(name="batch", slo=batch, priority=1))
    return replace(slo, classes=classes)


if __name__ == "__main__":
    main()
