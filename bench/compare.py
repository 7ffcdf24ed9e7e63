"""Cost, time and bound of Melange and of the Mélange release's program on the same inputs.

    python bench/compare.py

The first row of each input is the paper's binary program (bench/paper_program.py), solved with CBC as in the authors'
release and in AIBrix's GPU optimizer. Times are medians of three runs and include building the model.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import melange
from melange.profile.formats.profiles import read_melange_config
from melange.profile.profile import Profile
from melange.workload.workload import PAPER_INPUT_EDGES, PAPER_OUTPUT_EDGES, Workload
from paper_program import solve_paper

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "release.json"
PAPER_PRICES = {"L4": 0.70, "A10G": 1.01, "A100-80GB": 3.67, "H100-80GB": 7.516}  # USD/h, paper's section 6.1


def paper_scale(rate: float) -> tuple[Workload, Profile]:
    """Arena traffic on the paper's four types, with its prices and its limit of 120 ms, and our estimated rates."""
    grid = melange.Buckets(input_edges=PAPER_INPUT_EDGES, output_edges=PAPER_OUTPUT_EDGES)
    workload = melange.dataset("arena", buckets=grid, request_rate=rate).with_upper_sizes()
    offers = [
        melange.Offer(provider="paper", region="", instance_type=gpu, accelerator=gpu, accelerators=1, cost_per_h=price)
        for gpu, price in PAPER_PRICES.items()
    ]
    model = melange.find_model("meta-llama/Llama-3.1-8B")
    return workload, melange.estimate(model, offers, melange.Slo(ntpot_s=0.12, statistic="mean"), workload)


def timed(run: Callable[[], tuple[float, str]], repeats: int = 3) -> tuple[float, str, float]:
    """Result of a run, and its median time [s]."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        cost, words = run()
        seconds.append(time.perf_counter() - start)
    return cost, words, statistics.median(seconds)


def compare(title: str, workload: Workload, profile: Profile, slices: int) -> None:
    """Print the rows of one input."""
    print(title)
    rates, request_rate = (
        profile.max_request_rate.reshape(len(profile.replica_types), -1),
        workload.request_rate.ravel(),
    )
    needed = (request_rate > 0) & (rates > 0).any(axis=0)
    with np.errstate(divide="ignore"):
        load = request_rate[needed] / rates[:, needed]
    prices = np.array([replica_type.cost_per_h for replica_type in profile.replica_types])

    def release() -> tuple[float, str]:
        answer = solve_paper(load, prices, slices=slices)
        words = "no bound given" if answer.is_proven else "stopped at 30 s, unproven, no bound given"
        return answer.cost_per_h or float("nan"), words

    def ours(grain: int | None) -> Callable[[], tuple[float, str]]:
        options = melange.Options(headroom=0.0, slices=grain, gap=0.0, drop_unservable=True)

        def run() -> tuple[float, str]:
            plan = melange.solve(workload, profile, options)
            return plan.cost_per_h, f"bound {plan.bound_per_h:.2f}, gap {plan.gap:.1%}"

        return run

    rows = {
        f"release, AIBrix: {slices} slices": release,
        f"melange: {slices} slices": ours(slices),
        "melange: continuous": ours(None),
    }
    for name, run in rows.items():
        cost, words, seconds = timed(run)
        print(f"  {name:30}{cost:8.2f} USD/h {seconds * 1e3:9.1f} ms   {words}")


def main() -> None:
    """Compare on the release's example and at the paper's scale."""
    workload, profile, settings = read_melange_config(EXAMPLE)
    rate = json.loads(EXAMPLE.read_text())["total_request_rate"]
    compare(f"the release's example.json, {rate:g} requests/s", workload, profile, settings["slices"])
    for rate in (4.0, 32.0):
        compare(f"Arena, 60 sizes x 4 types at the paper's prices, {rate:g} requests/s", *paper_scale(rate), 8)


if __name__ == "__main__":
    main()
