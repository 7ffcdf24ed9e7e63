"""Classes of requests in simulation: each by its own limits, and a plan holds where each of them does."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from melange.catalog.bundled import find_model
from melange.catalog.offer import Offer
from melange.errors import InputError
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.profile.estimate import estimate
from melange.slo import RequestClass, Slo
from melange.validate.attainment import met
from melange.validate.certify.certify import certify
from melange.validate.observe import report
from melange.validate.simulate import draw_for, simulate
from melange.workload.arrivals import Arrivals
from melange.workload.request_classes import of_classes, rate_by_class, with_classes
from melange.workload.workload import Buckets, Workload

BUCKETS = Buckets(input_edges=(500, 1000), output_edges=(100, 200))
TIGHT, LOOSE = Slo(ttft_s=0.5, tpot_s=0.05), Slo(latency_s=120.0, attainment=0.9)


def workload(rate: float) -> Workload:
    """Prompts of 250 and 750 tokens."""
    return Workload.at_upper_edges(BUCKETS, np.array([[0.5, 0.2], [0.1, 0.2]]) * rate)


def slo_of(first: Slo, second: Slo, priority: int = 1) -> Slo:
    """An SLO of two classes."""
    classes = (RequestClass(name="default", slo=first), RequestClass(name="batch", slo=second, priority=priority))
    return replace(first, classes=classes)


def question(slo: Slo, rate: float = 20.0, share: float = 0.4) -> Question:
    """Two classes on L40S."""
    both = of_classes({"default": workload(rate * (1 - share)), "batch": workload(rate * share)})
    offer = Offer(
        provider="aws",
        region="",
        instance_type="g6e.xlarge",
        accelerator="L40S",
        accelerators=1,
        cost_per_h=1.86,
    )
    return Question(workload=both, profile=estimate(find_model("meta-llama/Llama-3.1-8B-Instruct"), [offer], slo, both))


@cache
def planned() -> Plan:
    """Their plan by closed form, on fewer replicas than it needs."""
    return solve(question(slo_of(TIGHT, LOOSE)).with_options(headroom=0.0))


def test_each_request_is_judged_by_the_limits_of_its_class() -> None:
    """And drawn as often as its class comes."""
    plan = planned()
    arrivals = draw_for(plan, 3000, seed=7)
    assert arrivals.class_of is not None
    assert np.bincount(arrivals.class_of) / 3000 == pytest.approx([0.6, 0.4], abs=0.03)
    run = simulate(plan, arrivals)
    assert plan.slo is not None
    judged = met(run.outcome, plan.slo)
    for k, own in enumerate((TIGHT, LOOSE)):
        here = arrivals.class_of == k
        alone = met(replace(run.outcome, class_of=None), own)
        np.testing.assert_array_equal(judged[here], alone[here])
    told = report([run])
    assert [one.name for one in told.classes] == ["default", "batch"]
    counted = judged[run.counted]
    classes = arrivals.class_of[run.counted]
    for k, one in enumerate(told.classes):
        assert one.attainment == pytest.approx(float(counted[classes == k].mean()))
        assert one.requests == int((classes == k).sum())
    assert told.holds == all(one.low >= one.target for one in told.classes)


def test_priority_lets_the_first_class_pass_the_other() -> None:
    """Under more load than the replicas take, and only where engines order by it."""
    plan = planned()
    rush = draw_for(plan, 3000, seed=2, scale=1.6)
    ordered, plain = simulate(plan, rush).outcome, simulate(plan, rush, in_order=True).outcome
    first = rush.class_of == 0
    assert ordered.ttft_s[first].mean() < 0.5 * plain.ttft_s[first].mean()
    assert ordered.ttft_s[~first].mean() > plain.ttft_s[~first].mean()


def test_requests_must_say_their_class_or_be_given_one() -> None:
    """By the shares of their size; always the same one."""
    plan = planned()
    drawn = draw_for(plan, 2000, seed=3)
    unsaid = replace(drawn, class_of=None)
    with pytest.raises(InputError, match="each must be of one of the classes default, batch"):
        simulate(plan, unsaid)
    given = with_classes(unsaid, plan.workload)
    assert given.class_of is not None
    assert np.bincount(given.class_of) / 2000 == pytest.approx([0.6, 0.4], abs=0.04)
    np.testing.assert_array_equal(with_classes(unsaid, plan.workload).class_of, given.class_of)
    assert with_classes(drawn, plan.workload) is drawn


def test_a_class_of_its_own_sizes_is_recognized_by_them() -> None:
    """Where only one class has a size, its requests are of that class."""
    other = workload(4.0)
    rate = other.request_rate.copy()
    rate[0] = 0.0
    both = of_classes({"default": workload(6.0), "batch": replace(other, request_rate=rate)})
    short = Arrivals(
        arrival_s=np.arange(50.0), input_tokens=np.full(50, 300, np.int32), output_tokens=np.full(50, 80, np.int32)
    )
    found = with_classes(short, both).class_of
    assert found is not None
    assert (found == 0).all()
    assert rate_by_class(both) == pytest.approx({"default": 6.0, "batch": 1.2})


@pytest.mark.heavy
@pytest.mark.parametrize("rate", [6.0, 20.0])
def test_every_class_of_a_certified_plan_holds_and_apart_costs_no_less(rate: float) -> None:
    """Also on fresh requests; the proof names each class."""
    slo = slo_of(TIGHT, LOOSE)
    plan = certify(question(slo, rate))
    assert plan.certificate is not None
    assert [one.name for one in plan.certificate.classes] == ["default", "batch"]
    assert all(one.holds for one in plan.certificate.classes)
    told = report([simulate(plan, draw_for(plan, 20_000, seed=seed)) for seed in (901, 902)])
    assert all(one.attainment >= one.target for one in told.classes)
    offers = [one.offer for one in plan.replica_types if not one.pool]
    apart = 0.0
    for own, traffic in ((TIGHT, workload(rate * 0.6)), (LOOSE, workload(rate * 0.4))):
        profile = estimate(find_model("meta-llama/Llama-3.1-8B-Instruct"), offers[:1], own, traffic)
        apart += certify(Question(workload=traffic, profile=profile)).cost_per_h
    assert plan.cost_per_h <= apart + 1e-6
