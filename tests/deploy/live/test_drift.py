"""Drift: the plan for what arrives now, under the limits of the plan in force."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plan_cases import offer, profile, workload

from melange.deploy.live.drift import CHEAPER, FAILED, SHORT, STEADY, Drift, find_drift
from melange.errors import InputError
from melange.plan.certificate import Certificate
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.profile.profile import Profile
from melange.workload.workload import Workload


def two_types() -> Profile:
    """A costs half of B for the same work, and may be ruled out."""
    return profile([offer("A", 1.0), offer("B", 2.0)], [[[4.0]], [[4.0]]])


def seen(rate: float) -> Workload:
    """Enough requests to plan on."""
    return replace(workload([[rate]]), requests=100_000)


def drift_of(options: Options, rate: float, profile: Profile | None = None) -> Drift:
    """Of a plan for 30 requests/s, once this many arrive."""
    return find_drift(solve(workload([[30.0]]), two_types(), options), seen(rate), 0.05, profile)


@pytest.mark.parametrize(
    "options",
    [
        Options(exclude=("A",)),
        Options(max_instances={"A": 2}),
        Options(max_accelerators={"A": 2}),
        Options(require=("B",), max_types=1),
        Options(spare_replicas=3),
        Options(min_total_replicas=20),
        Options(slices=3, headroom=0.4),
    ],
    ids=("excluded", "instances", "accelerators", "required", "spare", "minimum", "slices"),
)
def test_steady_traffic_is_steady_under_every_limit(options: Options, tmp_path: Path) -> None:
    """What the user ruled out is not advised, also where the plan comes from its file."""
    plan = solve(workload([[30.0]]), two_types(), options)
    read = Plan.read(plan.save(tmp_path / "plan.json"))
    for one in (plan, read):
        found = find_drift(one, seen(30.0), 0.05)
        assert (found.state, found.new_cost_per_h) == (STEADY, plan.cost_per_h)


def mixed(small: float, large: float, requests: int) -> Workload:
    """Two sizes."""
    return replace(workload([[small, large]]), requests=requests)


def two_sizes() -> Profile:
    """A is cheap for the small size and does not serve the large one, which B serves."""
    return profile([offer("A", 1.0), offer("B", 4.0)], [[[4.0, 0.0]], [[8.0, 2.0]]])


@pytest.mark.parametrize("requests", [2_000, 19_366, 100_000, 1_000_000])
def test_the_planned_traffic_is_steady_with_its_rare_sizes(requests: int) -> None:
    """A size of one request in 20,000 needs an instance of its own, however few requests are observed."""
    planned = mixed(30.0, 0.0015, 1_000_000)
    plan = solve(planned, two_sizes())
    assert plan.instances_by_name["B"] > 0
    for live in (replace(planned, requests=requests), mixed(30.0, 0.0015 * (requests >= 10**6), requests)):
        found = find_drift(plan, live, 0.05)
        assert (found.state, found.new_cost_per_h) == (STEADY, plan.cost_per_h)


def test_sizes_that_come_and_go_are_drift() -> None:
    """A stray large request is nothing to rent for; many are, and so is a large size that no longer arrives."""
    small, both = (solve(mixed(30.0, large, 10**6), two_sizes()) for large in (0.0, 0.0015))
    assert find_drift(small, mixed(30.0, 0.0003, 100_000), 0.05).state == STEADY
    assert find_drift(small, mixed(30.0, 0.0015, 100_000), 0.05).state == SHORT
    assert find_drift(both, mixed(30.0, 0.0, 10**6), 0.05).state == CHEAPER


def test_at_equal_cost_the_fleet_in_force_stays() -> None:
    """Two types at one price, 4 and 5 of them: no advice changes that."""
    alike = profile([offer("a", 1.0), offer("b", 1.0)], [[[4.0]], [[4.0]]])
    plan = solve(workload([[30.0]]), alike)
    in_force = replace(plan, instances=np.array([4, 5]))
    assert in_force.instances.sum() == plan.instances.sum()
    assert "4 x a, 5 x b" in find_drift(in_force, seen(30.0), 0.05).message


def test_what_a_certificate_costs_is_no_saving_of_a_new_plan() -> None:
    """A certified plan costs half as much again as its closed form, and so will the next one."""
    plan = solve(workload([[30.0]]), two_types(), Options())
    certificate = Certificate(
        target=0.99, attainment=1.0, low=0.996, requests=1000, seeds=1, policy="plan-least-work",
        cost_before_per_h=plan.cost_per_h, attainment_before=0.9, headroom={}, plans=1,
    )  # fmt: skip
    in_force = replace(plan, cost_per_h=1.5 * plan.cost_per_h, certificate=certificate)
    steady = find_drift(in_force, seen(30.0), 0.05)
    assert (steady.state, steady.new_cost_per_h) == (STEADY, pytest.approx(in_force.cost_per_h))
    assert find_drift(in_force, seen(45.0), 0.05).state == SHORT
    assert find_drift(in_force, seen(15.0), 0.05).state == CHEAPER


def test_limits_that_no_longer_suffice_are_short() -> None:
    """Twice the traffic, and no more available."""
    found = drift_of(Options(exclude=("A",), max_instances={"B": 9}), 60.0)
    assert found.state == SHORT
    assert "no plan with the known types" in found.message


def test_a_budget_that_carries_less_is_short() -> None:
    """The cost stays, and part of the requests does not fit into it."""
    found = drift_of(Options(budget_per_h=9.0), 60.0)
    assert found.state == SHORT
    assert "serve 54.0%" in found.message


def test_names_that_another_profile_does_not_know_are_told() -> None:
    """No advice is better than one that forgets a limit."""
    other = profile([offer("C", 1.0)], [[[4.0]]])
    found = drift_of(Options(max_instances={"A": 2}), 30.0, other)
    assert found.state == FAILED
    assert "offers.max (max_instances)" in found.message


def test_rare_sizes_that_were_planned_for_are_compared_like_for_like() -> None:
    """A large prompt in 1,000 requests counts if the plan was made for it, and a new one changes nothing."""
    rates, both = [[29.97, 0.03]], profile([offer("A", 1.0)], [[[4.0, 0.02]]])
    plan = solve(workload(rates), both)
    found = find_drift(plan, replace(workload(rates), requests=1_000), 0.05)
    assert (found.state, found.new_cost_per_h) == (STEADY, plan.cost_per_h)
    small = solve(workload([[30.0, 0.0]]), both)
    found = find_drift(small, replace(workload(rates), requests=1_000), 0.05)
    assert small.cost_per_h < plan.cost_per_h
    assert (found.state, found.new_cost_per_h) == (STEADY, small.cost_per_h)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), -0.1])
def test_a_threshold_is_a_share(threshold: float) -> None:
    """With any other number every plan would be steady, or none."""
    with pytest.raises(InputError, match="threshold must be 0 to 1"):
        find_drift(solve(workload([[30.0]]), two_types()), seen(30.0), threshold)
