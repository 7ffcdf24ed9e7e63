"""Write the page benchmark.md, its picture and the README's table, from the stored results of bench/services/run.py.

python bench/services/page.py --seed 1 --count 100
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from draw import services
from fresh import LEAST_REQUESTS, MOST_REQUESTS
from picture import picture
from planners import PLANNERS, TITLES
from results import Best, Line, Summary, file_of, hash_of, read_best, read_lines, relative_cost, summary

DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.md"
# Markers around the table in the README.
BLOCK = re.compile(r"<!-- benchmark -->\n.*?<!-- end -->", re.DOTALL)
NEAR = 1.03
PAGE = """# A hundred services

Every planner plans the same {count} services, drawn by a script (`python bench/services/draw.py --seed {seed}`): dense,
MoE and latent models of 1 to 700 billion parameters, every bundled data set and mixtures of two, limits on TTFT and
TPOT, NTPOT, latency or TPOT alone from tight to loose, targets of 90 to 99.5 %, 0.5 to 500 requests/s, on-demand offers
of single clouds and of all. Written by `make services`; every figure comes from there.

A plan *holds* if at least the target's share of {least:,} to {most:,} requests that no planner has seen meet every
limit individually, in a simulation of the whole fleet (Poisson arrivals, the plan's own policy; see
[proof](proof.md)). Holds are counted among plans that claim to hold. Costs are compared only among plans that
hold, relative to the cheapest plan that any planner has ever found for that service and that clearly holds
(`bench/services/best_known.json`). CPU seconds are those of one process that has loaded and compiled everything before.

{table}

![Cost against missed requests, planner by planner](benchmark.svg)

Each dot is a service. Horizontal: cost over the best known plan. Vertical: missed requests over those that the target
allows; dots below the line hold.

## Goals and results

{bars}
{fresh}
## If steps are slower than planned

The table shows the mean attainment of the fleets that hold when steps are slower than planned, and the cost of those
fleets over the best known: robustness costs money.

{stress}

## The planners

{planners}

## Service by service

Cost [USD/h] of the best known plan, the planner that found it, and each planner's cost over it. `-`: no plan; in
brackets: the plan does not hold.

{services}
"""
WHAT = {
    "default": "the answer of `melange plan`",
    "quick": "the closed form under the service's limits, with its headroom of a tenth; nothing is simulated",
    "paper": "the program of [Mélange](https://arxiv.org/abs/2404.14527) as its authors solve it: capacities under "
    "limits on the mean, 8 slices each served by one type, no headroom, whole instances",
    "aibrix": "the method of AIBrix's GPU optimizer, from its public code: capacities at sizes and rates that are "
    "powers of two, the same program in hundredths of a GPU, each of two deployments rounded up",
    "greedy": "the adaptive greedy heuristic of [Cheng and Nguyen](https://arxiv.org/abs/2604.07472), from its "
    "published description",
    "single": "the cheapest fleet of one type, by the closed form",
    "single-certified": "the smallest fleet of one type that holds in simulation, over all types",
    "h100": "like the cheapest single type, but only H100, in any form",
}


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: int) -> str:
    """A table whose last ``numbers`` columns are right-aligned."""
    rule = ["---"] * (len(heads) - numbers) + ["---:"] * numbers
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, rule, *rows])


def main_table(summaries: Sequence[Summary]) -> str:
    """Found, holds, cost and time of each planner."""
    rows = []
    for one in summaries:
        cost = [f"{np.median(one.cost):.2f}", f"{np.quantile(one.cost, 0.9):.2f}"] if one.cost else ["-", "-"]
        held = f"{one.held} of {one.claimed}"
        found, cpu_s = f"{one.found} of {one.services}", [f"{np.median(one.cpu_s):.1f}", f"{max(one.cpu_s):.1f}"]
        rows.append([TITLES[one.planner], found, held, *cost, *cpu_s])
    heads = ["planner", "found", "holds", "cost / best known: median", "p90", "CPU s: median", "max"]
    return table(heads, rows, 6)


def stress_table(summaries: Sequence[Summary]) -> str:
    """Attainment of the fleets that hold, by slowdown of the steps."""
    slower = next((list(one.stress) for one in summaries if one.stress), [])
    rows = [
        [
            TITLES[one.planner],
            f"{one.held}",
            f"{np.mean(one.cost):.2f}",
            *(f"{one.stress[name]:.1%}" for name in slower),
        ]
        for one in summaries
        if one.stress and one.cost
    ]
    heads = ["planner", "fleets", "mean cost / best", *(f"steps x {name}" for name in slower)]
    return table(heads, rows, len(heads) - 1)


def bars(lines: Sequence[Line], best: Mapping[str, Best], own: Summary) -> str:
    """The targets for `melange plan`, and its results."""
    cost = {(one.service, one.planner): one.cost_per_h for one in lines if one.holds and one.claims}
    pairs = [
        (cost[service, "default"], single)
        for (service, planner), single in cost.items()
        if planner == "single-certified" and (service, "default") in cost
    ]
    cheaper = sum(mix is not None and one is not None and mix <= one + 1e-9 for mix, one in pairs)
    near = sum(ratio <= NEAR for ratio in own.cost)
    median = f"{np.median(own.cost):.3f}" if own.cost else "-"
    rows = [
        ["plans that claim to hold do", "98 of 100", f"{own.held} of {own.claimed}"],
        ["no more expensive than the cheapest certified single type", "100 of 100", f"{cheaper} of {len(pairs)}"],
        [f"at most {NEAR:g} times the best known plan", "100 of 100", f"{near} of {len(own.cost)}"],
        ["cost over the best known plan, median", "1.00", median],
        ["CPU time, median and maximum", "5 s, 30 s", f"{np.median(own.cpu_s):.1f} s, {max(own.cpu_s):.1f} s"],
    ]
    return table(["of `melange plan`", "wanted", "reached"], rows, 2)


def fresh_text(seed: int | None, count: int) -> str:
    """The results on another set that was never looked at before; empty without such a set."""
    if seed is None:
        return ""
    lines = _current(seed, count)
    summaries = [summary(name, [one for one in lines if one.planner == name], read_best()) for name in PLANNERS]
    rows = [
        [
            TITLES[one.planner],
            f"{one.found} of {one.services}",
            f"{one.held} of {one.claimed}",
            f"{np.median(one.cpu_s):.1f}",
            f"{np.quantile(one.cpu_s, 0.9):.1f}",
            f"{max(one.cpu_s):.1f}",
        ]
        for one in summaries
        if one.services
    ]
    heads = ["planner", "found", "holds", "CPU s, median", "90 %", "most"]
    return f"\nOn {count} new services of seed {seed}:\n\n{table(heads, rows, 5)}\n"


def _current(seed: int, count: int) -> list[Line]:
    """Results for the current services of a seed, without those of earlier draws."""
    current = {(one.name, hash_of(one.text)) for one in services(seed, count)}
    return [one for one in read_lines(file_of(seed)) if (one.service, one.text) in current]


def service_table(lines: Sequence[Line], best: Mapping[str, Best], planners: Sequence[str]) -> str:
    """A row for every service: its best known plan, and each planner's cost over it."""
    by_place = {(one.service, one.planner): one for one in lines}
    rows = []
    for name in sorted({one.service for one in lines}):
        known = best.get(name)
        head = [name, f"{known.cost_per_h:.2f}", known.planner] if known else [name, "-", "-"]
        rows.append([*head, *(_cell(by_place.get((name, planner)), best) for planner in planners)])
    return table(["service", "best", "by", *planners], rows, len(planners))


def _cell(line: Line | None, best: Mapping[str, Best]) -> str:
    ratio = None if line is None else relative_cost(line, best)
    if line is None or ratio is None:
        return "-"
    return f"{ratio:.2f}" if line.holds else f"({ratio:.2f})"


def main() -> None:
    """Write the page and its picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="seed of the set of services")
    parser.add_argument("--count", type=int, default=100, help="number of services")
    parser.add_argument("--fresh", type=int, help="seed of another set that was never looked at, for comparison")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder for the page")
    given = parser.parse_args()
    lines = _current(given.seed, given.count)
    current = {(one.service, one.text) for one in lines}
    best = {name: entry for name, entry in read_best().items() if (name, entry.text) in current}
    names = [name for name in PLANNERS if any(one.planner == name for one in lines)]
    by_planner = {name: [one for one in lines if one.planner == name] for name in names}
    summaries = [summary(name, by_planner[name], best) for name in names]
    text = PAGE.format(
        count=given.count,
        seed=given.seed,
        least=LEAST_REQUESTS,
        most=MOST_REQUESTS,
        table=main_table(summaries),
        bars=bars(lines, best, summaries[names.index("default")]) if "default" in names else "",
        fresh=fresh_text(given.fresh, given.count),
        stress=stress_table(summaries),
        planners="\n".join(f"- *{TITLES[name]}*: {WHAT[name]}." for name in names),
        services=service_table(lines, best, names),
    )
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "benchmark.md").write_text(text, encoding="utf-8")
    if given.out == DOCS:
        block = f"<!-- benchmark -->\n{main_table(summaries)}\n<!-- end -->"
        README.write_text(BLOCK.sub(lambda _: block, README.read_text(encoding="utf-8")), encoding="utf-8")
    panels = {TITLES[name].replace("`", ""): by_planner[name] for name in names}
    (given.out / "benchmark.svg").write_text(picture(panels, best), encoding="utf-8")


if __name__ == "__main__":
    main()
