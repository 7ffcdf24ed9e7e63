"""Certified plans beside a plan in force: at equal cost the fleet that is there stays."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from planned import PRICES
from searching import with_options

from melange.catalog.bundled import find_model
from melange.catalog.offer import Offer
from melange.plan.question import Question
from melange.profile.estimate import estimate
from melange.slo import Slo
from melange.validate.certify.certify import certify
from melange.validate.certify.in_force import _changes, _exchanged
from melange.workload.datasets import dataset


def _twins(request_rate: float = 3.0) -> Question:
    """One machine in two regions at one price."""
    offers = [
        Offer(
            provider="paper",
            region=region,
            instance_type=name,
            accelerator=name,
            accelerators=1,
            cost_per_h=PRICES[name],
        )
        for region in ("east", "west")
        for name in ("L4",)
    ]
    workload, slo = dataset("arena", request_rate=request_rate), Slo(tpot_s=0.09, ttft_s=2.0, attainment=0.9)
    return Question(workload=workload, profile=estimate(find_model("meta-llama/Llama-3.1-8B"), offers, slo, workload))


@pytest.mark.heavy
@pytest.mark.parametrize(("request_rate", "pools"), [(4.0, 1), (5.0, 1), (6.0, 2)])
def test_a_certified_plan_keeps_the_fleet_in_force_at_equal_cost(request_rate: float, pools: int) -> None:
    """Also where it lies in the region that a search without it would leave."""
    question = _twins(request_rate)
    assert [one.offer.region for one in question.profile.replica_types] == ["east", "west"]
    for other in question.profile.replica_types:
        in_force = certify(with_options(question, exclude=(other.name,)), requests=2000)
        again = certify(question, requests=2000, incumbent=in_force)
        assert np.isclose(again.cost_per_h, in_force.cost_per_h)
        assert again.changes_from(in_force) == {}
        assert again.holds
        # At the highest rate long prompts have instances of their own, of the same type.
        used = {one.pool for one, count in zip(again.replica_types, again.instances, strict=True) if count}
        assert len(used) == pools


def test_a_fleet_in_force_that_misses_is_left() -> None:
    """Cheaper than what holds: it is not kept for being there."""
    question = _twins()
    alone = certify(with_options(question, max_types=1), requests=2000)
    in_force = replace(alone, instances=np.array([1, 0]))
    again = certify(question, requests=2000, incumbent=in_force)
    assert again.holds
    assert again.instances.sum() > 1


def test_exchanges_reach_the_fewest_changes_of_all_fleets_of_that_price() -> None:
    """Of types with one price each: against every fleet that costs the same."""
    rng = np.random.default_rng(5)
    cost = np.array([1.0, 1.0, np.sqrt(2), np.sqrt(2), np.sqrt(2)])
    for _ in range(50):
        fleet, in_force = rng.integers(0, 3, (2, 5))
        if fleet.sum() > 5:
            continue
        nearest = min(
            _changes(np.array(other), in_force)
            for other in product(range(6), repeat=5)
            if sum(other[:2]) == fleet[:2].sum() and sum(other[2:]) == fleet[2:].sum()
        )
        found = [fleet, *_exchanged(fleet, in_force, cost)]
        assert all(np.isclose(cost @ one, cost @ fleet) and (one >= 0).all() for one in found)
        assert min(_changes(one, in_force) for one in found) == nearest
