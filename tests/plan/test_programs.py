"""Random programs with every option, planned and judged independently; ``make programs`` tries 20,000 of them."""

from __future__ import annotations

import numpy as np
import pytest
from judging import finding, incumbent_finding

from melange.plan.fleet import busy
from melange.plan.milp.highs import Solved
from melange.plan.milp.program import contradiction
from melange.plan.problem import build
from melange.plan.question import Question
from melange.plan.servable import scope_of
from programs import draw

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("first", range(0, 240, 20))
def test_no_plan_breaks_a_limit_or_is_proven_and_beaten(first: int) -> None:
    """Against a program of its own, and in NumPy."""
    found = {seed: finding(draw(seed)) for seed in range(first, first + 20)}
    assert not {seed: what for seed, what in found.items() if what}


# Found by it in former releases: a loss with slices, thin traffic that no instance carried, a last replica lost.
@pytest.mark.parametrize(
    "seed",
    [
        *(1_000_027, 1_000_177, 1_000_181, 2_000_234, 2_001_132, 3_005_315, 20_261_126_019_229, 20_261_126_019_921),
        *(4_711_126_006_365, 4_711_126_006_946, 4_711_126_014_211, 26_112_781_004_428),
        *(26_112_781_006_449, 26_112_781_008_534, 26_112_781_009_838),
    ],
)
def test_programs_that_failed_stay_right(seed: int) -> None:
    """Each ended in an error of the solver, or was proven and beaten."""
    assert not finding(draw(seed))


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_no_fleet_as_cheap_changes_less(first: int) -> None:
    """Beside a fleet in force, with every option but a budget, under which traffic is what is sought."""
    programs = {seed: draw(seed) for seed in range(first, first + 10)}
    tried = {seed: one for seed, one in programs.items() if one.options.budget_per_h is None}
    found = {seed: incumbent_finding(one, seed) for seed, one in tried.items()}
    assert not {seed: what for seed, what in found.items() if what}


def test_a_proof_that_a_smaller_fleet_contradicts_is_found() -> None:
    """The solver called 705.54 USD/h optimal, where one instance less carries the traffic; the true optimum stands."""
    program = draw(26_112_781_004_428)
    question = Question(workload=program.workload, profile=program.profile, options=program.options)
    scope = scope_of(question)
    problem = build(question, scope.allowed, scope.served)

    def claimed(*instances: int) -> Solved:
        count = np.array(instances, float)
        nothing = np.empty(0)
        bound = float(problem.cost @ count)
        return Solved(status="optimal", x=count, bound=bound, row_dual=nothing, reduced_cost=nothing)

    smaller = contradiction(problem, claimed(5, 4, 0, 135, 15))
    assert smaller is not None
    assert smaller.instances.sum() == 5 + 4 + 135 + 15 - 1
    assert (busy(problem, smaller.share) <= problem.carried(smaller.instances) * (1 + 1e-9)).all()
    assert contradiction(problem, claimed(5, 0, 0, 123, 0)) is None
