"""The plan in force: among plans of equal cost the one that changes the fewest instances."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from plan_cases import offer, problem_of, profile, workload

from melange.plan.fleet import broken_limits, least_peak_shares
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.problem import Problem
from melange.plan.solve import solve
from melange.profile.profile import Profile
from melange.workload.workload import Workload

EXACT = Options(headroom=0.0, gap=0.0)


def test_equal_types_stay_as_they_are() -> None:
    """Two types at 1 USD/h, alike but in name: 2 a and 1 b are in force, and every other three cost the same."""
    load, rates = workload([[2.9]]), profile([offer("a", 1.0), offer("b", 1.0)], [[[1.0]], [[1.0]]])
    in_force = replace(solve(load, rates, EXACT), instances=np.array([2, 1]))
    found = solve(load, rates, EXACT, incumbent=in_force)
    assert found.instances.tolist() == [2, 1]
    assert found.changes_from(in_force) == {}


def test_a_cheaper_plan_is_worth_its_changes() -> None:
    """A type that costs half as much is rented, whatever is in force; and what changes is told by name."""
    load, rates = workload([[1.9]]), profile([offer("a", 2.0), offer("b", 1.0)], [[[1.0]], [[1.0]]])
    in_force = replace(solve(load, rates, EXACT), instances=np.array([2, 0]))
    found = solve(load, rates, EXACT, incumbent=in_force)
    assert found.cost_per_h == 2.0
    assert found.changes_from(in_force) == {"a": -2, "b": 2}


def test_a_plan_in_force_may_be_of_types_that_are_no_more() -> None:
    """What cannot be rented any longer is given back."""
    old = solve(workload([[1.9]]), profile([offer("gone", 1.0)], [[[1.0]]]), EXACT)
    found = solve(workload([[1.9]]), profile([offer("b", 1.0)], [[[1.0]]]), EXACT, incumbent=old)
    assert found.changes_from(old) == {"b": 2, "gone": -2}


@pytest.mark.parametrize("seed", range(60))
def test_no_equally_cheap_fleet_changes_less(seed: int) -> None:
    """Against every fleet of least cost that carries the traffic, on random tiny problems with prices that repeat."""
    load, rates, options, rng = _case(seed)
    best = solve(load, rates, options)
    equal = _cheapest_fleets(problem_of(load, rates, options), best)
    in_force = equal[rng.integers(len(equal))].copy()
    if rng.random() < 0.5:
        in_force[rng.integers(len(in_force))] += 1
    found = solve(load, rates, options, incumbent=replace(best, instances=in_force))
    assert found.cost_per_h == pytest.approx(best.cost_per_h)
    assert np.abs(found.instances - in_force).sum() == min(np.abs(fleet - in_force).sum() for fleet in equal)


def _case(seed: int) -> tuple[Workload, Profile, Options, np.random.Generator]:
    rng = np.random.default_rng(seed)
    types, buckets = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    rates = rng.choice([1.0, 2.0, 3.0, 4.0], (types, 1, buckets))
    if rng.random() < 0.5:
        rates[1] = rates[0]
    offers = [offer(f"t{r}", float(price)) for r, price in enumerate(rng.choice([1.0, 1.0, 1.5, 2.0], types))]
    options = replace(
        EXACT,
        headroom=float(rng.choice([0.0, 0.1])),
        max_types=int(rng.integers(1, 4)) if rng.random() < 0.3 else None,
        spare_replicas=int(rng.random() < 0.3),
        min_replicas=2 if rng.random() < 0.3 else 1,
    )
    return workload(rng.uniform(0.2, 4.0, (1, buckets))), profile(offers, rates), options, rng


def _cheapest_fleets(problem: Problem, best: Plan) -> list[np.ndarray]:
    """All fleets that cost as little as the best plan and carry the traffic."""
    most = int(best.instances.max()) + 3
    fleets = (np.array(count) for count in itertools.product(range(most), repeat=len(problem.cost)))
    return [one for one in fleets if abs(problem.cost @ one - best.cost_per_h) < 1e-9 and _carries(problem, one)]


def _carries(problem: Problem, count: np.ndarray) -> bool:
    if broken_limits(problem, count):
        return False
    found = least_peak_shares(problem, problem.carried(count))
    return found is not None and found[1] <= 1 + 1e-9
