"""Runs that are made ahead, as on a cluster: the same answer, and what is not needed counts nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from melange.processes import running_on
from melange.service.session import Session

CHAT = Path(__file__).parents[2] / "examples" / "chat.yaml"


class InOrder:
    """Workers that are this process."""

    def __init__(self) -> None:
        """With nothing run yet."""
        self.jobs = 0

    def each_of(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        """Results in order."""
        self.jobs += len(jobs)
        yield from map(function, jobs)


@pytest.mark.heavy
def test_a_plan_is_certified_the_same_by_workers_that_run_ahead() -> None:
    """Fleet, attainment and bound."""
    settings = ["workload.rate=2", "slo.attainment=0.9", "offers.gpus=[L4, A100-80GB]"]
    here = Session(CHAT, settings=settings).answer()
    workers = InOrder()
    with running_on(workers):
        there = Session(CHAT, settings=settings).answer()
    assert workers.jobs > 10
    assert there.certificate == here.certificate
    assert there.instances_by_name == here.instances_by_name
    assert (there.share == here.share).all()


@pytest.mark.heavy
def test_curves_are_the_same_by_workers() -> None:
    """Plans at other rates and limits."""
    session = Session(CHAT, settings=["offers.gpus=[L4, A100-80GB]"])
    plan = session.plan()
    here, workers = session.explore(plan), InOrder()
    with running_on(workers):
        there = session.explore(plan)
    assert workers.jobs > 30

    def costs(found: Any) -> list[float | None]:
        points = [*found.by_rate, *(point for sweep in found.by_limit for point in sweep.points)]
        return [None if one.plan is None else one.plan.cost_per_h for one in points]

    assert costs(there) == costs(here)
