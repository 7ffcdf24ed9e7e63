"""Many simulations at once are the same as one after the other."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from planned import plan

from melange.errors import InputError, MelangeError
from melange.processes import each_of
from melange.validate.observe import report
from melange.validate.pool import Job, run_all, run_job
from melange.validate.scenario import STEADY_SCENARIO
from melange.validate.simulate import draw_for

JOBS = [
    Job(
        plan=plan(),
        arrivals=draw_for(plan(), 400, seed=seed),
        policy="random",
        scenario=STEADY_SCENARIO,
        steps="slow",
        seed=seed,
    )
    for seed in range(3)
]


def test_processes_give_the_same_bytes_in_the_same_order() -> None:
    """Two processes, and none; progress is told up to the end."""
    told: list[float] = []
    here = run_all(JOBS, progress=told.append)
    there = run_all(JOBS, processes=2)
    assert report(here).dumps() == report(there).dumps()
    for one, other in zip(here, there, strict=True):
        assert one.outcome.finish_s.tobytes() == other.outcome.finish_s.tobytes()
    assert told == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_an_error_in_a_process_reaches_the_caller() -> None:
    """With its own words and its hint."""
    wrong = [replace(job, policy="randon") for job in JOBS]
    with pytest.raises(InputError, match="randon") as caught:
        list(each_of(run_job, wrong, 2, 2))
    assert "random" in str(caught.value) + str(caught.value.hint)


def test_a_process_that_is_killed_is_told() -> None:
    """As the kernel does when memory is short: no bug, and not the input's fault."""
    with pytest.raises(MelangeError, match="one of 2 worker processes was killed, probably") as caught:
        list(each_of(os._exit, [9, 9, 9], 2, 2))
    assert not isinstance(caught.value, InputError)
    assert "more memory" in caught.value.hint
