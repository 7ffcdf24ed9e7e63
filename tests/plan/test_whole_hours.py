"""Hours in whole instances by the solver of plans: each hour's optimum, and a bound that no schedule is below."""

from __future__ import annotations

import time

import numpy as np
import pytest
from over_time_cases import carries, enumerated, machines, two_types

from melange.plan.schedule.contracts import Reserved, Spot
from melange.plan.schedule.hours import checked_hours
from melange.plan.schedule.relaxed import bound_per_h, relax
from melange.plan.schedule.signals import first_signals
from melange.plan.schedule.spot_room import SpotRoom
from melange.plan.schedule.typical import merged_sizes, typical_hours
from melange.plan.schedule.whole_hours import longer_search, optimal_hours, whole_bound_per_h


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_lies_between_parts_of_instances_and_enumeration(seed: int) -> None:
    """Reserved and on-demand instances of two types over two hours."""
    found, rates = two_types(seed)
    kept = machines(found, rates, Reserved(term_years=1, discount=0.3 + 0.01 * seed))
    typical = typical_hours(kept, rates)
    relaxation = relax(kept, typical, merged_sizes(kept, rates), None)
    price = relaxation.price[typical.of_hour]
    bound, solved = whole_bound_per_h(kept, rates, price, None, deadline=time.monotonic() + 60)
    assert solved == len(rates)
    assert bound <= enumerated(kept, rates) * (1 + 1e-9)
    assert bound >= bound_per_h(kept, rates, price, None) * (1 - 3e-3)


@pytest.mark.parametrize("seed", range(10))
def test_each_hour_is_at_most_as_expensive_as_its_best_pair(seed: int) -> None:
    """With spot and reserved instances; fleets carry the traffic, keep to what may be on spot, and add up."""
    found, rates = two_types(seed)
    spot = Spot(discount=0.6, max_share=0.7, max_share_per_pool=0.3, zones=2)
    kept = machines(found, rates, Reserved(term_years=1, discount=0.4), spot)
    reserved = np.eye(len(kept))[0]
    best = optimal_hours(kept, rates, reserved, spot, deadline=time.monotonic() + 60)
    pairs = checked_hours(kept, first_signals(kept), rates, reserved, spot)
    assert (best.cost_per_h <= pairs.fleets.cost_per_h * (1 + 3e-3) + 1e-9).all()
    room = SpotRoom.of(kept, kept.work(rates), spot)
    paid = best.spot * kept.on_demand_per_h
    assert (paid.sum(axis=1) <= room.whole + 1e-9).all()
    assert (np.ceil(best.spot / 2) * kept.on_demand_per_h <= room.pool[:, None] + 1e-9).all()
    on_demand = (best.extra - best.spot) @ kept.on_demand_per_h
    assert best.cost_per_h == pytest.approx(on_demand + best.spot @ kept.spot_per_h)
    for traffic, extra in zip(rates, best.extra, strict=True):
        assert carries(kept, traffic, reserved + extra)


def test_a_longer_search_finds_what_enumeration_does() -> None:
    """From nothing reserved."""
    found, rates = two_types(1)
    kept = machines(found, rates, Reserved(term_years=1, discount=0.5))
    start = np.zeros(len(kept))
    _, cost = longer_search(kept, rates, np.ones(len(rates)), start, None, deadline=time.monotonic() + 60)
    assert cost == pytest.approx(enumerated(kept, rates), rel=5e-3)
