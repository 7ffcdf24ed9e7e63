"""Certified plans: the target holds on requests that nobody has seen, the price is told, and the hopeless ends."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from planned import inputs

from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.slo import Slo
from melange.validate.attainment import attainment, counted, met
from melange.validate.certify.certify import certify
from melange.validate.simulate import draw_for, simulate

FRESH = range(10_000, 10_004)
SLO = Slo(ntpot_s=0.12, attainment=0.995)


@cache
def certified(burstiness: float = 1.0) -> Plan:
    """A plan that misses too often before it is certified."""
    return certify(*inputs(4.0, "arxiv-summarization", SLO), burstiness=burstiness)


def fresh(plan: Plan, burstiness: float = 1.0) -> float:
    """Share of requests that meet the SLO, drawn with seeds that no certificate uses."""
    samples = []
    for seed in FRESH:
        outcome = simulate(plan, draw_for(plan, 20_000, seed=seed, burstiness=burstiness), seed=seed).outcome
        samples.append(met(outcome, SLO)[counted(outcome)])
    return attainment(samples).value


def test_a_certified_plan_holds_on_fresh_requests_where_the_uncertified_one_does_not() -> None:
    """The target is met by requests with other seeds, and the certificate says what certainty cost."""
    plan, before = certified(), solve(*inputs(4.0, "arxiv-summarization", SLO))
    proof = plan.certificate
    assert proof is not None
    assert fresh(before) < 0.995 <= fresh(plan)
    assert proof.low >= proof.target == 0.995
    assert proof.attainment_before < 0.995
    assert proof.cost_before_per_h == pytest.approx(before.cost_per_h)
    assert proof.price(plan.cost_per_h) == pytest.approx(plan.cost_per_h / before.cost_per_h - 1)
    assert plan.status == "certified"
    assert set(proof.headroom) == {name for name, n in plan.replicas.items() if n}


def test_a_certificate_survives_its_file() -> None:
    """And the plan with it carries all of the traffic."""
    again = Plan.from_json(certified().to_json())
    assert again.certificate == certified().certificate
    assert again.share.sum(axis=0)[again.workload.request_rate > 0] == pytest.approx(1.0)


def test_the_same_inputs_give_the_same_certificate() -> None:
    """Nothing is left to chance."""
    again = certify(*inputs(4.0, "arxiv-summarization", SLO))
    first, second = ({**one.to_json(), "solve_s": 0} for one in (certified(), again))
    assert first == second


def test_slack_that_the_simulation_shows_makes_a_plan_cheaper() -> None:
    """A loose limit and half of each replica kept free: the certified plan gives back what it does not need."""
    workload, profile = inputs(12.0, "azure-conversation", Slo(tpot_s=0.25))
    roomy = Options(headroom=0.5)
    plan = certify(workload, profile, roomy)
    assert plan.certificate is not None
    assert plan.cost_per_h < solve(workload, profile, roomy).cost_per_h
    assert plan.certificate.low >= plan.certificate.target == 0.99


def test_bursts_cost_more() -> None:
    """Arrivals of burstiness 3 need at least the replicas that Poisson ones need, and their plan holds for them."""
    bursty = certified(3.0)
    assert bursty.cost_per_h >= certified().cost_per_h
    assert fresh(bursty, 3.0) >= 0.995


def test_a_higher_target_never_costs_less() -> None:
    """Half of the requests, 99.5 %."""
    half = certify(*inputs(4.0, "arxiv-summarization", SLO), target=0.5)
    assert half.certificate is not None
    assert half.certificate.target == 0.5
    assert half.cost_per_h <= certified().cost_per_h


def test_what_cannot_be_certified_is_refused() -> None:
    """No SLO, a budget, no engines, a target that is no share."""
    workload, profile = inputs(4.0, "arxiv-summarization", SLO)
    with pytest.raises(InputError, match="no SLO"):
        certify(workload, replace(profile, slo=None))
    with pytest.raises(InputError, match="budget"):
        certify(workload, profile, Options(budget_per_h=5.0))
    with pytest.raises(InputError, match="steps"):
        certify(workload, replace(profile, engines=()))
    with pytest.raises(InputError, match="target"):
        certify(workload, profile, target=1.0)


def test_limits_of_the_options_hold_for_certified_plans() -> None:
    """At most so many instances, and at most so many types."""
    workload, profile = inputs(4.0, "arxiv-summarization", SLO)
    plan = certify(workload, profile, Options(max_types=1, exclude=("L4",)))
    assert np.count_nonzero(plan.instances) == 1
    assert not any("L4" in name for name, n in plan.replicas.items() if n)
