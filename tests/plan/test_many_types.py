"""Plans on hundreds of types, where the program of all types finds nothing within its time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plan_cases import offer, profile, workload

from melange.plan.fleet import Fleet
from melange.plan.milp.program import OutOfTimeError, by_program
from melange.plan.options import Options
from melange.plan.problem import Problem
from melange.plan.question import Question
from melange.plan.search_clock import by_work
from melange.plan.solve import solve


def single_stock(types: int) -> Question:
    """One instance of each type, of four sizes; the traffic needs five of the smallest and a bit."""
    rng = np.random.default_rng(0)
    speed = rng.choice([1.0, 2.0, 4.0, 8.0], types)
    rates = speed[:, None, None] * rng.uniform(0.5, 1.5, (types, 4, 2))
    costs = speed * rng.uniform(1.0, 1.5, types)
    offers = [offer(f"t{r}", float(cost), max_instances=1) for r, cost in enumerate(costs)]
    return Question(workload=workload(np.full((4, 2), 0.65)), profile=profile(offers, rates), options=Options())


@pytest.mark.parametrize("limit", [{}, {"max_types": 3}, {"slices": 8}], ids=["plain", "max_types", "slices"])
def test_the_types_that_serve_a_size_cheapest_are_tried_first(
    limit: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single large instance of 8.00 USD/h is found easily; smaller ones carry the same for a good 5."""
    question = single_stock(800).with_options(time_limit_s=5.0, **limit)

    def late(problem: Problem, *arguments: Any, **named: Any) -> Fleet:
        if len(problem.cost) > 200:
            raise OutOfTimeError("no plan was found in time")
        return by_program(problem, *arguments, **named)

    monkeypatch.setattr("melange.plan.cheapest.by_program", late)
    with by_work():
        plan = solve(question)
    alone = min(one.cost_per_h for one in plan.single_type.values() if one.cost_per_h)
    assert alone == pytest.approx(8.00, abs=0.01)
    assert plan.cost_per_h < 5.1
