"""Runs of a plan, made on request; on a cluster, runs that may be requested one after another are made at once.

Runs that were made ahead and not requested count nowhere, so the answer is the same. Runs that compare plans simulate a
part of a large fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from melange.plan.plan import Plan
from melange.processes import each_of, is_on_cluster
from melange.replica.policy import POLICIES, PREFIX_AFFINITY
from melange.validate.certify.part_of_fleet import part_of
from melange.validate.certify.spare import without_spare
from melange.validate.simulate import Run, simulate
from melange.workload.arrivals import Arrivals

# Makes the requests of a run, from their count and the run's number.
Drawn = Callable[[int, int], Arrivals]
_Job = tuple[Plan, Arrivals, str, int, Mapping[str, int] | None]


class RunsAhead:
    """The runs of one plan at a time."""

    def __init__(self, drawn: Drawn, policy: str, in_part: int) -> None:
        """Use requests that are ``drawn``, balanced by a policy; runs with a number below ``in_part`` may be in part.

        Prefix affinity always gets the whole fleet: its cache hits depend on the number of replicas.
        """
        self._drawn, self._policy = drawn, policy
        self._in_part = 0 if policy == POLICIES[PREFIX_AFFINITY] else in_part
        self._plan: Plan | None = None
        self._made: dict[tuple[int, int], list[Run]] = {}

    def prepare(self, plan: Plan, sets: Sequence[tuple[int, int]]) -> None:
        """On a cluster, make the runs with these counts of requests and numbers."""
        self._plan, self._made = plan, {}
        if not is_on_cluster():
            return
        jobs = [(one, job) for one in sets for job in self._jobs(plan, *one)]
        for (one, _), run in zip(jobs, each_of(_simulated, [job for _, job in jobs], 1), strict=True):
            self._made.setdefault(one, []).append(run)

    def runs(self, plan: Plan, requests: int, number: int) -> list[Run]:
        """A run; with spare replicas, one run for each type that loses some."""
        made = self._made.pop((requests, number), None) if plan is self._plan else None
        return made or list(map(_simulated, self._jobs(plan, requests, number)))

    def _jobs(self, plan: Plan, requests: int, number: int) -> list[_Job]:
        lost = without_spare(plan)
        fewer = part_of(plan.replicas, requests) if number < self._in_part and lost == [None] else None
        if fewer is None:
            arrivals = self._drawn(requests, number)
            return [(plan, arrivals, self._policy, abs(number), counts) for counts in lost]
        part = sum(fewer.values()) / sum(plan.replicas.values())
        arrivals = self._drawn(round(requests * part), number)
        return [(plan, arrivals.at_rate(arrivals.rate * part), self._policy, abs(number), fewer)]


def _simulated(job: _Job) -> Run:
    """One simulation."""
    plan, arrivals, policy, seed, counts = job
    return simulate(plan, arrivals, policy=policy, seed=seed, counts=counts)
