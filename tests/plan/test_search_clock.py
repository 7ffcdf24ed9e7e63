"""Searches that stop by their work, and not by the machine's clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from plan_cases import offer, profile, workload

from melange.plan.options import Options
from melange.plan.question import Question
from melange.plan.search_clock import by_work, count_linear, is_by_work, now_s
from melange.plan.solve import solve
from melange.plan.sweeps import SweepPoint, sweep_rates

# Work [s] so small that the searches below end with a gap.
_LITTLE_S = 0.1


def _hard() -> Question:
    """Thirty near-equal types and 32 sizes: half a second to prove."""
    rng, types, sizes = np.random.default_rng(3), 30, (8, 4)
    speed = rng.uniform(1.0, 4.0, types)
    rates = speed[:, None, None] * rng.uniform(0.6, 1.4, (types, *sizes))
    offers = [offer(f"t{r}", float(price)) for r, price in enumerate(speed * rng.uniform(0.97, 1.03, types))]
    options = Options(time_limit_s=_LITTLE_S, gap=0.0)
    return Question(workload=workload(rng.gamma(0.7, 1.0, sizes)), profile=profile(offers, rates), options=options)


@contextmanager
def _busy_machine() -> Iterator[None]:
    """Two processes for each core that only compute, in their first minutes."""
    compute = "import time\nwhile time.process_time() < 60: pass"
    running = [subprocess.Popen([sys.executable, "-c", compute]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def _found(points: tuple[SweepPoint, ...]) -> str:
    """All that a sweep says, and the bounds that its plans prove."""
    said = [(one.to_json("rate"), None if one.plan is None else one.plan.bound_per_h) for one in points]
    return json.dumps(said)


@pytest.mark.heavy
def test_a_busy_machine_draws_the_same_curves() -> None:
    """Searches that end early find the same fleets and bounds while other processes take the cores."""
    question, factors = _hard(), (0.5, 1.0, 1.5)
    idle = sweep_rates(question, factors)
    with _busy_machine():
        busy = sweep_rates(question, factors)
    assert any(one.plan is not None and one.plan.status == "time limit" for one in idle)
    assert _found(busy) == _found(idle)


def test_more_work_finds_more() -> None:
    """Where the work allowed grows, the gap shrinks until it is closed, and work hardly exceeds what is allowed."""
    question, found = _hard(), []
    for seconds in (_LITTLE_S, 4 * _LITTLE_S, 40 * _LITTLE_S):
        with by_work():
            found.append(solve(question.with_options(time_limit_s=seconds)))
            assert now_s() < 2 * seconds
    assert all(later.gap < earlier.gap for earlier, later in pairwise(found))
    assert found[-1].status == "optimal"


def test_the_machine_s_clock_is_back_afterwards() -> None:
    """Work is counted from 0 within the block alone, and an error ends the block too."""
    with by_work():
        assert is_by_work()
        assert now_s() < 0.01
        count_linear(rows=100, iterations=1000)
        assert 0.01 < now_s() < 0.1
    with pytest.raises(ZeroDivisionError), by_work():
        raise ZeroDivisionError
    assert not is_by_work()
    assert abs(now_s() - time.monotonic()) < 1.0
