"""Why a plan is what it is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from plan_cases import authors, offer, profile, random_case, workload

from melange.plan.certificate import Certificate
from melange.plan.explain import explain
from melange.plan.options import Options
from melange.plan.solve import solve
from melange.workload.workload import Buckets, Workload

EXACT = Options(headroom=0.0, gap=0.0)


def test_cheaper_fleet_and_steps_of_the_authors_example():
    """One A100 alone would be at 9/8 of what it may take; the next request per second costs one more A10G."""
    load, rates = authors()
    told = explain(solve(load, rates, EXACT))
    assert told.cheaper.replicas == {"A100-80GB": 1}
    assert told.cheaper.peak == pytest.approx(9 / 8)
    assert "A100-80GB is short by 0.12 replicas" in told.cheaper.violation
    assert told.next_step_per_h == pytest.approx(1.01)
    assert np.allclose(told.marginal_per_h, [[0.505, 1.01], [0.202, 0.505]])
    assert told.next_request_per_h == pytest.approx(0.404)
    json.dumps(told.to_json(), allow_nan=False)
    assert len(told.lines()) == 2


@pytest.mark.parametrize("seed", range(6))
def test_break_even_prices_by_solving_anew(seed):
    """A little below its break-even price an unused type is worth having, a little above it is not."""
    load, rates = random_case(seed, holes=0.0)
    plan = solve(load, rates, EXACT)
    told = explain(plan)
    assert told.is_exact
    for name, price in told.break_even_per_h.items():
        for factor, cheaper in ((0.99, True), (1.01, False)):
            offers = [
                offer(item.name, price * factor if item.name == name else item.cost_per_h)
                for item in rates.replica_types
            ]
            again = solve(load, profile(offers, rates.max_request_rate), EXACT)
            assert (again.cost_per_h < plan.cost_per_h - 1e-9) is cheaper


def test_costs_of_buckets_add_up_to_the_plan():
    """Cost per million tokens, times the tokens of each bucket, is the plan's cost."""
    buckets = Buckets(input_edges=(100, 1000), output_edges=(50, 500))
    load = Workload.at_upper_edges(buckets, [[3.0, 1.0], [2.0, 0.0]])
    numbered = profile([offer("L4", 0.7), offer("H100", 8.0)], [[[4, 1], [1, 0.2]], [[30, 9], [12, 5]]])
    rates = type(numbered)(**{k: getattr(numbered, k) for k in numbered.__slots__} | {"buckets": buckets})
    plan = solve(load, rates)
    told = explain(plan)
    tokens = load.request_rate * (load.input_tokens + load.output_tokens) * 3600 / 1e6
    assert np.nansum(told.cost_per_mtok * tokens) == pytest.approx(plan.cost_per_h)
    assert np.isnan(told.cost_per_mtok[1, 1])
    assert told.to_json()["cost_per_mtok"][1][1] is None


def test_a_bucket_that_only_one_replica_serves_is_named():
    """Where the cheaper fleet cannot serve some size at all, the explanation says which."""
    rates = profile([offer("L4", 0.7), offer("H100", 8.0)], [[[1.0, 0.0]], [[1.5, 1.0]]])
    load = workload([[0.1, 0.1]])
    told = explain(solve(load, rates, EXACT))
    assert "no replica in it can serve input size 1, output size 2" in told.cheaper.violation


def test_budget_is_explained_for_what_it_serves():
    """Under a budget the traffic served is what the explanation is about."""
    load, rates = authors()
    options = Options(headroom=0.0, gap=0.0, budget_per_h=3.67)
    told = explain(solve(load, rates, options))
    assert told.cheaper is None or told.cheaper.cost_per_h < 3.67


def test_of_a_certified_plan_the_closed_form_is_explained():
    """Prices and duals are those of the program, whatever the search by simulation has rented."""
    plan = solve(*authors(), EXACT)
    certificate = Certificate(
        target=0.99, attainment=1.0, low=0.996, requests=1000, seeds=1, policy="plan-least-work",
        cost_before_per_h=plan.cost_per_h, attainment_before=0.9, headroom={}, plans=1,
    )  # fmt: skip
    certified = replace(plan, instances=2 * plan.instances, cost_per_h=2 * plan.cost_per_h, certificate=certificate)
    found, expected = explain(certified).to_json(), explain(plan).to_json()
    assert json.dumps(found) == json.dumps(expected)
