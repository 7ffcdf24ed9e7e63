"""How much slower steps may be before a certified plan no longer holds, and how likely they are not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from searching import fresh, judge_of, small_service

from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.routing import replica_engines, types_of
from melange.replica.step_errors import common_part, factor_at
from melange.validate.attainment import met
from melange.validate.certify.certify import certify
from melange.validate.certify.margin import Trials, chance_of, trials_of
from melange.validate.observe import type_of_requests
from melange.validate.simulate import draw_for, simulate


@cache
def certified(seed: int, confidence: float | None = None, require: tuple[str, ...] = ()) -> Plan:
    """The plan of a small service."""
    question = small_service(seed)
    options = Options(confidence=confidence, require=require)
    return certify(Question(workload=question.workload, profile=question.profile, options=options))


def mixed() -> Plan:
    """A plan of two types."""
    return certified(4, require=("L4", "A100-80GB"))


def trials(plan: Plan) -> Trials:
    """Trials on the requests of a search."""
    assert plan.certificate
    return trials_of(plan, judge_of(plan.question, plan.certificate.target))


def held_at(plan: Plan, factor: float) -> float:
    """Share of fresh requests that meet the SLO where all steps take this many times as long."""
    requests = draw_for(plan, 30_000, seed=70_000)
    run = simulate(plan, requests, slowdown=factor)
    assert plan.slo
    return float(met(run.outcome, plan.slo)[run.counted].mean())


@pytest.mark.heavy
@pytest.mark.parametrize("seed", [2, 20])
def test_a_plan_holds_within_its_margin_and_not_beyond(seed: int) -> None:
    """On fresh requests, with steps a little less and a little more slow than the margin says."""
    plan = certified(seed)
    assert plan.certificate
    margin, target = plan.certificate.margin, plan.certificate.target
    assert margin is not None
    assert margin >= 0
    # A share of 30,000 requests, and the margin of 10,000, are known to so much.
    assert held_at(plan, 1 + 0.5 * margin) > target - 0.003
    assert held_at(plan, (1 + margin) * 1.15) < target


@pytest.mark.heavy
def test_the_chance_is_the_share_of_random_step_times_that_hold() -> None:
    """Random numbers and fresh requests in place of even ones: the same share, of one type and of two."""
    random = np.random.default_rng(5)
    for plan in (certified(20), mixed()):
        types = types_of(plan)
        cards = [plan.replica_types[r].offer.accelerator for r in types]
        requests = draw_for(plan, 10_000, seed=70_001)
        held = []
        for _ in range(200):
            common, own = random.standard_normal(), {card: random.standard_normal() for card in cards}
            slowdown = np.ones(len(plan.replica_types))
            for r, engine, card in zip(types, replica_engines(plan, types), cards, strict=True):
                w = common_part(engine)
                slowdown[r] = factor_at(engine, w * common + np.sqrt(1 - w * w) * own[card])
            run = simulate(plan, requests, slowdown=slowdown)
            assert plan.slo
            assert plan.certificate
            held.append(met(run.outcome, plan.slo)[run.counted].mean() >= plan.certificate.target)
        # 200 random draws are known to 4 points (one standard deviation).
        assert plan.certificate.chance == pytest.approx(np.mean(held), abs=0.12)


@pytest.mark.heavy
def test_most_draws_follow_from_others() -> None:
    """A plan on slower steps holds no more: what is concluded is what simulating each draw says."""
    plan = mixed()

    class Each(Trials):
        """Simulates every draw."""

        def holds(self, factor: np.ndarray) -> bool:
            self.held.clear()
            self.failed.clear()
            return Trials.holds(self, factor)

    some = trials(plan)
    every = Each(plan=plan, arrivals=some.arrivals, policy=some.policy, used=some.used, offset=some.offset)
    assert chance_of(some, 64) == pytest.approx(chance_of(every, 64), abs=1 / 64)
    assert len(some.held) + len(some.failed) < 40


@pytest.mark.heavy
@pytest.mark.parametrize("seed", [2, 20])
def test_a_plan_with_confidence_holds_as_often_as_asked(seed: int) -> None:
    """It costs no less than the plan without, has a wider margin, and holds on fresh requests as estimated."""
    plain, cautious = certified(seed), certified(seed, 0.8)
    assert plain.certificate
    assert cautious.certificate
    assert cautious.certificate.chance >= 0.78
    assert cautious.cost_per_h >= plain.cost_per_h
    assert cautious.certificate.margin > plain.certificate.margin
    assert fresh(cautious).value >= cautious.certificate.target
    assert cautious.options.confidence == 0.8


@pytest.mark.heavy
def test_a_half_is_the_estimate_itself() -> None:
    """Confidence 0.5 asks for the plan that is made without."""
    plain, half = certified(2), certified(2, 0.5)
    assert half.cost_per_h == pytest.approx(plain.cost_per_h)


@pytest.mark.heavy
def test_margin_and_chance_survive_a_file() -> None:
    """With the steps that it was certified on; older files say none of it."""
    plan = certified(2, 0.8)
    again = Plan.from_json(plan.to_json())
    assert again.certificate == plan.certificate
    content = plan.to_json()
    for key in ("margin", "chance", "slowed_by"):
        del content["certificate"][key]
    assert Plan.from_json(content).certificate == replace(plan.certificate, margin=None, chance=None, slowed_by={})
    content["certificate"]["single_type"] = "T4"
    with pytest.raises(InputError, match=r"certificate\.single_type: 'T4': no such name in replica_types"):
        Plan.from_json(content)


@pytest.mark.heavy
def test_each_type_may_have_its_own_slowdown() -> None:
    """One number for all, or one for each type of the plan."""
    plan = mixed()
    requests = draw_for(plan, 2_000, seed=1)
    slower = np.ones(len(plan.replica_types))
    first, *others = types_of(plan)
    slower[first] = 1.5
    one, none = simulate(plan, requests, slowdown=slower), simulate(plan, requests)
    assert one.slowdown == (1.5, *(1.0 for _ in others))
    tpot = [run.outcome.tpot_s[type_of_requests(run) == 0].mean() for run in (one, none)]
    assert tpot[0] > 1.3 * tpot[1]
