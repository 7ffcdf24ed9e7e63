"""Fewer types to search among: what is set aside is what no fleet would use, and the answer is one to all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plan_cases import asked, offer, profile, random_case, workload
from planned import inputs

from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.validate.certify.thinning import widened, with_types, worth_types
from melange.workload.workload import Array, Mask

EXACT = Options(headroom=0.0, gap=0.0)
# How much more a type must carry for another one to be set aside.
MARGIN = 1.25


def with_engines(question: Question, numbers: list[int]) -> Question:
    """The question with an engine for each type; those of a number are alike."""
    engine = inputs()[1].engines[0]
    assert engine is not None
    engines = tuple(replace(engine, kv_tokens=engine.kv_tokens + number) for number in numbers)
    return replace(question, profile=replace(question.profile, engines=engines))


def small(seed: int, **options: Any) -> Question:
    """Six types of four engines, so that some have the same; most cost what they carry."""
    load, rates = random_case(seed, types=6, holes=0.1)
    question = asked(load, rates, replace(EXACT, **options))
    numbers = np.random.default_rng(seed).integers(0, 4, 6).tolist()
    table = rates.max_request_rate.copy()
    for r in range(1, 6):  # those of the same engine carry the same
        table[r] = table[numbers.index(numbers[r])]
    same = replace(rates, max_request_rate=table, low=table, high=table)
    return with_engines(replace(question, profile=same), numbers)


def scaled(question: Question, factor: Array) -> Question:
    """The question with the rates of each type multiplied (R,)."""
    rates = question.profile.max_request_rate * factor[:, None, None]
    return replace(question, profile=replace(question.profile, max_request_rate=rates, low=rates, high=rates))


def among(question: Question, kept: Mask, factor: Array) -> Plan:
    """The cheapest plan of some types, at factors on the rates of all."""
    return solve(with_types(scaled(question, factor), kept))


def by_engine(question: Question, random: np.random.Generator, low: float, high: float) -> Array:
    """A factor for each engine, as the types that have it (R,)."""
    found = {engine: random.uniform(low, high) for engine in dict.fromkeys(question.profile.engines)}
    return np.array([found[engine] for engine in question.profile.engines])


@pytest.mark.parametrize("seed", range(25))
def test_what_is_set_aside_is_in_no_cheapest_fleet_within_the_margin(seed: int) -> None:
    """At the rates themselves, and at all factors that change the ratio of two engines by no more than the margin."""
    question, random = small(seed), np.random.default_rng(seed)
    kept = worth_types(question)
    for factor in (np.ones(6), by_engine(question, random, 0.8, 1.0), by_engine(question, random, 1.0, 1.25)):
        assert among(question, kept, factor).cost_per_h == pytest.approx(solve(scaled(question, factor)).cost_per_h)


@pytest.mark.parametrize("seed", range(25))
def test_beyond_the_margin_no_more_than_the_margin_is_lost(seed: int) -> None:
    """Factors from 0.8 to 1.25: a type that is kept does what another did with a quarter more of it, and rounding."""
    question, random = small(seed), np.random.default_rng(100 + seed)
    kept = worth_types(question)
    factor = by_engine(question, random, 0.8, 1.25)
    best = solve(scaled(question, factor))
    prices = np.array([one.cost_per_h for one in best.replica_types])
    lost = 0.25 * best.cost_per_h + prices[(best.instances > 0) & ~kept].sum()
    assert among(question, kept, factor).cost_per_h <= best.cost_per_h + lost + 1e-9


def test_some_types_are_set_aside() -> None:
    """Else nothing above was tested."""
    counts = [int(worth_types(small(seed)).sum()) for seed in range(25)]
    assert min(counts) <= 2
    assert 4 <= max(counts) <= 5


def pair(ratio: float, *engines: int, price: float = 2.0, **options: Any) -> Question:
    """Two types, the first one cheaper and faster by a ratio."""
    types = profile([offer("a", 1.9), offer("b", price)], [[[ratio, ratio]], [[1.0, 1.0]]])
    return with_engines(asked(workload([[1.0, 2.0]]), types, replace(EXACT, **options)), list(engines))


@pytest.mark.parametrize(("ratio", "is_kept"), [(1.0, True), (1.2, True), (1.24, True), (1.26, False), (2.0, False)])
def test_another_engine_must_be_faster_by_a_quarter(ratio: float, is_kept: bool) -> None:
    """Loads add up more or less well on different machines."""
    assert worth_types(pair(ratio, 0, 1)).tolist() == [True, is_kept]


def test_the_same_engine_at_a_higher_price_is_set_aside() -> None:
    """Regions of one machine: the cheapest is kept, and one of two that cost the same."""
    assert worth_types(pair(1.0, 0, 0)).tolist() == [True, False]
    assert worth_types(pair(1.0, 0, 0, price=1.9)).sum() == 1


def test_what_is_limited_or_required_keeps_its_alternatives() -> None:
    """One instance of the better type is not enough to set the other aside; nor is it where the other one must be."""
    assert worth_types(pair(2.0, 0, 1, max_instances={"a": 1})).all()
    assert worth_types(pair(2.0, 0, 1, require=("b",))).all()
    assert worth_types(pair(2.0, 0, 1, min_replicas={"a": 3})).all()
    assert worth_types(pair(2.0, 0, 1, exclude=("a",))).tolist() == [False, True]


def test_a_type_whose_steps_are_not_known_is_not_searched_for() -> None:
    """No simulation can certify it."""
    question = pair(1.0, 0, 1)
    engines = (None, question.profile.engines[1])
    assert worth_types(replace(question, profile=replace(question.profile, engines=engines))).tolist() == [False, True]


NAMING: list[dict[str, Any]] = [
    {},
    {"max_instances": {"t1": 1, "t4": 2}},
    {"max_accelerators": {"t0": 1, "t5": 1}},
    {"exclude": ("t2", "t3")},
    {"min_replicas": {"t0": 2, "t1": 2, "t5": 3}},
    {"spare_replicas": {"t0": 1, "t4": 1}},
    {"require": ("t4",)},
    {"max_types": 1},
    {"min_total_replicas": 6, "spare_total_replicas": 1},
]


@pytest.mark.parametrize("options", NAMING, ids=lambda one: ",".join(one))
@pytest.mark.parametrize("seed", range(5))
def test_a_plan_of_some_types_answers_the_question_with_all(seed: int, options: dict[str, Any]) -> None:
    """The same fleet, shares and cost, whatever the settings name; and its file is read again."""
    question = small(seed, **options)
    kept = worth_types(question)
    narrow = solve(with_types(question, kept))
    plan = widened(narrow, question, kept)
    assert plan.cost_per_h == pytest.approx(solve(question).cost_per_h)
    assert plan.question.options == question.options
    assert plan.replica_types == question.profile.replica_types
    assert {name: n for name, n in plan.replicas.items() if n} == {name: n for name, n in narrow.replicas.items() if n}
    assert plan.share.sum(axis=0) == pytest.approx(narrow.share.sum(axis=0))
    assert plan.load[kept] == pytest.approx(narrow.load)
    assert Plan.from_json(plan.to_json()).instances.tolist() == plan.instances.tolist()


def test_names_of_types_that_are_gone_are_not_those_of_offers_that_are_left() -> None:
    """A type that is served as published has the name of its offer, and so do settings that name it."""
    question = pair(2.0, 0, 1)
    one = question.profile.replica_types[0]
    card = replace(one.offer, accelerator="card")
    named = [replace(one, offer=card, name=name) for name in (card.name, f"{card.name} fp8")]
    options = replace(
        EXACT, exclude=(card.name,), min_replicas={card.name: 2}, spare_replicas={card.name: 1}, max_instances={"a": 3}
    )
    twice = Question(
        workload=question.workload, profile=replace(question.profile, replica_types=tuple(named)), options=options
    )
    kept = worth_types(twice)
    assert kept.tolist() == [False, True]
    narrow = with_types(twice, kept)
    assert narrow.options.exclude == ()
    assert narrow.options.max_instances == {"a": 3}
    assert widened(solve(narrow), twice, kept).question.options == options


def test_sizes_that_were_taken_from_a_type_stay_so() -> None:
    """Its rate for them is 0 in the answer, with a reason."""
    question = pair(1.2, 0, 1, require=("a", "b"))
    kept = np.ones(2, bool)
    plan = solve(question)
    rates = question.profile.max_request_rate.copy()
    rates[0, 0, 0] = 0.0
    less = replace(plan, question=replace(question, profile=replace(question.profile, max_request_rate=rates)))
    found = widened(less, question, kept).question.profile
    assert found.max_request_rate[0, 0].tolist() == [0.0, 1.2]
    assert "even alone" in found.reasons[found.reason[0, 0, 0]]


def test_limits_on_regions_stay_where_types_are_left_out() -> None:
    """Those of a region and of an accelerator in it, and the grids of regions that are left."""
    question = pair(2.0, 0, 1)
    regions = ("north", "south")
    types = tuple(
        replace(one, offer=replace(one.offer, region=region))
        for one, region in zip(question.profile.replica_types, regions, strict=True)
    )
    card = types[0].offer.accelerator
    limits = {"north": 3, f"north/{card}": 2, "south": 1}
    asked = Question(
        workload=question.workload,
        profile=replace(question.profile, replica_types=types),
        options=replace(EXACT, max_accelerators=limits, grid_g_per_kwh={"north": 1.0, "south": 2.0, "default": 3.0}),
    )
    narrow = with_types(asked, np.array([True, False])).options
    assert narrow.max_accelerators == {"north": 3, f"north/{card}": 2}
    assert narrow.grid_g_per_kwh == {"north": 1.0, "default": 3.0}
