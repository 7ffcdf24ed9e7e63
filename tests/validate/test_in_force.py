"""Certified plans beside a plan in force: at equal cost the fleet that is there stays."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from planned import PRICES

from melange.catalog.bundled import find_model
from melange.catalog.offer import Offer
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.profile.estimate import estimate
from melange.slo import Slo
from melange.validate.certify.certify import certify
from melange.validate.certify.in_force import _changes, _exchanged
from melange.workload.datasets import dataset


def _twins() -> Question:
    """Each type in two regions at one price."""
    offers = [
        Offer(
            provider="paper", region=region, instance_type=name, accelerator=name, accelerators=1, cost_per_h=PRICES[name]
        )
        for region in ("east", "west")
        for name in ("L4", "A10G")
    ]
    workload, slo = dataset("arena", request_rate=6.0), Slo(tpot_s=0.09, ttft_s=2.0, attainment=0.9)
    return Question(workload=workload, profile=estimate(find_model("meta-llama/Llama-3.1-8B"), offers, slo, workload))


def test_a_certified_plan_keeps_the_fleet_in_force_at_equal_cost() -> None:
    """Also where it lies in the region that a search without it would leave, and in both."""
    question = _twins()
    names = [one.name for one in question.profile.replica_types]
    alone = certify(question, requests=2000)
    west = np.array([names.index(name.replace("east", "west")) for name in names])
    moved = np.zeros_like(alone.instances)
    np.add.at(moved, west, alone.instances)
    some = int(np.argmax(moved))
    divided = moved.copy()
    divided[some] -= 1
    divided[names.index(names[some].replace("west", "east"))] += 1
    for fleet in (moved, divided):
        in_force = replace(alone, instances=fleet)
        again = certify(question, requests=2000, incumbent=in_force)
        assert again.cost_per_h <= alone.cost_per_h + 1e-9
        assert again.changes_from(in_force) == {}
        assert again.holds


def test_a_fleet_in_force_that_misses_is_left() -> None:
    """Cheaper than what holds: it is not kept for being there."""
    question = _twins()
    alone = certify(question, requests=2000)
    less = alone.instances.copy()
    less[int(np.argmax(less))] -= 1
    again = certify(question, requests=2000, incumbent=replace(alone, instances=less))
    assert again.holds and isinstance(again, Plan)
    assert again.cost_per_h == alone.cost_per_h


def test_exchanges_reach_the_fewest_changes_of_all_fleets_of_that_price() -> None:
    """Of types with one price each: against every fleet that costs the same."""
    rng = np.random.default_rng(5)
    cost = np.array([1.0, 1.0, np.sqrt(2), np.sqrt(2), np.sqrt(2)])
    for _ in range(50):
        fleet, in_force = rng.integers(0, 4, (2, 5))
        nearest = min(
            _changes(np.array(other), in_force)
            for other in product(range(5), repeat=5)
            if sum(other[:2]) == fleet[:2].sum() and sum(other[2:]) == fleet[2:].sum()
        ) if fleet.sum() < 5 else None
        found = _exchanged(fleet, in_force, cost)
        assert all(np.isclose(cost @ one, cost @ fleet) and (one >= 0).all() for one in found)
        if nearest is not None:
            assert min(_changes(one, in_force) for one in [fleet, *found]) == nearest
