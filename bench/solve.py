"""Time to proven plans, compared with the paper's binary program at the paper's scale, and with plain HiGHS beyond it.

    python bench/solve.py            # 100 instances of the paper's scale, then the larger ones (about 40 minutes)
    python bench/solve.py --quick    # 16 instances, and one of each larger family and size (about 5 minutes)

Runs are interleaved: each instance is solved by every program in turn before the next one. Times include building the
model, and are medians of wall-clock time on the current machine. If the paper's program is not proven at its time
limit, that limit counts as its time, so the printed ratios are then lower bounds.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np

from instances import SPREAD_BY_FAMILY, Instance, draw, options
from melange.plan.milp.formulation import formulate
from melange.plan.milp.highs import minimise
from melange.plan.plan import Plan
from melange.plan.problem import build, loads
from melange.plan.question import Question
from melange.plan.servable import scope_of
from melange.plan.solve import solve
from paper_program import PaperAnswer, solve_paper

REPLICAS = (3, 10, 40, 150)
SLICES = 8
SIZES = (  # input x output buckets, types, gap, target [s]
    (10, 6, 40, 1e-3, 0.5),
    (25, 20, 40, 1e-3, 3.0),
    (50, 40, 200, 1e-2, 10.0),
)


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only a few instances")
    parser.add_argument("--instances", type=int, help="number of instances of the paper's scale (100; quick: 16)")
    parser.add_argument("--limit", type=float, default=30.0, help="time limit of the paper's program [s]")
    parser.add_argument("--part", choices=("paper", "large"), help="only one of the comparisons")
    given = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # PuLP announces its version 4
    solve_once()
    if given.part != "large":
        paper_scale(given.instances or (16 if given.quick else 100), given.limit)
    if given.part != "paper":
        larger(1 if given.quick else 4, plain=not given.quick)


def solve_once() -> None:
    """Solve one instance, so that everything is imported before times are taken."""
    instance = draw(10, 6, 4, replicas=5, family="mixed", seed=999)
    solve(instance.workload, instance.profile, options())


def paper_scale(count: int, limit_s: float) -> None:
    """Compare fractional routing and slices with the paper's program, on 60 buckets x 4 types and slice factor 8."""
    print(f"# Paper scale: 60 buckets x 4 types, slice factor {SLICES}, gap 0, {count} instances\n")
    print(
        f"{'family':30} {'paper ms':>9} {'cont. ms':>9} {'slices ms':>9} {'paper cost':>10} {'cont.':>9} {'slices':>9}"
    )
    families = [(family, replicas) for family in SPREAD_BY_FAMILY for replicas in REPLICAS]
    rows = []
    for seed in range(count):
        family, replicas = families[seed % len(families)]
        rows.append(one(draw(10, 6, 4, replicas=replicas, family=family, seed=seed), limit_s))
    print()
    for family in SPREAD_BY_FAMILY:
        for replicas in REPLICAS:
            part = [row for row in rows if row[0].name == f"{family}, about {replicas:g} replicas"]
            if part:
                ratios(part[0][0].name, part, limit_s)
    ratios("all", rows, limit_s, bars=True)


Row = tuple[Instance, PaperAnswer, tuple[Plan, float], tuple[Plan, float]]


def one(instance: Instance, limit_s: float) -> Row:
    """Solve an instance with the paper's program, with fractional routing, and with slices."""
    load = loads(instance.workload, instance.profile)
    cost = np.array([item.cost_per_h for item in instance.profile.replica_types])
    paper = solve_paper(load, cost, slices=SLICES, time_limit_s=limit_s)
    continuous, sliced = timed(instance, slices=None), timed(instance, slices=SLICES)
    mark = " " if paper.is_proven else "?"
    print(
        f"{instance.name:30} {paper.seconds * 1e3:8.0f}{mark} {continuous[1] * 1e3:9.1f} {sliced[1] * 1e3:9.1f} "
        f"{paper.cost_per_h or np.nan:10.2f} {continuous[0].cost_per_h:9.2f} {sliced[0].cost_per_h:9.2f}",
        flush=True,
    )
    return instance, paper, continuous, sliced


def timed(instance: Instance, slices: int | None) -> tuple[Plan, float]:
    """The plan, and the median time of three runs, or of one slow run [s]."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        plan = solve(instance.workload, instance.profile, options(slices=slices))
        seconds.append(time.perf_counter() - began)
        if seconds[-1] > 1:
            break
    return plan, float(np.median(seconds))


def ratios(name: str, rows: list[Row], limit_s: float, *, bars: bool = False) -> None:
    """Print the ratios of times, and whether costs are equal and all plans are proven."""
    paper = np.array([row[1].seconds if row[1].is_proven else max(limit_s, row[1].seconds) for row in rows])
    print(f"{name}: {len(rows)} instances, paper's program {np.median(paper):.2f} s in the median, "
          f"{sum(not row[1].is_proven for row in rows)} unproven at {limit_s:g} s")  # fmt: skip
    continuous, sliced = [row[2] for row in rows], [row[3] for row in rows]
    for label, found, median_bar, mean_bar in (("continuous", continuous, 25, 50), ("slices", sliced, 14, None)):
        times = np.array([seconds for _, seconds in found])
        ratio = paper / times
        print(
            f"  {label:10} {np.median(times) * 1e3:7.1f} ms median, {times.max() * 1e3:7.1f} ms at most; "
            f"faster {np.median(ratio):6.1f} x median, {np.exp(np.log(ratio).mean()):6.1f} x geometric mean, "
            f"{ratio.min():5.1f} x least"
        )
        if bars:
            unproven = sum(plan.gap > 0 or seconds > 1 for plan, seconds in found)
            bar = f"{median_bar} x median" + (f", {mean_bar} x geometric mean" if mean_bar else "")
            print(f"             targets: {bar}; proven within 1 s: {len(rows) - unproven} of {len(rows)}")
    if bars:
        proven = [row for row in rows if row[1].is_proven]
        unequal = [row for row in proven if abs((row[1].cost_per_h or np.inf) - row[3][0].cost_per_h) > 1e-6]
        worse = [row for row in rows if row[3][0].cost_per_h > (row[1].cost_per_h or np.inf) + 1e-6]
        more = [row[3][0].cost_per_h / row[2][0].cost_per_h - 1 for row in rows]
        print(f"  equal cost (slices) on {len(proven) - len(unequal)} of {len(proven)} proven instances, higher cost "
              f"than an unproven result on {len(worse)}; slices cost {np.mean(more):.3%} more than fractional routing, "
              f"{np.max(more):.2%} at most")  # fmt: skip


def larger(seeds: int, *, plain: bool) -> None:
    """Solve larger sizes to their gaps, compared with plain HiGHS on the same program (limit 30 s)."""
    print("\n# Beyond paper scale (plain: HiGHS on the whole program with the same gap, limit 30 s)\n")
    for inputs, outputs, types, gap, bar_s in SIZES:
        every = []
        for family in SPREAD_BY_FAMILY:
            for replicas in REPLICAS:
                cells = [size(inputs, outputs, types, gap, replicas, family, seed, plain) for seed in range(seeds)]
                every += cells
                own, gaps, others = (np.array(column, float) for column in zip(*cells, strict=True))
                beside = f", plain {np.median(others):6.2f} s" if plain else ""
                times = f"{np.median(own):6.2f} s median, {own.max():6.2f} s at most"
                name = f"{inputs * outputs} x {types}, {family}, about {replicas} replicas"
                print(f"{name}: {times}, largest gap {gaps.max():.1e}{beside}", flush=True)
        own = np.array([cell[0] for cell in every])
        within = sum(cell[1] <= gap and cell[0] <= bar_s for cell in every)
        print(f"{inputs * outputs} x {types}, all: {np.median(own):.2f} s median; "
              f"within gap {gap:g} and {bar_s:g} s: {within} of {len(every)}\n", flush=True)  # fmt: skip


def size(
    inputs: int, outputs: int, types: int, gap: float, replicas: float, family: str, seed: int, plain: bool
) -> tuple[float, float, float]:
    """Time [s], gap, and the time of plain HiGHS [s]; nan if it is not run."""
    instance = draw(inputs, outputs, types, replicas=replicas, family=family, seed=seed)
    began = time.perf_counter()
    plan = solve(instance.workload, instance.profile, options(gap=gap))
    own = time.perf_counter() - began
    return own, plan.gap, plain_highs(instance, gap) if plain else np.nan


def plain_highs(instance: Instance, gap: float) -> float:
    """Time of HiGHS alone on the whole program [s]."""
    began = time.perf_counter()
    settings = options(gap=gap)
    question = Question(workload=instance.workload, profile=instance.profile, options=settings)
    scope = scope_of(question)
    problem = build(question, scope.allowed, scope.served)
    minimise(formulate(problem).program, gap=gap, time_limit_s=30.0)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
