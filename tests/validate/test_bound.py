"""The cost that no fleet holds below: fleets that cost less miss in simulation, and plans that hold cost more."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from searching import fresh, small_service

from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.solve import with_instances
from melange.slo import Slo
from melange.validate.certify.bound import least_cost
from melange.validate.certify.certify import certify
from melange.validate.certify.thinning import of_rows

pytestmark = pytest.mark.heavy

RATE = 40.0


def of_one_type(seed: int, place: int) -> Question:
    """A drawn service at a higher rate, on one replica type."""
    asked = small_service(seed)
    one = of_rows(asked.profile, [place], [asked.profile.replica_types[place]])
    return replace(asked, workload=asked.workload.at_rate(RATE), profile=one)


def slo_of(question: Question) -> Slo:
    """Its SLO."""
    assert question.profile.slo is not None
    return question.profile.slo


def largest_below(question: Question) -> Plan | None:
    """The largest fleet below the bound; None where that is no fleet at all."""
    bound = least_cost(question, slo_of(question), slo_of(question).target)
    price = question.profile.replica_types[0].cost_per_h
    count = 0 if bound is None else math.ceil(bound / price - 1e-6) - 1
    found = with_instances(question.with_options(drop_unservable=True), np.array([count])) if count else None
    return found if found is not None and found.served_fraction == 1 else None


@pytest.mark.parametrize("seed", range(12))
def test_fleets_below_the_bound_miss(seed: int) -> None:
    """The largest fleet of a type that costs less than the bound does not hold."""
    for place in range(3):
        question = of_one_type(seed, place)
        plan = largest_below(question)
        if plan is not None:
            assert fresh(plan).value < slo_of(question).target


@pytest.mark.parametrize("seed", [3, 8, 21])
def test_what_holds_costs_no_less_than_the_bound(seed: int) -> None:
    """And the plan says the bound."""
    asked = small_service(seed)
    plan = certify(asked)
    bound = least_cost(asked, slo_of(asked), slo_of(asked).target)
    assert bound is not None
    assert plan.bound_per_h == pytest.approx(min(bound, plan.cost_per_h))
    assert plan.cost_per_h >= bound * (1 - 1e-9)


def test_a_limit_on_tokens_makes_the_bound_higher() -> None:
    """Full throughput alone says nothing of time between tokens; a target that lets all be late is that again."""
    asked = of_one_type(1, 1)
    tight, loose = Slo(tpot_s=0.04, attainment=0.95), Slo(tpot_s=10.0, attainment=0.95)
    bounds = [least_cost(asked, slo, target) for slo, target in ((tight, 0.95), (loose, 0.95), (tight, 1e-9))]
    assert bounds[0] is not None
    assert bounds[1] is not None
    assert bounds[0] > 1.2 * bounds[1]
    assert bounds[2] == pytest.approx(bounds[1])
