"""A plan's file that is JSON with all its keys, and damaged all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plan_cases import random_case

from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve

Content = dict[str, Any]


def _one_more(content: Content) -> None:
    name = max(content["instances"], key=lambda one: content["instances"][one])
    content["instances"][name] += 1


def _other_size(content: Content) -> None:
    content["workload"]["input_tokens"][0][0] += 1.0


def _other_rate(content: Content) -> None:
    content["workload"]["request_rate"][0][0] *= 1.5


def _shares_lost(content: Content) -> None:
    content["share"] = [[[value / 2 for value in row] for row in table] for table in content["share"]]


def _first_alone(content: Content) -> Content:
    found: Content = next(iter(content["single_type"].values()))
    return found


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_one_more, "cost_per_h: the file says"),
        (lambda content: content.update(cost_per_h=1.0), "cost_per_h: the file says 1, but the instances at their"),
        (_shares_lost, "served_fraction: the file says 1, but the shares add up to 0.5"),
        (lambda content: content.update(gap=7.0), "gap: must be 0 to 1, got 7"),
        (_other_size, "fingerprint: .* was changed after it was written"),
        (_other_rate, "fingerprint: .* was changed after it was written"),
        (lambda content: content["options"].update(headroom=0.3), "fingerprint"),
        (lambda content: content["instances"].update(t9=1), "instances.t9: no such name in replica_types"),
        (lambda content: content["instances"].pop("t0"), "instances.t0 is missing"),
        (lambda content: _first_alone(content).update(cost_per_h=0), r"single_type\..*cost_per_h must be a cost"),
        (lambda content: _first_alone(content).update(rest_cost_per_h=-1), "rest_cost_per_h must be a cost"),
        (lambda content: content["load"].update(t0="much"), "load.t0 must be a number, got 'much'"),
        (lambda content: content["single_type"].update(t0=[]), r"single_type.t0 must be a mapping, got \[\]"),
        (
            lambda content: content["single_type"].update(t9=_first_alone(content)),
            "single_type.t9: no such name in replica_types",
        ),
        (lambda content: content.update(cost_at={"low": 1.0, "high": 2.0}), "cost_at must have low, mid, high, got"),
        (lambda content: content.pop("share"), "the key 'share' is missing"),
        (lambda content: content["profile"]["reason"].pop(), "profile.reason: must hold 3 tables"),
        (lambda content: content["profile"].update(reasons=[]), "profile.reason must hold whole numbers"),
        (lambda content: content.update(status=["optimal"]), r"status must be text, got \['optimal'\]"),
    ],
)
def test_what_a_plan_says_twice_is_compared(tmp_path: Path, damage: Callable[[Content], object], said: str) -> None:
    """The error names the file and the key."""
    path = solve(*random_case(3), Options()).save(tmp_path / "plan.json")
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=said) as caught:
        Plan.read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_what_is_not_damaged_is_read(tmp_path: Path) -> None:
    """Under every option that changes what is in it."""
    for seed in range(4):
        for options in (Options(), Options(slices=3), Options(budget_per_h=9.0), Options(spare_total_replicas=1)):
            plan = solve(*random_case(seed), options)
            assert Plan.read(plan.save(tmp_path / "plan.json")).to_json() == plan.to_json()
