"""Speed-up by a cluster: the jobs of a search are timed in this process, then scheduled on a model of workers.

    python bench/cluster.py               # a few minutes of CPU
    python bench/cluster.py --only week   # cases whose name contains this

Jobs run one after the other in this process, and their CPU time and the CPU time between them is measured. A list
scheduler then assigns the jobs of each group to the worker that is free first; the time between groups is not
parallelized. The start-up time of machines and network transfers are not included.
"""

from __future__ import annotations

import argparse
import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from melange.processes import running_on
from melange.service.session import Session

EXAMPLES = Path(__file__).parents[1] / "examples"
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    only = parser.parse_args().only
    Session(
        EXAMPLES / "chat.yaml", settings=["slo.attainment=0.9", "workload.rate=2"]
    ).answer()  # loads everything before times are taken
    print("| | alone [s] | " + " | ".join(f"{workers} workers" for workers in WORKERS) + " |", flush=True)
    for name in CASES:
        if only in name:
            print(row(name), flush=True)


if __name__ == "__main__":
    main()
