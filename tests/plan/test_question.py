"""The question of a plan: what it checks, what its names bind, and how it travels with the plan."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from plan_cases import asked, offer, profile, random_case, workload

import melange.plan.question_file as question_file
from melange.catalog.bundled import find_model
from melange.catalog.catalog import load_catalog
from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question, question_of
from melange.plan.solve import solve
from melange.profile.estimate import estimate
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.workload.datasets import dataset
from melange.workload.workload import Buckets, Workload

G6 = "aws/us-east-1/g6.xlarge"


def variants(rate: float = 16.0) -> tuple[Workload, Profile]:
    """A model on one kind of instance, as published and in fp8, and a larger card beside it."""
    load = dataset("arena", request_rate=rate)
    offers = load_catalog().select(gpus=["L4", "L40S"], providers=["aws"], regions=["us-east-1"]).offers
    single = tuple(one for one in offers if one.accelerators == 1 and one.market == "on-demand")
    model = find_model("meta-llama/Llama-3.1-8B-Instruct")
    return load, estimate(model, single, Slo(tpot_s=0.08), load, variants=["fp8"])


@pytest.mark.parametrize("name", [G6, "g6.xlarge"])
def test_a_limit_on_an_instance_binds_every_type_on_it(name: str) -> None:
    """An offer and its instance type are one machine: variants of the model share what there is of it."""
    load, rates = variants()
    free = solve(load, rates)
    plan = solve(load, rates, Options(max_instances={name: 1}))
    on_it = [r for r, one in enumerate(rates.replica_types) if one.offer.instance_type == "g6.xlarge"]
    assert len(on_it) > 1
    assert free.instances[on_it].sum() > 1
    assert plan.instances[on_it].sum() <= 1


def test_a_limit_on_a_replica_type_binds_that_type() -> None:
    """A name that is no offer's and no instance type's."""
    load, rates = variants()
    free = solve(load, rates, Options(exclude=("L40S",)))
    name = next(name for name, count in free.replicas.items() if count and name.endswith(" fp8"))
    plan = solve(load, rates, Options(exclude=("L40S",), max_instances={name: 1}))
    assert plan.replicas[name] <= 1
    assert plan.cost_per_h >= free.cost_per_h


def test_names_that_nothing_has_are_refused_when_the_question_is_made() -> None:
    """Each of the settings that hold names, with the nearest name there is."""
    load, rates = workload([[1.0]]), profile([offer("L4", 1.0)], [[[4.0]]])
    for options in (
        Options(max_instances={"L5": 1}),
        Options(max_accelerators={"L5": 1}),
        Options(min_replicas={"L5": 1}),
        Options(spare_replicas={"L5": 1}),
        Options(require=("L5",)),
        Options(exclude=("L5",)),
    ):
        with pytest.raises(InputError, match=r"unknown .* 'L5'; did you mean 'L4'"):
            asked(load, rates, options)


def test_a_question_and_its_parts_are_one_call() -> None:
    """``solve`` takes either, and not a part twice."""
    load, rates = random_case(1)
    question = asked(load, rates, Options(gap=0.0))
    assert solve(question).cost_per_h == solve(load, rates, Options(gap=0.0)).cost_per_h
    assert question_of(question, None, None) is question
    with pytest.raises(TypeError, match="give them only once"):
        question_of(question, rates, None)
    with pytest.raises(TypeError, match="needs a profile"):
        question_of(load, None, None)


def test_buckets_must_agree() -> None:
    """A profile over other sizes answers another question."""
    rates = profile([offer("L4", 1.0)], [[[4.0]]])
    with pytest.raises(InputError, match="different buckets"):
        asked(Workload.at_upper_edges(Buckets(input_edges=(7,), output_edges=(7,)), [[1.0]]), rates)


def _as_read(plan: Plan, folder: Path) -> Plan:
    return Plan.read(plan.save(folder / "plan.json"))


def test_a_plan_s_file_holds_its_question(tmp_path: Path) -> None:
    """Every setting and every figure of the profile, so that the plan solved again is the same."""
    load, rates = variants(4.0)
    options = Options(headroom=0.2, max_instances={G6: 2}, require=("L40S",), spare_replicas=1, confidence=0.8)
    plan = solve(load, rates, options)
    read = _as_read(plan, tmp_path).question
    assert read.options == options
    for one in fields(Profile):
        before, after = getattr(plan.question.profile, one.name), getattr(read.profile, one.name)
        assert np.array_equal(before, after) if isinstance(before, np.ndarray) else before == after, one.name
    again = solve(read)
    assert (again.fingerprint, again.cost_per_h) == (plan.fingerprint, plan.cost_per_h)


def test_of_a_large_profile_the_used_types_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All types stay with their names and prices; a rate that is not kept says so; the digest tells the profile."""
    monkeypatch.setattr(question_file, "_MOST_CELLS", 1)
    load, rates = random_case(3)
    plan = solve(load, rates)
    read = _as_read(plan, tmp_path)
    used = plan.instances > 0
    assert not used.all()
    assert read.replica_types == plan.replica_types
    assert np.array_equal(read.max_request_rate, plan.max_request_rate)
    assert (read.question.profile.max_request_rate[~used] == 0).all()
    assert "give the profile again" in read.question.profile.why(int(np.flatnonzero(~used)[0]), 0, 0)
    stored = json.loads((tmp_path / "plan.json").read_text())["profile"]
    assert (stored["digest"], stored["is_whole"]) == (question_file._profile_digest(rates), False)
    assert question_file._profile_digest(replace(rates, low=rates.low * 0.5)) != stored["digest"]


def test_a_plan_of_before_questions_were_kept_can_be_read(tmp_path: Path) -> None:
    """Its rates stand for its profile, its headroom and slices for its options."""
    load, rates = random_case(5)
    plan = solve(load, rates, Options(headroom=0.2, slices=8))
    old = {key: value for key, value in plan.to_json().items() if key not in {"options", "profile"}}
    (tmp_path / "old.json").write_text(json.dumps({"melange": "plan/1", **old}))
    read = Plan.read(tmp_path / "old.json")
    assert (read.options.headroom, read.options.slices) == (0.2, 8)
    assert np.array_equal(read.max_request_rate, plan.max_request_rate)
    assert read.fingerprint == plan.fingerprint


def test_other_questions_keep_their_limits() -> None:
    """At another rate, at a confidence, and with one setting changed, all else stays."""
    load, rates = random_case(7)
    question = Question(workload=load, profile=rates, options=Options(headroom=0.3, confidence=0.9, exclude=("t2",)))
    assert question.at_rate(9.0).workload.total_rate == pytest.approx(9.0)
    assert question.at_rate(9.0).options == question.options
    assert question.with_options(headroom=0.0).options == replace(question.options, headroom=0.0)
    assert question.at_confidence().options == replace(question.options, confidence=None)


def test_counts_go_by_replica_type_and_by_accelerator() -> None:
    """An accelerator's count holds for each of its types; a type's own count goes before it."""
    load, rates = variants()
    names = {
        one: [item.name for item in rates.replica_types if item.offer.accelerator == one] for one in ("L4", "L40S")
    }
    own = names["L4"][-1]
    options = Options(spare_replicas={own: 1, "L4": 2}, min_replicas={"L40S": 3})
    found = asked(load, rates, options).options
    assert len(names["L4"]) > 1
    assert found.spare_replicas == dict.fromkeys(names["L4"], 2) | {own: 1}
    assert found.min_replicas == dict.fromkeys(names["L40S"], 3)
    plan = solve(load, rates, options)
    used = {name: count for name, count in plan.replicas.items() if count}
    assert all(used[name] >= 3 for name in names["L40S"] if name in used)
    assert plan.cost_per_h == solve(load, rates, found).cost_per_h


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"slices": 2.5}, "plan.slices must be a whole number, got 2.5"),
        ({"slices": True}, "plan.slices must be a whole number, got True"),
        ({"seed": -1}, "plan.seed must be >= 0, got -1"),
        ({"seed": "a"}, "plan.seed must be a whole number, got 'a'"),
        ({"drop_unservable": "yes"}, "plan.drop_unservable must be true or false, got 'yes'"),
        ({"headroom": "x"}, "plan.headroom must be a number, got 'x'"),
        ({"max_instances": {1: 1}}, "a key of plan.max_instances must be text, got 1"),
        ({"exclude": None}, "plan.exclude must be a list, got None"),
        ({"require": "L4"}, "plan.require must be a list, got 'L4'"),
    ],
)
def test_options_of_another_kind_are_refused(setting: dict[str, object], said: str) -> None:
    """In Python as in a file; lists and NumPy's numbers are fine."""
    with pytest.raises(InputError, match=re.escape(said)):
        Options(**setting)  # type: ignore[arg-type] # what is checked
    assert Options(require=["L4"], slices=np.int64(4)).require == ("L4",)  # type: ignore[arg-type] # see above


def test_arguments_of_another_kind_are_named() -> None:
    """Swapped arguments, a dictionary of options, and the file of a plan instead of the plan."""
    load, rates = variants()
    for call, said in (
        (lambda: solve(rates, load), "workload must be of type Workload, got Profile"),
        (lambda: solve(load, rates, {"headroom": 0.2}), "options must be of type Options, got dict"),
        (lambda: solve(load, rates, incumbent="plan.json"), "incumbent must be a Plan, got str"),
    ):
        with pytest.raises(TypeError, match=said):
            call()


def test_an_accelerator_that_is_not_offered_is_not_unknown() -> None:
    """The catalog has it: the error says what the service offers instead of guessing at a typing error."""
    with pytest.raises(InputError, match=r"^plan\.require: no offer has H200$") as caught:
        asked(workload([[1.0]]), profile([offer("L4", 1.0)], [[[4.0]]]), Options(require=("H200",)))
    assert caught.value.hint == "offered: L4"
