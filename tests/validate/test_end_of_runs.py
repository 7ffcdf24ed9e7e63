"""What is counted of a run, and runs that are too short for their fleet to fill."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from searching import judge_of, small_service

import melange.validate.certify.judge as judge_module
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.slo import Slo
from melange.validate.attainment import Interval, attainment, counted, met
from melange.validate.certify.certify import certify
from melange.validate.certify.plan_trial import Trial
from melange.validate.certify.trend import falls, falls_later
from melange.validate.run_lengths import settling
from melange.validate.scenario import SCENARIOS
from melange.validate.simulate import draw_for, planned_workload, simulate
from melange.workload.workload import Array

pytestmark = pytest.mark.heavy


def test_the_last_requests_of_steady_traffic_do_not_count() -> None:
    """Nothing comes after them; a ramp and a log end with what is to be seen, and count to their ends."""
    assert counted(1000) == slice(100, 900)
    assert counted(1000, has_end=False) == slice(100, 1000)
    plan = solve(small_service(24))
    drawn = draw_for(plan, 1000)
    assert simulate(plan, drawn).counted.stop == 900
    assert simulate(plan, replace(drawn, is_shuffled=False)).counted == slice(100, 1000)
    assert simulate(plan, drawn, scenario=SCENARIOS["ramp"]).counted == slice(100, 1000)


def test_requests_that_arrive_while_a_fleet_fills_do_not_count() -> None:
    """Those of 1.5 times as long as a request may stay, up to half of the run; of a log all but the first tenth."""
    assert counted(1000, settling=300) == slice(300, 900)
    assert counted(1000, settling=50) == slice(100, 900)
    assert counted(1000, settling=900) == slice(500, 900)
    # 100 tokens of 50 ms each stay 5 s: at 20 requests/s 150 arrive in 1.5 times as long.
    assert settling(20.0, 100.0, Slo(tpot_s=0.05)) == 150
    assert settling(20.0, 100.0, Slo(latency_s=3.0)) == 90
    assert settling(20.0, 100.0, None) == settling(math.inf, 100.0, Slo(tpot_s=0.05)) == 0
    plan = solve(small_service(24))
    drawn = draw_for(plan, 1000)
    filling = simulate(plan, drawn).counted.start
    assert filling == settling(drawn.rate, float(drawn.output_tokens.mean()), plan.slo) > 100


def test_a_first_part_that_meets_a_filling_fleet_turns_no_plan_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it misses by far: a fleet that fills may miss more than later."""
    question = small_service(24)
    judge, plan = judge_of(question, 0.9, requests=4000), solve(question)
    factor = np.ones(question.profile.max_request_rate.shape)
    runs: list[int] = []

    def missing(share: float) -> None:
        judge.known.clear()
        runs.clear()

        def with_run(_before: Trial | None, plan: Plan, _factor: Array, requests: int, number: int) -> Trial:
            runs.append(requests)
            held = Interval(value=1 - share, low=1 - share - 0.001, high=1 - share + 0.001)
            sample = np.arange(requests) * 37 % 100 >= 100 * share
            return replace(trial, attainment=held, by_class=((sample,),))

        monkeypatch.setattr(judge_module.Judge, "_with_run", lambda _self, *a: with_run(*a))
        judge.trial(plan, factor)

    trial = judge.trial(plan, factor)
    judge.settling = 1500
    missing(0.15)
    assert runs == [1000, 4000]
    missing(0.25)
    assert runs == [1000]
    judge.settling = 500
    missing(0.15)
    assert runs == [1000]


@pytest.mark.parametrize("seed", range(5))
def test_chance_is_no_fall(seed: int) -> None:
    """Shares that only vary are taken for steady; those that fall by a third of the misses are not."""
    random = np.random.default_rng(seed)
    steady = [random.random(20_000) < 0.95 for _ in range(4)]
    falling = [random.random(20_000) < np.linspace(0.96, 0.94, 20_000) for _ in range(4)]
    assert not falls(steady, 0.95)
    assert falls(falling, 0.95)
    assert not falls_later(steady, [random.random(50_000) < 0.95], 0.95)
    assert falls_later(steady, [random.random(50_000) < 0.94], 0.95)


def test_a_proof_whose_fleet_has_not_filled_is_made_again_with_longer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is every trial after it."""
    question = small_service(24)
    judge = judge_of(question, 0.5, requests=9000)
    trial = judge.trial(solve(question), np.ones(question.profile.max_request_rate.shape))
    length, told = judge.proof_length, iter([True, False])
    monkeypatch.setattr(judge_module, "falls", lambda *_: next(told))
    proof = judge.proof(trial)
    assert proof.shortest == judge.requests > trial.shortest
    assert judge.proof_length == pytest.approx(3 * length, rel=0.01)
    assert judge.trial(trial.plan, trial.factor).shortest == judge.requests


def test_a_proven_fleet_that_holds_less_later_is_proven_again_with_longer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that grows slowly shows in no run of a proof."""
    question = small_service(24)
    judge = judge_of(question, 0.5, requests=2000)
    judge.checks_each = True
    trial = judge.trial(solve(question), np.ones(question.profile.max_request_rate.shape))
    with_run = judge_module.Judge._with_run

    def slower_later(self: judge_module.Judge, before: Trial | None, plan: Plan, *rest: Any) -> Trial:
        found = with_run(self, before, plan, *rest)
        if rest[1] < 100_000:
            return found
        late = [np.concatenate([run[:50_000], np.zeros(max(0, len(run) - 50_000), bool)]) for run in found.samples]
        return replace(found, by_class=(tuple(late),), attainment=attainment(late))

    monkeypatch.setattr(judge_module.Judge, "_with_run", slower_later)
    proof = judge.proof(trial)
    assert judge.requests > 2000
    assert judge.proof_length > 50_000
    assert not judge.is_proven(proof)


def test_sizes_that_no_type_serves_come_all_the_same() -> None:
    """They take room and miss; where the user drops them they do not come."""
    asked = small_service(24)
    fits = asked.workload.input_tokens + asked.workload.output_tokens <= 1000
    rates = asked.profile.max_request_rate * fits
    engines = tuple(one and replace(one, kv_tokens=1000.0 * one.full_layers) for one in asked.profile.engines)
    asked = replace(
        asked, profile=replace(asked.profile, engines=engines, max_request_rate=rates, low=rates, high=rates)
    )
    target = 0.8
    whole = certify(asked, target=target)
    dropped = certify(asked.with_options(drop_unservable=True), target=target)
    assert whole.certificate is not None
    assert dropped.certificate is not None
    assert planned_workload(whole).total_rate == pytest.approx(asked.workload.total_rate)
    assert planned_workload(dropped).total_rate < asked.workload.total_rate
    assert whole.certificate.rate == pytest.approx(asked.workload.total_rate)
    run = simulate(whole, draw_for(whole, 20_000, seed=1))
    slo = asked.profile.slo
    assert slo is not None
    share = met(run.outcome, slo)[run.counted].mean()
    assert share == pytest.approx(whole.certificate.attainment, abs=0.02)
