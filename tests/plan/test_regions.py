"""Fleets of several regions: equal to enumeration on small cases, and checked in plain arithmetic."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from plan_cases import offer

from melange.errors import SolverError
from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.options import Options
from melange.plan.problem import build
from melange.plan.regions.stacked import cheapest_in_regions, check, stacked
from melange.plan.servable import scope_of
from melange.profile.profile import ReplicaType

MOST = 6


def drawn(seed: int) -> tuple[tuple[ReplicaType, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two regions with one or two types, two origins, two sizes; ways cost speed, and one pair may be forbidden."""
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 4))
    types = tuple(
        ReplicaType(name=f"t{r}", offer=offer(f"t{r}", float(np.round(random.uniform(0.5, 4.0), 2))))
        for r in range(count)
    )
    rates = random.uniform(0.1, 0.9, (2, 1, 2))
    speed = random.uniform(0.6, 4.0, (count, 1, 1, 2)) * random.uniform(0.5, 1.0, (count, 2, 1, 1))
    if seed % 3 == 0:
        speed[0, 0] = 0.0  # data that must not leave
    price = np.where(np.arange(count) % 2, 3e-5, 6e-5) * random.uniform(0.0, 4.0)
    egress = np.broadcast_to(price[:, None, None, None], speed.shape)
    return types, rates, speed, egress, random.uniform(0.01, 0.2, (count, 2))


def least_cost(
    types: tuple[ReplicaType, ...], rates: np.ndarray, speed: np.ndarray, egress: np.ndarray, headroom: float
) -> float:
    """Every fleet up to some size, each with its own cheapest shares [USD/h]."""
    best, count, cells = np.inf, len(types), rates.size
    flat, paid = speed.reshape(count, cells), (3600 * egress * rates).reshape(count, cells)
    for fleet in itertools.product(range(MOST + 1), repeat=count):
        cost = sum(n * one.cost_per_h for n, one in zip(fleet, types, strict=True))
        if cost >= best:
            continue
        with np.errstate(divide="ignore"):
            load = np.where(flat > 0, rates.ravel() / flat, 0.0)
        program = LinearRows(  # a column for each share: its size is served, its type has room
            cost=paid.ravel(),
            lower=np.zeros(count * cells),
            upper=np.where(flat > 0, 1.0, 0.0).ravel(),
            row_lower=np.concatenate([np.ones(cells), np.full(count, -np.inf)]),
            row_upper=np.concatenate([np.ones(cells), (1 - headroom) * np.array(fleet, float)]),
            start=np.arange(0, 2 * count * cells + 1, 2).astype(np.int32),
            row=np.array([(b, cells + r) for r in range(count) for b in range(cells)]).ravel().astype(np.int32),
            value=np.array([(1.0, load[r, b]) for r in range(count) for b in range(cells)]).ravel(),
        )
        found = minimise(program)
        if found.x is not None:
            best = min(best, cost + float(paid.ravel() @ found.x))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_two_regions_are_planned_as_enumeration_does(seed: int) -> None:
    """With a way that costs speed, forbidden pairs, and a price of what leaves that differs."""
    types, rates, speed, egress, way_s = drawn(seed)
    found = cheapest_in_regions(types, Options(gap=1e-9), rates, speed, egress, way_s)
    least = least_cost(types, rates, speed, egress, 0.1)
    assert found.cost_per_h + found.egress_per_h == pytest.approx(least, rel=1e-6)
    assert found.bound_per_h <= least * (1 + 1e-6)
    assert not found.share[speed <= 0].any()


def test_requests_go_to_the_nearest_region_where_the_cost_is_the_same() -> None:
    """Two equal regions with an instance each: each origin stays at home."""
    types = tuple(ReplicaType(name=name, offer=offer(name, 1.0)) for name in ("here", "there"))
    way_s = np.array([[0.01, 0.1], [0.1, 0.01]])
    rates = np.full((2, 1, 1), 0.8)
    options = Options(max_instances={"here": 1, "there": 1})
    found = cheapest_in_regions(types, options, rates, np.ones((2, 2, 1, 1)), np.zeros((2, 2, 1, 1)), way_s)
    assert found.share[:, :, 0, 0].tolist() == [pytest.approx([1.0, 0.0]), pytest.approx([0.0, 1.0])]


@pytest.mark.parametrize("seed", [5, 7])
def test_little_traffic_stays_where_instances_are(seed: int) -> None:
    """A load of a hundred-millionth is within the solver's tolerance: it went to nearer regions without instances."""
    types, rates, speed, egress, way_s = drawn(seed)
    found = cheapest_in_regions(types, Options(), rates * 1e-8, speed, np.zeros_like(egress), way_s)
    assert found.instances.sum() == 1
    assert not found.share[found.instances == 0].any()


def test_shared_limits_hold_over_regions_and_the_check_sees_what_is_wrong() -> None:
    """One instance of each region at most; shares that overload, or go where they may not, are faults."""
    types, rates, speed, egress, way_s = drawn(3)
    options = Options(max_instances={"t1": 1})
    found = cheapest_in_regions(types, options, rates, speed, egress, way_s)
    assert found.instances[1] <= 1
    whole = stacked(types, options, rates, speed)
    scope = scope_of(whole)
    problem = build(whole, scope.allowed, scope.served)
    share = found.share.reshape(len(types), -1)
    check(problem, found.instances, share)
    for wrong, said in (
        ((found.instances * 0, share), "overloaded"),
        ((found.instances + 5, share), "breaks its limits"),
        ((found.instances, share * 0.5), "add up"),
        ((found.instances, np.eye(len(types))[0][:, None] + 0 * share), "where they may not go"),
    ):
        with pytest.raises(SolverError, match=said):
            check(replace(problem), *wrong)
