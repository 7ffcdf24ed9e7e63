"""Speed and memory of the simulator, and the time of its first call.

    python bench/simulate.py            # all (about 5 minutes)
    python bench/simulate.py --quick    # only the speed, with few repeats

The traffic is azure-conversation over 8 replicas. Speed is requests per second of CPU time in one process, the median
of repeats, compared in the same run with the plain simulation of the tests (every step individually, in Python). Memory
is the peak of a separate process. The first call also runs in a separate process: with the shipped kernel, and with
Numba and an empty cache of compiled code.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "replica"))

import numpy as np

from melange.catalog.bundled import find_model
from melange.catalog.catalog import load_catalog
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.routing import policy_state
from melange.plan.solve import solve
from melange.profile.estimate import estimate
from melange.replica.policy import POLICIES
from melange.slo import Slo
from melange.workload.arrivals import Arrivals
from melange.workload.datasets import dataset

REPLICAS, RATE = 8, 50.0
REQUESTS, PLAIN_REQUESTS, REPEATS = 200_000, 2_000, 7
SIZES = (1_000_000, 3_000_000, 10_000_000)
LEAST_RATE, MOST_GIB, MOST_FIRST_S = 200_000, 2.0, 1.0
VIDUR_S = 2.3e-3  # CPU time per request of Vidur, a common simulator, measured on another machine


def plan_of() -> Plan:
    """A plan of 8 replicas for azure-conversation."""
    workload = dataset("azure-conversation", request_rate=RATE)
    offers = load_catalog().select(gpus=["L4", "A10G", "A100-80GB", "H100-80GB"], providers=["aws"]).offers
    profile = estimate(find_model("meta-llama/Llama-3.1-8B"), offers, Slo(tpot_s=0.08), workload)
    plan = solve(workload, profile, Options(min_total_replicas=REPLICAS))
    if sum(plan.replicas.values()) != REPLICAS:
        raise SystemExit(f"the plan has {sum(plan.replicas.values())} replicas, not {REPLICAS}")
    return plan


def requests_of(plan: Plan, count: int) -> Arrivals:
    """Requests of the plan's traffic."""
    from melange.validate.simulate import draw_for

    return draw_for(plan, count, seed=1)


def speed(repeats: int) -> tuple[list[float], list[float]]:
    """Requests per second of CPU time, of the compiled and the plain simulation in turn."""
    from reference import Job, play_slowly

    from melange.validate.simulate import simulate

    plan = plan_of()
    many, few = requests_of(plan, REQUESTS), requests_of(plan, PLAIN_REQUESTS)
    run = simulate(plan, few)  # compiles before times are taken
    engines = [run.engines[t] for t in run.type_of]
    quick, plain = [], []
    for _ in range(repeats):
        began = time.process_time()
        simulate(plan, many)
        quick.append(REQUESTS / (time.process_time() - began))
        rows = zip(few.arrival_s.tolist(), few.input_tokens.tolist(), few.output_tokens.tolist(), strict=True)
        jobs = [Job(number, *row, 0, 0) for number, row in enumerate(rows)]
        began = time.process_time()
        play_slowly(engines, policy_state(plan), POLICIES.index(run.policy), jobs, [], 0)
        plain.append(PLAIN_REQUESTS / (time.process_time() - began))
        finish_s = np.array([job.finish_s for job in jobs])
        assert np.allclose(run.outcome.finish_s, finish_s, rtol=1e-9, atol=1e-9)  # the same results
    return quick, plain


def memory(count: int) -> tuple[float, float, float]:
    """Peak of a process that draws, simulates and reports requests [GiB], and CPU times of the last two [s]."""
    said = _in_a_process("--memory", str(count))
    peak, simulated_s, reported_s = map(float, said.split())
    return peak, simulated_s, reported_s


def measure_memory(count: int) -> None:
    """Print peak and times of this process."""
    from melange.validate.observe import report
    from melange.validate.simulate import simulate

    plan = plan_of()
    simulate(plan, requests_of(plan, 100))
    arrivals = requests_of(plan, count)
    began = time.process_time()
    run = simulate(plan, arrivals)
    simulated = time.process_time()
    report([run])
    reported = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(peak, simulated - began, reported - simulated)


def first_call(is_compiled_here: bool) -> float:
    """CPU time of the first 100 requests in a process without cached code [s]."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"NUMBA_CACHE_DIR": folder, "MELANGE_COMPILE": str(int(is_compiled_here))}
        return float(_in_a_process("--first", environment=environment))


def measure_first() -> None:
    """Print the CPU time of the first simulation, including its import."""
    plan = plan_of()
    began = time.process_time()
    from melange.validate.simulate import simulate

    simulate(plan, requests_of(plan, 100))
    print(time.process_time() - began)


def _in_a_process(*arguments: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def main() -> None:
    """Print the results and their targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the speed")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--first", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        measure_memory(given.memory)
    elif given.first:
        measure_first()
    else:
        print_all(given.quick)


def print_all(is_quick: bool) -> None:
    """Print speed, memory and the first call."""
    quick, plain = speed(3 if is_quick else REPEATS)
    middle, slow = statistics.median(quick), statistics.median(plain)
    print(f"azure-conversation over {REPLICAS} replicas, single core, {len(quick)} repeats")
    print(f"  {middle:,.0f} requests/s ({min(quick):,.0f} to {max(quick):,.0f}; target {LEAST_RATE:,})")
    print(
        f"  {middle / slow:,.0f} times as fast as the plain simulation in Python ({slow:,.0f} requests/s), "
        "with identical results"
    )
    print(
        f"  {middle * VIDUR_S:,.0f} times as fast as Vidur at its {VIDUR_S * 1e3:g} ms per request, "
        "measured on another machine"
    )
    if is_quick:
        return
    for count in SIZES:
        peak, simulated_s, reported_s = memory(count)
        print(
            f"  {count / 1e6:g} million requests: {peak:.2f} GiB at most (target {MOST_GIB:g}), {simulated_s:.1f} s, "
            f"report {reported_s:.1f} s"
        )
    shipped, here = (statistics.median(first_call(is_here) for _ in range(3)) for is_here in (False, True))
    print(
        f"  first call in a process: {shipped:.1f} s of CPU (target {MOST_FIRST_S:g} s), {here:.1f} s if Numba compiles"
    )


if __name__ == "__main__":
    main()
