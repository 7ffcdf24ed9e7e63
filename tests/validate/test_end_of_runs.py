"""What is counted of a run, and runs that are too short for their fleet to fill."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from searching import judge_of, small_service

import melange.validate.certify.judge
from melange.plan.solve import solve
from melange.validate.attainment import counted, met
from melange.validate.certify.certify import certify
from melange.validate.certify.trend import falls
from melange.validate.scenario import SCENARIOS
from melange.validate.simulate import draw_for, planned_workload, simulate

pytestmark = pytest.mark.heavy


def test_the_last_requests_of_steady_traffic_do_not_count() -> None:
    """Nothing comes after them; a ramp and a log end with what is to be seen, and count to their ends."""
    assert counted(1000) == slice(100, 900)
    assert counted(1000, has_end=False) == slice(100, 1000)
    plan = solve(small_service(24))
    drawn = draw_for(plan, 1000)
    assert simulate(plan, drawn).counted == slice(100, 900)
    assert simulate(plan, replace(drawn, is_shuffled=False)).counted == slice(100, 1000)
    assert simulate(plan, drawn, scenario=SCENARIOS["ramp"]).counted == slice(100, 1000)


@pytest.mark.parametrize("seed", range(5))
def test_chance_is_no_fall(seed: int) -> None:
    """Shares that only vary are taken for steady; those that fall by a third of the misses are not."""
    random = np.random.default_rng(seed)
    steady = [random.random(20_000) < 0.95 for _ in range(4)]
    falling = [random.random(20_000) < np.linspace(0.96, 0.94, 20_000) for _ in range(4)]
    assert not falls(steady, 0.95)
    assert falls(falling, 0.95)


def test_a_proof_whose_fleet_has_not_filled_is_made_again_with_longer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is every trial after it."""
    question = small_service(24)
    judge = judge_of(question, 0.5, requests=9000)
    trial = judge.trial(solve(question), np.ones(question.profile.max_request_rate.shape))
    length, told = judge.proof_length, iter([True, False])
    monkeypatch.setattr(melange.validate.certify.judge, "falls", lambda *_: next(told))
    proof = judge.proof(trial)
    assert proof.shortest == judge.requests > trial.shortest
    assert judge.proof_length == pytest.approx(3 * length, rel=0.01)
    assert judge.trial(trial.plan, trial.factor).shortest == judge.requests


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
