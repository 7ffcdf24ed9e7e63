"""What a search knows before its program ends badly is what it answers with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import melange.plan.cheapest as module
from melange.errors import InfeasibleError
from melange.plan.exact.start import first_fleets
from melange.plan.fleet import Fleet
from melange.plan.milp.program import OutOfTimeError
from melange.plan.options import Options
from melange.plan.problem import build
from melange.plan.question import question_of
from melange.plan.servable import scope_of
from melange.plan.solve import solve, with_instances
from programs import Program, draw


def _several(options: dict[str, Any]) -> list[Program]:
    """Programs of five types and more that have a first fleet."""
    drawn = [draw(seed) for seed in range(400)]
    chosen = [one for one in drawn if len(one.profile.replica_types) >= 5]
    return [replace(one, options=Options(**options)) for one in chosen][:12]


def _first_cost(program: Program) -> float | None:
    """What the fleet costs that is found before any program is solved; None: there is none."""
    question = question_of(program.workload, program.profile, program.options)
    scope = scope_of(question)
    problem = build(question, scope.allowed, scope.served)
    found = first_fleets(problem)
    return float(problem.cost @ found[0]) if found else None


@pytest.mark.parametrize("options", [{}, {"slices": 8}, {"slices": 3, "spare_replicas": 1}])
@pytest.mark.parametrize("ends", ["worse", "without a plan"])
def test_a_program_that_ends_badly_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], ends: str
) -> None:
    """With a fleet twice as large as the known one, or with none: its slices are kept too."""

    def by_program(problem: Any, *_: Any, known: Fleet | None = None, **__: Any) -> Fleet:
        assert known is not None
        if ends == "without a plan":
            raise OutOfTimeError("no plan was found")
        return replace(known, instances=known.instances * 2, status="time limit")

    monkeypatch.setattr(module, "by_program", by_program)
    monkeypatch.setattr(module, "MOST_POINTS", 0)
    tried = 0
    for program in _several({"drop_unservable": True, **options}):
        first = _first_cost(program)
        if first is None:
            continue
        plan = solve(program.workload, program.profile, program.options)
        assert plan.cost_per_h <= first * (1 + 1e-9)
        assert plan.bound_per_h is not None
        assert plan.bound_per_h <= plan.cost_per_h * (1 + 1e-9)
        if "slices" in options:
            slices = plan.share * options["slices"]
            assert np.allclose(slices, np.round(slices))
        tried += 1
    assert tried >= 3


def test_a_given_fleet_may_be_larger_than_its_traffic_can_need() -> None:
    """Fifty times the solver's fleet, at a fiftieth of its load; a limit of the options still forbids it."""
    tried = 0
    for seed in range(60):
        program = draw(seed)
        question = question_of(program.workload, program.profile, Options(drop_unservable=True))
        scope = scope_of(question)
        try:
            plan = solve(question)
        except InfeasibleError:
            continue
        if build(question, scope.allowed, scope.served).limits:  # of the offers
            continue
        larger = with_instances(question, 50 * plan.instances)
        assert larger is not None
        assert larger.instances.tolist() == (50 * plan.instances).tolist()
        assert larger.load.max() <= plan.load.max() / 50 + 1e-9
        name, count = next((name, count) for name, count in plan.instances_by_name.items() if count)
        limited = question.with_options(max_instances={name: 50 * count - 1})
        assert with_instances(limited, 50 * plan.instances) is None
        tried += 1
    assert tried > 10
