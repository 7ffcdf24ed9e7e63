"""Targets that no fleet reaches: answered with what can be reached, and with what would lift it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from planned import inputs
from searching import fresh, with_options
from test_tolerance import question

from melange.errors import InfeasibleError
from melange.plan.certificate import Certificate
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.slo import Slo
from melange.validate.attainment import attainment, counted, met
from melange.validate.certify.attainable import attainable
from melange.validate.certify.certify import certify
from melange.validate.certify.diagnosis import REACH_REQUESTS, reach_of
from melange.validate.simulate import simulate
from melange.workload.arrivals import Arrivals, draw
from melange.workload.workload import Workload

pytestmark = pytest.mark.heavy

LIMITS: list[dict[str, float]] = [
    {"ttft_s": 0.2},
    {"latency_s": 3.0},
    {"ntpot_s": 0.0155},
    {"ttft_s": 0.25, "tpot_s": 0.05},
]
TOLD = re.compile(r"(TTFT|TPOT|NTPOT|LATENCY) <= ([\d.]+) (ms|s)\b")


def of_papers(limits: dict[str, float]) -> Question:
    """Long prompts on L4, A10G and A100."""
    workload, profile = inputs(4.0, "arxiv-summarization", Slo(**limits))
    return Question(workload=workload, profile=profile)


def looked_at(asked: Question) -> Arrivals:
    """The requests whose times alone are looked at."""
    return draw(asked.workload, REACH_REQUESTS, seed=0)


def slo_of(asked: Question) -> Slo:
    """Its limits."""
    assert asked.profile.slo is not None
    return asked.profile.slo


def proof_of(plan: Plan) -> Certificate:
    """Its certificate."""
    assert plan.certificate is not None
    return plan.certificate


@cache
def beyond() -> Plan:
    """A tenth of the prompts is too long for 200 ms on any type."""
    return certify(question(Slo(ttft_s=0.2), 0.9, 0.05, 0.05), target=0.95)


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_limits_lifted_by_the_factor_that_is_told_bring_the_target_within_reach(limits: dict[str, float]) -> None:
    """And no smaller one does."""
    asked = of_papers(limits)
    requests = [looked_at(asked)]
    bound = attainable(asked, slo_of(asked), requests)
    for target in (bound.share + 0.3 * (1 - bound.share), 0.99, 0.9999):
        times = bound.lifted_by(target)
        assert times > 1
        for part, is_enough in ((1.0, True), (1 - 1e-6, False)):
            lifted = Slo(**{name: limit * times * part for name, limit in limits.items()})
            assert (attainable(asked, lifted, requests).share >= target - 1e-12) == is_enough
    assert bound.lifted_by(bound.share) == 1.0


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("wanted", [0.98, 0.99])
def test_the_limits_that_are_told_suffice(limits: dict[str, float], wanted: float) -> None:
    """As they stand in the sentence, rounded; and a hundredth less does not."""
    asked = of_papers(limits)
    requests = looked_at(asked)
    reach = reach_of(asked, slo_of(asked), requests, wanted)
    assert reach.share < wanted
    told = {name.lower() + "_s": float(n) * (1e-3 if u == "ms" else 1.0) for name, n, u in TOLD.findall(reach.why[-1])}
    assert told
    assert set(told) <= set(limits)
    assert reach.why[-1].startswith(f"{wanted:.2%} becomes feasible with ")
    assert attainable(asked, Slo(**(limits | told)), [requests]).share >= wanted
    tighter = Slo(**(limits | {name: 0.99 * limit for name, limit in told.items()}))
    assert attainable(asked, tighter, [requests]).share < wanted


def test_less_than_half_of_what_is_wanted_is_refused() -> None:
    """With the share within reach: a plan for it would be no answer."""
    asked = of_papers({"latency_s": 1.5})
    with pytest.raises(InfeasibleError, match=r"at most 2\d\.\d+% meet it") as caught:
        reach_of(asked, slo_of(asked), looked_at(asked), 0.99)
    assert "becomes feasible with LATENCY <=" in caught.value.reasons[-1]


def test_a_plan_holds_what_can_be_reached_and_says_what_was_wanted() -> None:
    """The target is lower than what was wanted and than the reach, and holds on fresh requests."""
    plan, proof = beyond(), proof_of(beyond())
    assert proof.target < proof.reach < 0.95 == proof.wanted
    assert proof.reach == pytest.approx(0.9, abs=0.01)
    assert proof.reach - proof.target <= 1 - 0.95
    assert proof.target <= proof.low <= proof.attainment <= proof.reach + 0.01
    assert fresh(plan).value >= proof.target
    assert "10.0" in proof.beyond_reach[0] or "9.9" in proof.beyond_reach[0]
    assert "the TTFT limit even alone" in proof.beyond_reach[0]
    assert "95.00% becomes feasible with TTFT <=" in proof.beyond_reach[1]
    assert Plan.from_json(plan.to_json()).certificate == proof


def test_requests_that_miss_alone_are_carried_all_the_same() -> None:
    """The plan sends every size somewhere, and its prices are those of the whole traffic."""
    plan = beyond()
    assert plan.share.sum(axis=0)[plan.workload.request_rate > 0] == pytest.approx(1.0)
    assert plan.workload.total_rate == pytest.approx(2.0)


def test_within_reach_nothing_is_lowered() -> None:
    """And nothing said."""
    proof = proof_of(certify(question(Slo(ttft_s=2.0), 0.9, 0.05, 0.05), target=0.9))
    assert (proof.target, proof.wanted, proof.reach, proof.beyond_reach) == (0.9, 0.9, 1.0, ())


def test_a_target_at_the_very_edge_is_lowered_to_what_plans_were_seen_to_hold() -> None:
    """Within reach only for replicas that never have two requests: answered, and the reason told."""
    asked = question(Slo(ttft_s=0.2), 0.9, 0.05, 0.05)
    share = attainable(asked, slo_of(asked), [looked_at(asked)]).share
    said: list[str] = []
    plan = certify(asked, target=share, progress=said.append)
    proof = proof_of(plan)
    assert proof.wanted == share
    assert 0.8 < proof.target < share
    assert proof.low >= proof.target
    assert proof.beyond_reach[0].startswith("no plan was found that reaches more than ")
    assert any(reason.endswith("1-100 out") for reason in proof.beyond_reach)
    assert any(one.startswith("no plan reaches ") and f"reaches {proof.target:.2%}" in one for one in said)
    assert fresh(plan).value >= proof.target


def test_a_target_of_which_next_to_nothing_can_be_reached_is_refused() -> None:
    """With the share that is within reach, by how much the others miss, and no search."""
    asked = of_papers({"ttft_s": 0.01})
    said: list[str] = []
    with pytest.raises(InfeasibleError, match=r"no fleet of the allowed .* at most 0% meet") as caught:
        certify(asked, progress=said.append)
    assert "100% of the requests exceed the TTFT limit even alone" in caught.value.reasons[0]
    assert "faster replica types" in str(caught.value.hint)
    assert said == []


def with_room_for(asked: Question, tokens: int) -> Question:
    """The question on replicas that hold no more than some tokens."""
    fits = asked.workload.input_tokens + asked.workload.output_tokens <= tokens
    rates = asked.profile.max_request_rate * fits
    engines = tuple(one and replace(one, kv_tokens=float(tokens * one.full_layers)) for one in asked.profile.engines)
    profile = replace(asked.profile, engines=engines, max_request_rate=rates, low=rates, high=rates)
    return replace(asked, profile=profile)


UNFIT = with_room_for(question(Slo(ttft_s=2.0), 0.92, 0.03, 0.05), 4000)


def of_everything(plan: Plan, workload: Workload) -> float:
    """Share of all requests that meet the limits under a plan, those included that it does not serve."""
    slo = slo_of(plan.question)
    drawn = draw(workload, 40_000, seed=71_000)
    outcome = simulate(plan, drawn).outcome
    return attainment([met(outcome, slo)[counted(len(outcome.arrival_s))]]).value


def test_sizes_that_fit_into_no_type_count_as_missed() -> None:
    """One prompt in twenty: at most 95 % can be reached, and what a certificate says is of all requests."""
    plan = certify(UNFIT, target=0.9)
    proof = proof_of(plan)
    assert proof.reach == pytest.approx(0.95, abs=0.005)
    assert 0.9 <= proof.low <= proof.attainment <= 0.955
    assert (plan.share.sum(axis=0)[:2] > 0.99).all()
    assert not plan.share[:, 2].any()
    assert of_everything(plan, UNFIT.workload) >= 0.9


def test_a_target_above_what_fits_is_lowered_and_no_limit_lifts_it() -> None:
    """99 %, where 5 % fit nowhere."""
    proof = proof_of(certify(UNFIT, target=0.99))
    assert 0.93 < proof.target < proof.reach < 0.96
    assert "fit on no allowed type" in proof.beyond_reach[0]
    assert "no looser limit makes" in proof.beyond_reach[1]


def test_sizes_that_are_to_be_dropped_do_not_count() -> None:
    """The target is that of the others: 99 % of them are within reach, and met."""
    plan = certify(with_options(UNFIT, drop_unservable=True), target=0.99)
    proof = proof_of(plan)
    assert (proof.target, proof.reach, proof.beyond_reach) == (0.99, 1.0, ())
    assert proof.low >= 0.99
    assert plan.question.options.drop_unservable
    assert fresh(plan).value >= 0.99


def test_sizes_of_a_log_that_fit_into_no_type_count_once() -> None:
    """Drawn from a log, requests that are left out of the plan are none of those that it is tried with."""
    log = draw(UNFIT.workload, 5000, seed=5)
    plan = certify(UNFIT, target=0.9, observed=log)
    proof = proof_of(plan)
    assert proof.low >= 0.9
    assert proof.attainment > 0.9
    dropped = certify(with_options(UNFIT, drop_unservable=True), target=0.99, observed=log)
    assert (proof_of(dropped).target, proof_of(dropped).reach) == (0.99, 1.0)
    assert np.isfinite(dropped.cost_per_h)
