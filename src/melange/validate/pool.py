"""Many simulations at once: in this process, on a process pool, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from melange.plan.plan import Plan
from melange.processes import each_of, on_cluster
from melange.validate.scenario import Scenario
from melange.validate.simulate import Run, simulate
from melange.workload.arrivals import Arrivals

# Fewer requests than this are simulated before new processes have started, because these import the simulator and read
# its compiled code: two took 4 s to start on two busy cores, as long as one takes for 400,000 requests, so two are
# worth it from 800,000 on.
_WORTH_A_PROCESS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """One simulation to run.

    Parameters
    ----------
    plan, arrivals, policy, scenario, steps, seed
        As in :func:`~melange.validate.simulate.simulate`.
    """

    plan: Plan
    arrivals: Arrivals
    policy: str
    scenario: Scenario
    steps: str
    seed: int


def run_job(job: Job) -> Run:
    """Run one simulation."""
    return simulate(job.plan, job.arrivals, policy=job.policy, scenario=job.scenario, steps=job.steps, seed=job.seed)


def run_all(
    jobs: Sequence[Job],
    *,
    processes: int | None = None,
    on: str | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[Run]:
    """Run simulations, in the order of the jobs.

    Parameters
    ----------
    jobs
        The simulations to run.
    processes
        Maximum parallel processes; None: one per core, or only one if that is faster.
    on
        Address of a Ray cluster (``ray://host:10001``, ``local``); None: this machine.
    progress
        Called with the part that is done, 0-1.

    Raises
    ------
    InputError
        A cluster cannot be reached, or Ray is not installed.
    """
    tell = progress or (lambda _: None)
    work = sum(len(job.arrivals) for job in jobs)
    is_worth_it = processes is not None or work >= _WORTH_A_PROCESS
    runs = []
    with on_cluster(on):
        for done, run in enumerate(each_of(run_job, jobs, 2 if is_worth_it else len(jobs) + 1, processes)):
            runs.append(run)
            tell((done + 1) / len(jobs))
    return runs
