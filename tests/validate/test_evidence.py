"""What one simulation shows of a plan, and why some answers cannot be simulated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planned import inputs, plan

from melange.plan.options import Options
from melange.plan.question import Question
from melange.slo import Slo
from melange.validate.evidence import REQUESTS, RUNS, is_certifiable, why_not_simulated, with_simulation
from melange.validate.observe import report
from melange.validate.simulate import draw_for, simulate


def test_a_plan_simulated_once_says_what_validate_says() -> None:
    """The same requests, the same share."""
    shown = with_simulation(plan()).simulation
    runs = [simulate(plan(), draw_for(plan(), REQUESTS, seed=seed), seed=seed) for seed in range(RUNS)]
    found = report(runs)
    held = found.attainment
    assert shown is not None
    assert held is not None
    assert (shown.attainment, shown.low) == (held.value, held.low)
    # Of each run the first and the last tenth do not count.
    assert (shown.requests, shown.seeds) == (0.8 * REQUESTS, RUNS)
    assert (found.requests, found.seeds, found.counted) == (REQUESTS, RUNS, 0.8 * REQUESTS * RUNS)


def asked(slo: Slo | None = None, options: Options | None = None) -> Question:
    """A question of three types whose steps are known."""
    workload, profile = inputs(12.0, slo=slo)
    return Question(workload=workload, profile=profile, options=options or Options())


def test_a_question_that_can_be_simulated_has_no_reason() -> None:
    """An SLO, sizes in tokens, and the steps of all types."""
    assert why_not_simulated(asked()) == ""


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (replace(asked(), profile=replace(asked().profile, slo=None)), "the profile names no SLO"),
        (
            replace(asked(), profile=replace(asked().profile, engines=())),
            "paper/L4, paper/A10G, paper/A100-80GB",
        ),
    ],
)
def test_a_question_that_cannot_be_simulated_says_why(question: Question, words: str) -> None:
    """In words that a sentence can end with."""
    assert words in why_not_simulated(question)


def test_a_budget_and_a_target_of_all_requests_leave_nothing_to_search_for() -> None:
    """What is planned under them is simulated as it is."""
    assert is_certifiable(asked())
    assert not is_certifiable(asked(options=Options(budget_per_h=3.0)))
    assert not is_certifiable(asked(slo=Slo(tpot_s=0.08, attainment=1)))
    assert not is_certifiable(asked(slo=Slo(tpot_s=0.08, statistic="mean")))
    assert not is_certifiable(replace(asked(), profile=replace(asked().profile, slo=None)))


def test_only_types_that_must_be_simulated_need_steps() -> None:
    """A type that is excluded, and one that a plan does not use."""
    question = asked()
    engines = question.profile.engines
    question = replace(question, profile=replace(question.profile, engines=(engines[0], None, engines[2])))
    assert "A10G" in why_not_simulated(question)
    assert why_not_simulated(question.with_options(exclude=("A10G",))) == ""
    assert why_not_simulated(question, np.array([True, False, True])) == ""
