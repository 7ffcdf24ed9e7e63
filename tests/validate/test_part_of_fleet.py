"""Large fleets are compared in part and proven whole; the same proof is made once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from searching import judge_of, small_service, with_options

from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.validate.certify.headroom import as_asked
from melange.validate.certify.part_of_fleet import part_of
from melange.validate.certify.runs_ahead import RunsAhead
from melange.workload.arrivals import draw

LEAST_LOADED, AFFINITY = "plan-least-work", "prefix-affinity"


def test_a_part_has_enough_replicas_and_requests_and_the_same_proportions() -> None:
    """At least 48 replicas of each type and 20,000 requests, and no type is off by more than 0.4 %."""
    assert part_of({"a": 376}, 200_000) == {"a": 54}
    assert part_of({"a": 376, "b": 0}, 60_000) == {"a": 125}
    assert part_of({"a": 95}, 1_000_000) is None
    assert part_of({"a": 376}, 39_000) is None
    assert part_of({"a": 96, "b": 144}, 1_000_000) == {"a": 48, "b": 72}
    assert part_of({"a": 100, "b": 97}, 1_000_000) is None
    assert part_of({"a": 1000, "b": 3}, 1_000_000) is None


def large(question: Question, count: int = 200) -> Plan:
    """A fleet of many instances of one type, at a rate that one in eight of them carries."""
    plan = solve(question)
    r = int(plan.instances.argmax())
    instances, share = np.zeros_like(plan.instances), np.zeros_like(plan.share)
    instances[r], share[r] = count, plan.share.sum(axis=0) > 0
    return as_asked(replace(plan, instances=instances, share=share), question)


def runs(plan: Plan, number: int, policy: str = LEAST_LOADED) -> tuple[int, int, float]:
    """Replicas, requests and rate [1/s] of a run of 60,000 requests."""
    ahead = RunsAhead(lambda count, seed: draw(plan.workload.at_rate(90.0), count, seed=seed), policy, in_part=1000)
    (run,) = ahead.runs(plan, 60_000, number)
    return len(run.type_of), len(run.arrivals), run.arrivals.rate


def test_runs_that_compare_plans_are_of_a_part_and_proofs_of_the_whole() -> None:
    """A third of the replicas gets a third of the requests, at a third of the rate, in the same time."""
    plan = large(small_service(11))
    assert runs(plan, 1) == (67, 20_100, pytest.approx(90.0 * 67 / 200, rel=0.03))
    assert runs(plan, 1000) == (200, 60_000, pytest.approx(90.0, rel=0.03))


def test_cache_hits_and_spare_replicas_depend_on_the_whole_fleet() -> None:
    """Neither prefix affinity nor a fleet that loses replicas is simulated in part."""
    question = small_service(11)
    assert runs(large(question), 1, AFFINITY)[:2] == (200, 60_000)
    spare = large(with_options(question, spare_replicas=2))
    assert runs(spare, 1)[:2] == (198, 60_000)


def test_a_plan_is_proven_once_on_the_same_requests() -> None:
    """A second proof simulates nothing, counts as no further look, and says the same."""
    question = small_service(11)
    judge = judge_of(question, 0.9)
    plan = solve(question)
    trial = judge.trial(plan, np.ones(plan.share.shape))
    first = judge.proof(trial)
    work_s, doubt = judge.work_s, judge.looks.wider(plan)
    second = judge.proof(trial)
    assert (judge.work_s, judge.looks.wider(plan)) == (work_s, doubt)
    assert second.attainment == first.attainment
