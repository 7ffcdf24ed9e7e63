"""Costs by request size, winners and margins, by hand."""

from __future__ import annotations

import numpy as np
from tiny import profile_of, replica_type

from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.present.figures.efficiency import (
    advantage,
    comparable_types,
    is_distinguished,
    request_cost,
    typical_sizes,
    winners,
)
from melange.profile.profile import Profile
from melange.workload.workload import Buckets, Workload


def test_a_request_costs_the_price_of_a_replica_over_its_rate(profile: Profile) -> None:
    """1.8 USD/h at 10 requests/s is 50 USD per million; a rate of 0 costs infinitely much."""
    cost = request_cost(profile)
    assert np.allclose(cost[0] * 1e6, [[50, 250], [250, np.inf]])
    assert np.allclose(cost[1] * 1e6, [[100, 200], [200, 400]])


def test_an_instance_shares_its_price_among_its_replicas(buckets: Buckets) -> None:
    """Eight replicas for 8 times the price cost as much a request as one does."""
    types = [replica_type("one", 2.0), replica_type("eight", 16.0, accelerators=8)]
    cost = request_cost(profile_of(types, np.full((2, 2, 2), 4.0), buckets))
    assert np.allclose(cost[0], cost[1])


def test_the_winner_and_its_margin(profile: Profile) -> None:
    """Small wins where it is cheaper, large elsewhere; the margin is what the second costs more."""
    found = winners(request_cost(profile), [0, 1])
    assert found.best.tolist() == [[0, 1], [1, 1]]
    assert found.second.tolist() == [[1, 0], [0, -1]]
    assert np.allclose(found.margin, [[1.0, 0.25], [0.25, np.inf]])


def test_what_no_type_serves_has_no_winner(buckets: Buckets) -> None:
    """A size that all rates are 0 for."""
    profile = profile_of([replica_type("a", 1.0)], [[[1, 1], [1, 0]]], buckets)
    found = winners(request_cost(profile), [0])
    assert found.best.tolist() == [[0, 0], [0, -1]]
    assert np.isnan(found.margin[1, 1])
    assert np.isinf(found.margin[0, 0])


def test_two_types_against_each_other(profile: Profile) -> None:
    """Above 0 where the first is cheaper, below where the second, and swapped when they swap places."""
    ahead = advantage(request_cost(profile), 0, 1)
    assert np.allclose(ahead, [[1.0, -0.25], [-0.25, -np.inf]])
    assert np.allclose(advantage(request_cost(profile), 1, 0), -ahead)


def test_larger_instances_of_equal_hardware_are_not_compared(buckets: Buckets, workload: Workload) -> None:
    """Of two offers of the same accelerator at the same price a replica the smaller stays."""
    types = [
        replica_type("box of two", 2.0, accelerators=2, accelerator="L4"),
        replica_type("single", 1.0, accelerator="L4"),
        replica_type("dear", 90.0, accelerator="H100-80GB"),
    ]
    profile = profile_of(types, np.full((3, 2, 2), 20.0), buckets)
    plan = solve(workload, profile, Options(headroom=0.0, exclude=("box of two",)))
    assert plan.cost_per_h == 2.0
    assert comparable_types(plan) == [1]


def test_types_in_use_are_always_compared(plan: Plan, profile: Profile) -> None:
    """Whatever else holds."""
    assert set(np.flatnonzero(plan.instances)) <= set(comparable_types(plan))


def test_typical_sizes_stand_for_equal_parts_of_the_traffic(workload: Workload) -> None:
    """The shorter half of the requests is the first bucket's 15/s; of the rest, 6/s and 9/s, the busier one."""
    assert typical_sizes(workload, 2) == [(0, 0), (1, 0)]
    assert typical_sizes(workload, 1) == [(0, 0)]


def test_overlapping_intervals_leave_the_order_open(buckets: Buckets) -> None:
    """Rates 10 (9-11) against 5 (4-6) at one price are distinguished, 10 (5-11) against 9 (8-12) are not."""
    types = [replica_type("a", 1.0), replica_type("b", 1.0)]
    base = profile_of(types, np.full((2, 2, 2), 1.0), buckets)
    rate = np.array([[[10.0, 10.0]] * 2, [[5.0, 9.0]] * 2])
    low = np.array([[[9.0, 5.0]] * 2, [[4.0, 8.0]] * 2])
    high = np.array([[[11.0, 11.0]] * 2, [[6.0, 12.0]] * 2])
    profile = Profile(
        replica_types=base.replica_types,
        buckets=buckets,
        max_request_rate=rate,
        low=low,
        high=high,
        provenance=base.provenance,
        reason=base.reason,
    )
    assert is_distinguished(profile, winners(request_cost(profile), [0, 1])).tolist() == [[True, False]] * 2
