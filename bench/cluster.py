"""How much sooner a cluster answers: every job of a search timed here, then given to workers on paper.

    python bench/cluster.py               # certify three services and plan a week; a few minutes of CPU

Jobs run one after the other in this process and their CPU time is taken, also that between them. A list scheduler then
gives each group of jobs to the worker that is free first; what lies between groups nobody shares. What a machine takes
to start and the network to carry requests is not in it.
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

ROOT = Path(__file__).parents[1]
WORKERS = (1, 2, 4, 8, 16, 100)


class Stopwatch:
    """Runs jobs here, and takes the time of each."""

    def __init__(self) -> None:
        """With nothing taken yet."""
        self.groups: list[list[float]] = []

    def each_of(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        """Results in order, made at once."""
        found, times = [], []
        for job in jobs:
            began = time.process_time()
            found.append(function(job))
            times.append(time.process_time() - began)
        self.groups.append(times)
        yield from found


def makespan(times: Sequence[float], workers: int) -> float:
    """When the last of some jobs is done that go to whichever worker is free first [s]."""
    free = [0.0] * workers
    for each in times:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def timed(what: Callable[[], object]) -> tuple[float, list[list[float]]]:
    """CPU time outside of jobs [s], and that of the jobs by group."""
    watch = Stopwatch()
    began = time.process_time()
    with running_on(watch):
        what()
    inside = sum(map(sum, watch.groups))
    return time.process_time() - began - inside, watch.groups


def told(name: str, outside: float, groups: list[list[float]], alone: float) -> str:
    """A line of the table."""
    times = [outside + sum(makespan(group, workers) for group in groups) for workers in WORKERS]
    return f"| {name} | {alone:.1f} | {' | '.join(f'{alone / each:.1f}' for each in times)} |"


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    Session(ROOT / "examples" / "chat.yaml", settings=["slo.attainment=0.9", "workload.rate=2"]).answer()  # loads all
    print("| | alone [s] | " + " | ".join(f"{workers} workers" for workers in WORKERS) + " |")
    totals = []
    for name, settings in (
        ("certify examples/chat.yaml", []),
        ("certify it at 64 requests/s", ["workload.rate=64"]),
        ("rates under a percentile", ["slo={ttft_ms: 2000, tpot_ms: 80, statistic: p95}"]),
    ):
        session = Session(ROOT / "examples" / "chat.yaml", settings=settings)
        what = session.profile if "percentile" in name else session.answer
        began = time.process_time()
        what()
        alone = time.process_time() - began
        totals.append(alone)
        session = Session(ROOT / "examples" / "chat.yaml", settings=settings)
        print(told(name, *timed(session.profile if "percentile" in name else session.answer), alone), flush=True)
    week = ROOT / "examples" / "week.yaml"
    began = time.process_time()
    Session(week).schedule()
    alone = time.process_time() - began
    print(told("schedule examples/week.yaml", *timed(Session(week).schedule), alone), flush=True)


if __name__ == "__main__":
    main()
