"""Run planners on services, and test every plan on fresh requests.

    python bench/services/run.py                             # all planners on the hundred services of seed 1
    python bench/services/run.py --count 12 --planners default quick paper
    python bench/services/run.py --planners default --again  # after a change: ignores stored results

Results are stored in bench/out, one line for each service and planner, and are not computed again. Plans that clearly
hold and are cheaper than the best known plan of their service are added to bench/services/best_known.json. CPU seconds
are those of a process that has loaded and compiled everything before.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from draw import Service, services
from fresh import verdict
from melange.processes import each_of, on_cluster
from melange.replica.simulated.kernel import compilation_told
from melange.service.session import Session
from planners import PLANNERS, answered
from results import (
    OUT,
    Line,
    append,
    file_of,
    hash_of,
    read_best,
    read_lines,
    save_best,
    summary,
    table,
    with_best,
)

WARM_UP = Path(__file__).parents[2] / "examples" / "chat.yaml"
LIMIT_S = 600.0


@dataclass(frozen=True)
class Job:
    """A planner, the file of a service, and the limit on the planner's CPU time."""

    service: str
    text: str
    path: Path
    planner: str
    limit_s: float


def line_of(job: Job) -> Line:
    """The result of a job."""
    _warm_up()
    session = Session(job.path)
    target = session.slo.attainment
    assert target is not None
    answer = answered(job.planner, session, job.limit_s)
    line = Line(
        service=job.service,
        text=job.text,
        planner=job.planner,
        target=target,
        cpu_s=answer.cpu_s,
        claims=answer.claims,
        reason=answer.reason,
    )
    plan = answer.plan
    if plan is None:
        return line
    judged = verdict(plan, session.workload(), session.slo, target)
    return replace(
        line,
        cost_per_h=plan.cost_per_h,
        fleet={name: count for name, count in plan.instances_by_name.items() if count},
        attainment=judged.attainment,
        low=judged.low,
        high=judged.high,
        requests=judged.requests,
        stress=judged.stress,
    )


@cache
def _warm_up() -> None:
    """Load and compile everything that planners use, once per process."""
    session = Session(WARM_UP, settings=["slo.attainment=0.9", "workload.rate=2"])
    with compilation_told(lambda _: None):
        plan = session.plan()
        verdict(plan, session.workload(), session.slo, 0.5)


def jobs_of(drawn: Sequence[Service], given: argparse.Namespace) -> list[Job]:
    """The requested jobs without a stored result, in the order of services."""
    folder = OUT / "services"
    folder.mkdir(parents=True, exist_ok=True)
    known = {(one.service, one.text, one.planner) for one in read_lines(file_of(given.seed))}
    jobs = []
    for one in drawn:
        path = folder / f"{one.name}.yaml"
        path.write_text(one.text, encoding="utf-8")
        for planner in given.planners:
            job = Job(one.name, hash_of(one.text), path, planner, given.limit)
            if given.again or (job.service, job.text, job.planner) not in known:
                jobs.append(job)
    return jobs


def results(jobs: Sequence[Job], processes: int, on: str | None) -> Iterator[Line]:
    """The result of each job when it is done; on a cluster, in order."""
    if on is not None:
        with on_cluster(on):
            here = str(Path(__file__).parent)
            yield from each_of(line_at, [(here, astuple(job)) for job in jobs], 1)
        return
    if processes == 1:
        yield from map(line_of, jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(line_of, job) for job in jobs]):
            yield done.result()


def line_at(given: tuple[str, tuple[Any, ...]]) -> Line:
    """The result of a job on a worker, which has the folder of these files at the same path."""
    import sys

    folder, job = given
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import run

    return run.line_of(run.Job(*job))


def told(line: Line) -> str:
    """A result as a line of text."""
    who = f"{line.service} {line.planner:17}{line.cpu_s:7.1f} s"
    if line.cost_per_h is None:
        return f"{who}  none: {line.reason}"[:110]
    word = "holds" if line.holds else "misses"
    return f"{who}{line.cost_per_h:10.2f} USD/h  {line.attainment:.2%} of {line.target:.1%}, {word}"


def main() -> None:
    """Run the requested planners, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="seed of the set of services")
    parser.add_argument("--first", type=int, default=1, help="number of the first service")
    parser.add_argument("--count", type=int, default=100, help="number of the last service")
    parser.add_argument("--planners", nargs="+", choices=PLANNERS, default=list(PLANNERS), help="planners to run")
    parser.add_argument("--processes", type=int, default=1, help="number of parallel processes")
    parser.add_argument("--on", help="a Ray cluster whose workers have this folder: ray://host:10001, or local")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="CPU seconds of one planner on one service")
    parser.add_argument("--again", action="store_true", help="also run jobs with stored results")
    given = parser.parse_args()
    file = file_of(given.seed)
    drawn = services(given.seed, given.count)[given.first - 1 :]
    for line in results(jobs_of(drawn, given), given.processes, given.on):
        append(file, line)
        print(told(line), flush=True)
    current = {(one.name, hash_of(one.text)) for one in drawn}
    lines = [one for one in read_lines(file) if (one.service, one.text) in current]
    best = with_best(read_best(), lines)
    save_best(best)
    rows = [summary(name, [one for one in lines if one.planner == name], best) for name in given.planners]
    print(f"\n{len(current)} services of seed {given.seed}; cost of plans that hold, over the best known plan")
    print(table([row for row in rows if row.services]))


if __name__ == "__main__":
    main()
