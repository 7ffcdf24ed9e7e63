"""Speed-up by a cluster: the jobs of a search are timed in this process, then scheduled on a model of workers.

    python bench/cluster.py               # a few minutes of CPU
    python bench/cluster.py --only week   # cases whose name contains this
    python bench/cluster.py --measured 24 # with Ray: 24 services of bench/services on 1 and 2 real workers
    python bench/cluster.py --hundred     # the stored CPU times of the hundred services, scheduled on workers

Jobs run one after the other in this process, and their CPU time and the CPU time between them is measured. A list
scheduler then assigns the jobs of each group to the worker that is free first; the time between groups is not
parallelized. The start-up time of machines and network transfers are not included.

``--measured`` runs the services twice on each number of workers, in turn, and gives the median wall-clock times. All
workers load and compile everything before the clock starts. It needs an idle machine with two cores.
"""

from __future__ import annotations

import argparse
import heapq
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from statistics import median
from typing import Any

from melange.processes import each_of, on_cluster, running_on
from melange.service.session import Session

EXAMPLES = Path(__file__).parents[1] / "examples"
SERVICES = Path(__file__).parent / "services"
WORKERS = (1, 2, 4, 8, 16, 100)
PERCENTILE = "slo={ttft_ms: 2000, tpot_ms: 80, statistic: p95}"
CASES: dict[str, Callable[[], object]] = {
    "certify chat.yaml": lambda: Session(EXAMPLES / "chat.yaml").answer(),
    "certify it at 64 requests/s": lambda: Session(EXAMPLES / "chat.yaml", settings=["workload.rate=64"]).answer(),
    "rates under a percentile": lambda: Session(EXAMPLES / "chat.yaml", settings=[PERCENTILE]).profile(),
    "curves of explore": lambda: _explored(),
    "schedule week.yaml": lambda: Session(EXAMPLES / "week.yaml").schedule(),
}


class Stopwatch:
    """Runs jobs in this process, and measures the time of each."""

    def __init__(self) -> None:
        """No times are measured yet."""
        self.groups: list[list[float]] = []

    def each_of(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        """Results in order, after running all jobs."""
        found, times = [], []
        for job in jobs:
            began = time.process_time()
            found.append(function(job))
            times.append(time.process_time() - began)
        self.groups.append(times)
        yield from found


def _explored() -> object:
    session = Session(EXAMPLES / "chat.yaml")
    return session.explore(session.plan())


def makespan(times: Sequence[float], workers: int) -> float:
    """Time until the last job ends if each job goes to the worker that is free first [s]."""
    free = [0.0] * workers
    for each in times:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def row(name: str) -> str:
    """A line of the table: CPU time in this process [s], then the speed-up by number of workers."""
    case = CASES[name]
    began = time.process_time()
    case()
    alone = time.process_time() - began
    watch, began = Stopwatch(), time.process_time()
    with running_on(watch):
        case()
    between = time.process_time() - began - sum(map(sum, watch.groups))
    times = [between + sum(makespan(group, workers) for group in watch.groups) for workers in WORKERS]
    return f"| {name} | {alone:.1f} | {' | '.join(f'{alone / each:.1f}' for each in times)} |"


def _wall_s(jobs: Sequence[Any], workers: int) -> float:
    """Wall-clock time of jobs on a local Ray with that number of workers [s]."""
    import ray
    import run

    # Workers do not find the module: its function is sent to them, and adds the folder to their path.
    ray.cloudpickle.register_pickle_by_value(run)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        with on_cluster("local"):
            list(each_of(run.line_at, [(str(SERVICES), astuple(job)) for job in jobs[:workers]], 1))
            began = time.monotonic()
            list(each_of(run.line_at, [(str(SERVICES), astuple(job)) for job in jobs], 1))
            return time.monotonic() - began
    finally:
        ray.shutdown()


def measured(count: int) -> str:
    """Services on one and two real workers: median wall-clock times and the speed-up."""
    sys.path.insert(0, str(SERVICES))
    from draw import services
    from run import LIMIT_S, jobs_of

    given = argparse.Namespace(seed=1, planners=["default"], limit=LIMIT_S, again=True)
    jobs = jobs_of(services(given.seed, count), given)
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(2):
        for workers, found in times.items():
            found.append(_wall_s(jobs, workers))
            print(f"{workers} workers: {found[-1]:.1f} s", flush=True)
    one, two = (median(found) for found in times.values())
    return f"{count} services: {one:.1f} s on 1 worker, {two:.1f} s on 2 workers, {one / two:.2f} times as fast"


def hundred() -> str:
    """A line of the table from the stored times of ``bench/services/run.py``."""
    sys.path.insert(0, str(SERVICES))
    from results import file_of, read_lines

    times = [one.cpu_s for one in read_lines(file_of(1)) if one.planner == "default"]
    alone = sum(times)
    speedups = " | ".join(f"{alone / makespan(times, workers):.1f}" for workers in WORKERS)
    return f"| {len(times)} services of bench/services | {alone:.1f} | {speedups} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--measured", type=int, default=0, help="number of services to run on real workers")
    parser.add_argument("--hundred", action="store_true", help="schedule the stored times of the hundred services")
    given = parser.parse_args()
    if given.measured:
        print(measured(given.measured))
        return
    if given.hundred:
        print(hundred())
        return
    only = given.only
    Session(
        EXAMPLES / "chat.yaml", settings=["slo.attainment=0.9", "workload.rate=2"]
    ).answer()  # loads everything before times are taken
    print("| | alone [s] | " + " | ".join(f"{workers} workers" for workers in WORKERS) + " |", flush=True)
    for name in CASES:
        if only in name:
            print(row(name), flush=True)


if __name__ == "__main__":
    main()
