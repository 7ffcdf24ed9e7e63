"""The cheapest mix: known answers, brute force, and what every option does to it."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_cases import (
    authors,
    brute_force,
    figure_9,
    impossible,
    offer,
    problem_of,
    profile,
    random_case,
    workload,
)

from melange.catalog.bundled import find_model
from melange.catalog.catalog import load_catalog
from melange.errors import InfeasibleError, InputError
from melange.plan.milp.program import OutOfTimeError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.profile.estimate import estimate
from melange.slo import Slo
from melange.workload.datasets import dataset


def exact(**options):
    """Settings of the paper: no headroom, proven to the last cent."""
    return Options(**{"headroom": 0.0, "gap": 0.0, **options})


@pytest.mark.parametrize(("slices", "cost"), [(1, 6.70), (2, 5.69), (4, 5.69), (8, 5.69), (None, 4.68)])
def test_authors_example(slices, cost):
    """The example of the authors' release costs what it costs there, and less with continuous shares."""
    plan = solve(*authors(), exact(slices=slices))
    assert plan.cost_per_h == pytest.approx(cost)
    assert plan.gap == 0
    assert plan.bound_per_h == pytest.approx(cost)


@pytest.mark.parametrize("rate", [step / 20 for step in range(1, 161)])
def test_figure_9_staircase(rate):
    """Every step of the paper's Figure 9, against every fleet that could be meant."""
    costs = [
        1.01 * small + 3.67 * large
        for small in range(23)
        for large in range(5)
        if 0.370 * small + 2.0 * large >= rate - 1e-9
    ]
    assert solve(*figure_9(rate), exact()).cost_per_h == pytest.approx(min(costs))


@pytest.mark.parametrize("seed", range(25))
def test_continuous_shares_against_brute_force(seed):
    """On tiny problems no fleet that carries the traffic is cheaper."""
    case = random_case(seed, types=2 + seed % 2, buckets=2 + seed % 3)
    expected = brute_force(problem_of(*case, exact()), most=7)
    assert solve(*case, exact()).cost_per_h == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(15))
def test_slices_against_brute_force(seed):
    """On tiny problems no split into slices allows a cheaper fleet."""
    case = random_case(100 + seed, types=2, buckets=3)
    options = exact(slices=1 + seed % 3)
    assert solve(*case, options).cost_per_h == pytest.approx(brute_force(problem_of(*case, options), most=8))


@pytest.mark.parametrize("seed", range(10))
def test_listing_agrees_with_the_program(seed, monkeypatch):
    """The listing of fleets and the mixed-integer program find the same cost, also with minimums and spares."""
    case = random_case(200 + seed, types=4, buckets=8)
    options = [exact(), exact(spare_replicas=1), exact(min_replicas=2), exact(max_types=2), exact(min_total_replicas=9)]
    listed = [solve(*case, item).cost_per_h for item in options]
    monkeypatch.setattr("melange.plan.cheapest.MOST_POINTS", -1)
    assert [solve(*case, item).cost_per_h for item in options] == pytest.approx(listed)


def test_clusters_of_buckets_keep_their_bound_and_their_plan(monkeypatch):
    """A large problem planned over clusters agrees with the whole program within the gap."""
    case = random_case(7, types=9, buckets=150, holes=0.05)
    whole = solve(*case, exact())
    monkeypatch.setattr("melange.plan.cheapest.MOST_POINTS", -1)
    plan = solve(*case, exact(gap=1e-3))
    assert plan.gap <= 1e-3
    assert plan.bound_per_h <= whole.cost_per_h + 1e-6
    assert whole.cost_per_h <= plan.cost_per_h + 1e-6
    assert plan.cost_per_h <= whole.cost_per_h / (1 - 1e-3) + 1e-6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_paper_program_agrees(monkeypatch):
    """The paper's own binary program, on CBC, costs the same (the long comparison is in bench/solve.py)."""
    pytest.importorskip("pulp", reason="PuLP is not installed: pip install '.[bench]'")
    import sys
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    sys.modules.pop("paper_program", None)
    from paper_program import solve_paper

    for seed in range(3):
        case = random_case(300 + seed, types=3, buckets=6)
        problem = problem_of(*case, exact(slices=4))
        answer = solve_paper(problem.load, problem.cost, slices=4, time_limit_s=5)
        if answer.is_proven:
            assert solve(*case, exact(slices=4)).cost_per_h == pytest.approx(answer.cost_per_h)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(1.0, 3.0))
def test_more_traffic_is_never_cheaper(seed, factor):
    """Scaling every rate up cannot lower the cost."""
    load, rates = random_case(seed)
    more = load.at_rate(load.total_rate * factor)
    assert solve(more, rates, exact()).cost_per_h >= solve(load, rates, exact()).cost_per_h - 1e-9


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_one_more_offer_is_never_dearer(seed):
    """A plan may always ignore an offer."""
    load, rates = random_case(seed)
    fewer = exact(exclude=(rates.replica_types[-1].name,))
    assert solve(load, rates, exact()).cost_per_h <= solve(load, rates, fewer).cost_per_h + 1e-9


CONDITIONS = [
    {"headroom": 0.2},
    {"spare_replicas": 1},
    {"spare_total_replicas": 1},
    {"min_replicas": 2},
    {"min_total_replicas": 5},
    {"max_types": 1},
    {"slices": 2},
    {"require": ("t1",)},
    {"exclude": ("t1",)},
    {"max_instances": {"t0": 2}},
    {"max_accelerators": {"t0": 2, "t1": 1}},
]
# What is no condition on plans: how they are searched, what of the traffic is left out, and which rates are counted on.
NO_CONDITIONS = {"budget_per_h", "drop_unservable", "time_limit_s", "gap", "seed", "confidence"}
NO_CONDITIONS |= {"objective", "carbon_price_per_kg", "grid_g_per_kwh", "pue"}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), option=st.sampled_from(CONDITIONS))
def test_an_option_is_never_cheaper(seed, option):
    """Each further condition can only raise the cost, and the plan of one type bounds it from above."""
    case = random_case(seed, holes=0.0)
    try:
        free, bound = solve(*case, exact()), solve(*case, exact(**option))
    except InfeasibleError:
        return
    assert bound.cost_per_h >= free.cost_per_h - 1e-9
    best = bound.best_single
    assert best is None or bound.cost_per_h <= best[1].cost_per_h + 1e-9


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), slices=st.sampled_from([None, 1, 3, 8]))
def test_shares_are_whole_and_carried(seed, slices):
    """Every bucket is served in full, on types that can, within the load that headroom leaves."""
    load, rates = random_case(seed)
    plan = solve(load, rates, Options(headroom=0.1, slices=slices))
    assert np.allclose(plan.share.sum(axis=0), 1.0)
    assert not plan.share[rates.max_request_rate == 0].any()
    assert (plan.load <= 0.9 + 1e-6).all()
    assert not plan.share[plan.instances == 0].any()
    if slices:
        assert np.allclose(plan.share * slices, np.round(plan.share * slices))


def test_availability_of_an_offer_and_of_an_accelerator():
    """What is not there is not rented: by type, by offer, by accelerator, and as the offer itself says."""
    load, rates = authors()
    assert solve(load, rates, exact(max_instances={"A100-80GB": 0})).replicas == {"A10G": 12, "A100-80GB": 0}
    assert solve(load, rates, exact(max_accelerators={"A10G": 0})).replicas == {"A10G": 0, "A100-80GB": 2}
    scarce = profile([offer("A10G", 1.01), offer("A100-80GB", 3.67, max_instances=0)], rates.max_request_rate)
    assert solve(load, scarce, exact()).cost_per_h == pytest.approx(12.12)


def test_types_of_one_offer_share_its_availability():
    """Two tensor-parallel degrees of one offer draw on the same instances."""
    node = offer("node", 10.0, 8)
    item = type(profile([node], [[[1.0]]]).replica_types[0])
    types = tuple(item(name=f"node tp{tp}", offer=node, tensor_parallel=tp) for tp in (4, 8))
    rates = np.array([[[2.0, 0.0]], [[1.0, 1.0]]])
    pair = profile(
        [node, node.__class__(**{k: getattr(node, k) for k in node.__slots__} | {"instance_type": "x"})], rates
    )
    pair = type(pair)(**{k: getattr(pair, k) for k in pair.__slots__} | {"replica_types": types})
    load = workload([[4.0, 1.0]])
    assert solve(load, pair, exact()).replicas == {"node tp4": 2, "node tp8": 1}
    with pytest.raises(InfeasibleError) as error:
        solve(load, pair, exact(max_instances={"node": 1}))
    assert error.value.reasons == ("instances of node: at least 2 needed, 1 available",)


@pytest.mark.parametrize(
    ("options", "replicas"),
    [
        ({"min_replicas": 2}, (0, 2)),
        ({"min_replicas": {"A10G": 3}}, (3, 1)),
        ({"min_total_replicas": 7}, (6, 1)),
        ({"spare_replicas": 1}, (2, 2)),
        ({"spare_replicas": {"A10G": 1}}, (2, 1)),
        ({"spare_total_replicas": 1}, (1, 2)),
        ({"spare_total_replicas": 2}, (1, 3)),
        ({"max_types": 1}, (0, 2)),
        ({"exclude": ("A10G",)}, (0, 2)),
        ({"headroom": 0.1}, (2, 1)),
    ],
)
def test_each_option_on_the_authors_example(options, replicas):
    """Minimums, spares, type counts and exclusions give the fleets worked out by hand."""
    plan = solve(*authors(), exact(**options))
    assert tuple(plan.replicas.values()) == replicas


@pytest.mark.parametrize("seed", range(6))
def test_a_fleet_with_spares_stands_every_loss(seed):
    """Taking away the spare replicas of any one type leaves a fleet that the brute-force oracle accepts."""
    from plan_cases import _fits

    case = random_case(400 + seed, holes=0.0)
    plan = solve(*case, exact(spare_total_replicas=1))
    problem = problem_of(*case, exact(spare_total_replicas=1))
    for lost in np.flatnonzero(plan.instances):
        assert _fits(problem.load, problem.carried_after_loss(plan.instances, int(lost)) + 1e-9)


def test_a_budget_is_not_too_small_because_time_ran_out(monkeypatch):
    """A program that finds nothing in time says nothing about the budget: simpler fleets are tried."""

    def out_of_time(*_, **__):
        raise OutOfTimeError("no plan was found within 0 s")

    monkeypatch.setattr("melange.plan.budget._largest_part", out_of_time)
    plan = solve(*authors(), exact(budget_per_h=3.67, slices=None))
    assert plan.cost_per_h <= 3.67
    assert 0.19 < plan.served_fraction < 1
    assert plan.status == "time limit"


def test_budget_carries_the_most_traffic():
    """Under a budget the served share is what is maximized, and a budget that is enough plans for the least cost."""
    plan = solve(*authors(), exact(budget_per_h=3.67))
    assert plan.served_fraction == pytest.approx(8 / 9)
    assert plan.bound_per_h is None
    assert solve(*authors(), exact(budget_per_h=1.5)).served_fraction == pytest.approx(1 / 12)
    assert solve(*authors(), exact(budget_per_h=100)).cost_per_h == pytest.approx(4.68)
    with pytest.raises(InfeasibleError, match=r"no allowed fleet is within the budget of 0\.5 USD/h") as error:
        solve(*authors(), exact(budget_per_h=0.5))
    needed = "at least 1.01 USD/h is needed"  # one A10G, which serves every size
    assert error.value.reasons == (f"budget: 0.5 USD/h is too little to serve a part of every request size; {needed}",)
    assert error.value.hint == "relax that limit"


def test_the_budget_that_an_error_names_is_enough():
    """A price of 1.01312 USD/h is rounded up: 1.01 is too little."""
    question = workload([[1.0]]), profile([offer("A10G", 1.01312)], [[[2.0]]])
    with pytest.raises(InfeasibleError) as error:
        solve(*question, exact(budget_per_h=1.01))
    assert error.value.reasons[0].endswith("; at least 1.02 USD/h is needed")
    assert solve(*question, exact(budget_per_h=1.02)).served_fraction == pytest.approx(1.0)


def test_a_type_that_may_not_serve_alone_has_no_cost_alone():
    """If another is required, it is no answer for the part that it can serve either."""
    both = workload([[3.0, 1.0]]), profile([offer("L4", 0.7), offer("A10G", 1.01)], [[[2.0, 0.0]], [[4.0, 2.0]]])
    assert solve(*both, exact()).single_type["L4"].rest_cost_per_h == pytest.approx(1.4)
    assert solve(*both, exact(require=("A10G",))).single_type["L4"].rest_cost_per_h is None


def test_what_no_type_serves_is_said_type_by_type():
    """The reasons name the bucket and, for each type, what prevents it; the rest can be planned for."""
    with pytest.raises(InfeasibleError) as error:
        solve(*impossible())
    assert "25.00% of requests" in str(error.value)
    assert error.value.reasons == ("input size 1, output size 2 (1 req/s): A10G, L4: KV cache holds 9000 tokens",)
    assert "--drop-unservable" in error.value.hint
    plan = solve(*impossible(), Options(drop_unservable=True))
    assert plan.served_fraction == pytest.approx(0.75)
    assert plan.unservable == error.value.reasons
    assert "left-out" in [caution.kind for caution in plan.cautions]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_instances": {"A100-80GB": 1, "A10G": 0}}, "instances of A100-80GB: at least 2 needed, 1 available"),
        ({"max_accelerators": {"A100-80GB": 0, "A10G": 3}}, "accelerators of A10G: at least 12 needed, 3 available"),
        (
            {"max_types": 1, "require": ("A10G", "A100-80GB")},
            "max_types: at least 2 different types are needed, 1 allowed",
        ),
        (
            {"require": ("A10G",), "max_instances": {"A10G": 0}},
            "A10G is required, but none is allowed, available and able to serve any of the requests",
        ),
        (
            {"max_instances": {"A100-80GB": 1, "A10G": 1}, "spare_total_replicas": 1},
            "spare replicas: the other limits leave no room for them",
        ),
        ({"budget_per_h": 3.0, "require": ("A100-80GB",)}, "budget: required instances cost 3.67 USD/h, 3 allowed"),
    ],
)
def test_what_stands_in_the_way_is_said(options, reason):
    """An infeasible combination of settings names the one to lift, and by how much."""
    with pytest.raises(InfeasibleError) as error:
        solve(*authors(), exact(**options))
    assert reason in error.value.reasons


def test_unknown_names_are_errors():
    """A name that nothing has gets the nearest that the profile has; an accelerator that is not offered is none."""
    with pytest.raises(InputError, match="did you mean 'A10G'"):
        solve(*authors(), exact(exclude=("A10g5",)))
    with pytest.raises(InputError, match=r"plan\.exclude: no offer has A10"):
        solve(*authors(), exact(exclude=("A10",)))
    with pytest.raises(InputError, match="both required and excluded"):
        solve(*authors(), exact(exclude=("A10G",), require=("A10G",)))
    with pytest.raises(InputError, match="different buckets"):
        solve(workload([[1.0]]), authors()[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("time_limit_s", one) for one in (0.0, -1.0, float("inf"), float("nan"))),
        *(("budget_per_h", one) for one in (0.0, float("inf"))),
        *((name, one) for name in ("headroom", "gap", "confidence") for one in (-0.1, 1.0, float("nan"))),
        *((name, 10**7) for name in ("slices", "max_types", "min_total_replicas", "spare_total_replicas")),
        *((name, {"a": 10**7}) for name in ("max_instances", "max_accelerators", "min_replicas", "spare_replicas")),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    """With the key of the service file."""
    section = "offers.max.a" if name.startswith("max_i") or name == "max_accelerators" else f"plan.{name}"
    with pytest.raises(InputError, match=section.replace(".", r"\.")):
        Options(**{name: value})


def test_every_option_is_tried_as_a_condition():
    """It is added to those whose plans are compared with plans without, and with single types."""
    assert {name for option in CONDITIONS for name in option} | NO_CONDITIONS == {one.name for one in fields(Options)}


def test_no_option_takes_a_name_that_is_not_there():
    """A misspelled name would bind nothing, and nobody would know."""
    named = [one for one in fields(Options) if "Mapping[" in str(one.type) or "tuple[" in str(one.type)]
    assert len(named) >= 6
    for one in named:
        value = ("t_1",) if "tuple[" in str(one.type) else {"t_1": 1}
        with pytest.raises(InputError, match="t_1"):
            solve(*random_case(1), exact(**{one.name: value}))


def test_single_types_are_the_same_program_with_one_type():
    """The closed form of a single type agrees with solving for that type alone."""
    for seed in range(8):
        case = random_case(500 + seed, holes=0.1)
        for options in ({}, {"headroom": 0.2}, {"spare_replicas": 1}, {"min_total_replicas": 4}, {"slices": 3}):
            plan = solve(*case, exact(**options))
            for name, baseline in plan.single_type.items():
                others = tuple(item.name for item in case[1].replica_types if item.name != name)
                if baseline.cost_per_h is None:
                    with pytest.raises(InfeasibleError):
                        solve(*case, exact(**options, exclude=others))
                    assert "cannot serve" in baseline.reason
                else:
                    alone = solve(*case, exact(**options, exclude=others))
                    assert alone.cost_per_h == pytest.approx(baseline.cost_per_h)


def test_thin_traffic_is_served():
    """Rates a billion times below capacity still get a replica that can serve them."""
    rates = profile([offer("L4", 0.7), offer("H100", 9.0)], [[[2.0, 0.0]], [[9.0, 9.0]]])
    plan = solve(workload([[1.0, 1e-9]]), rates, exact())
    assert plan.replicas == {"L4": 0, "H100": 1}
    assert np.allclose(plan.share.sum(axis=0), 1.0)


def test_equal_plans_stay_with_the_incumbent():
    """Among fleets of equal cost the one in force is kept."""
    rates = profile([offer("a", 1.0), offer("b", 1.0)], [[[2.0]], [[2.0]]])
    load = workload([[3.0]])
    first = solve(load, profile([offer("a", 1.0), offer("b", 1.0)], [[[1.0]], [[2.0]]]), exact())
    assert first.replicas == {"a": 0, "b": 2}
    assert solve(load, rates, exact(), incumbent=first).replicas == {"a": 0, "b": 2}
    assert solve(load, rates, exact()).replicas == {"a": 2, "b": 0}


def test_time_limit_returns_the_plan_found():
    """A search that is stopped says so, with its gap, and its plan still holds."""
    load, rates = random_case(11, types=30, buckets=60, holes=0.0)
    plan = solve(load, rates, exact(time_limit_s=0.02, slices=3))
    assert plan.status in ("time limit", "optimal")
    assert plan.bound_per_h <= plan.cost_per_h
    assert plan.gap == pytest.approx(1 - plan.bound_per_h / plan.cost_per_h)


def test_same_seed_same_plan_byte_for_byte():
    """Nothing but the measured time differs between two runs."""
    load, rates = random_case(12, types=12, buckets=30)
    texts = []
    for _ in range(2):
        content = json.loads(solve(load, rates, Options()).dumps())
        content.pop("solve_s")
        texts.append(json.dumps(content))
    assert texts[0] == texts[1]


def test_plan_survives_its_file(tmp_path):
    """A saved plan reads back as it was."""
    plan = solve(*authors(), exact())
    assert Plan.read(plan.save(tmp_path / "plan.json")).to_json() == plan.to_json()


def test_of_hundreds_of_like_offers_the_cheapest_are_taken():
    """Regions and tiers of the same machines: dominated types are set aside and stay unused."""
    load, rates = random_case(13, types=8, buckets=60)
    offers = [offer(f"r{k}-{r}", round(1.0 + r / 7 + k / 50, 3)) for k in range(75) for r in range(8)]
    many = profile(offers, np.tile(rates.max_request_rate, (75, 1, 1)))
    plan = solve(load, many, Options())
    assert all(name.startswith("r0-") for name, count in plan.replicas.items() if count)


def test_progress_is_told_in_sentences():
    """The caller's function hears what the search is doing."""
    said = []
    solve(*authors(), exact(), progress=said.append)
    assert said
    assert "USD/h" in said[0]


def test_a_thousand_types_with_spares_cost_no_more_than_the_best_of_them_alone():
    """Tiny loads beside rows that say whether a type is used once made a presolve call 32 times the cost optimal."""
    traffic = dataset("azure-conversation", request_rate=2.0)
    offers = load_catalog().select(markets=["on-demand"]).offers
    capacities = estimate(find_model("meta-llama/Llama-3.1-8B-Instruct"), offers, Slo(tpot_s=0.08), traffic)
    plan = solve(traffic, capacities, Options(spare_replicas=1))
    assert plan.cost_per_h <= min(b.cost_per_h for b in plan.single_type.values() if b.cost_per_h is not None)


def test_a_type_that_cannot_serve_everything_says_what_the_rest_would_cost():
    """Savings that hang on a few requests are seen as what they are."""
    load, rates = authors()
    capacity = rates.max_request_rate.copy()
    capacity[0, 1, 1] = 0.0  # A10G cannot serve the last bucket: 20 % of the requests
    a10g = solve(load, replace(rates, max_request_rate=capacity, low=capacity, high=capacity), exact()).single_type[
        "A10G"
    ]
    assert (a10g.cost_per_h, a10g.instances) == (None, 0)
    assert a10g.served_fraction == pytest.approx(0.8)
    assert a10g.rest_cost_per_h == pytest.approx(9 * 1.01)  # 6/2 + 3/1 + 15/5 = 9 replicas


def test_reasons_that_differ_in_their_figures_are_told_together():
    """A hundred floors become a range, with the types that come nearest first."""
    traffic = dataset("azure-conversation", request_rate=2.0)
    offers = load_catalog().select(providers=["aws"], regions=["us-east-1"], markets=["on-demand"]).offers
    slo = Slo(ttft_s=0.001)
    capacities = estimate(find_model("meta-llama/Llama-3.1-8B-Instruct"), offers, slo, traffic)
    with pytest.raises(InfeasibleError) as error:
        solve(traffic, capacities)
    busiest = error.value.reasons[0]
    assert re.search(r"B[23]00 x \d.* more: a single request waits [\d.]+ ms to [\d.]+ ms for", busiest)
    assert busiest.count("for its first token") == 1


def test_shares_after_a_loss_need_not_be_whole_slices():
    """In one slice a size goes to one type; once a replica is lost, the rest carries it in whatever parts."""
    offers = [offer("a", 1.0), offer("b", 1.0)]
    case = workload([[1.0, 1.0]]), profile(offers, [[[1.0, 1.0]], [[1.0, 1.0]]])
    plan = solve(*case, exact(slices=1, spare_total_replicas=1))
    assert plan.cost_per_h == 3.0
    assert set(np.unique(plan.share)) <= {0.0, 1.0}


def test_thin_traffic_needs_a_replica_after_a_loss():
    """A size of one request in 30,000 years still finds a replica when the one that serves it is lost."""
    case = workload([[1e-12, 0.5]]), profile([offer("a", 1.0), offer("b", 2.0)], [[[1.0, 0.0]], [[1.0, 1.0]]])
    plan = solve(*case, exact(spare_total_replicas=1))
    assert plan.instances.tolist() == [0, 2]


def test_slices_are_planned_by_the_whole_program_where_trying_fleets_takes_long(monkeypatch):
    """The same cost whether fleets are tried one after the other, for as long as it takes, or not at all."""
    cases = [(random_case(seed, types=5, buckets=9), exact(slices=3)) for seed in range(6)]
    tried = [solve(*case, options).cost_per_h for case, options in cases]
    monkeypatch.setattr("melange.plan.cheapest._LISTING_S", 0.0)
    assert [solve(*case, options).cost_per_h for case, options in cases] == pytest.approx(tried)


def test_stocks_of_many_types_are_planned_with_the_cheapest_of_them():
    """Of 400 offers of which one instance each is available, the cheapest ones, proven."""
    prices = np.round(np.linspace(1.0, 2.0, 400), 4)
    offers = [offer(f"t{r}", float(price), max_instances=1) for r, price in enumerate(prices)]
    plan = solve(workload([[9.95]]), profile(offers, np.ones((400, 1, 1))), exact(gap=0.01))
    assert plan.cost_per_h == pytest.approx(prices[:10].sum())
    assert plan.status == "optimal"


def test_all_of_the_traffic_is_all_of_it():
    """However the rates are summed: nothing is said to be left out where nothing is."""
    for seed in range(40):
        plan = solve(*random_case(seed, types=2, buckets=7), exact())
        assert plan.served_fraction == 1.0
        assert not [one for one in plan.cautions if one.kind == "left-out"]


@pytest.mark.parametrize(
    "options",
    [{"min_total_replicas": 9}, {"spare_total_replicas": 2}, {"require": ("A100-80GB",), "min_total_replicas": 9}],
)
def test_types_that_serve_nothing_are_not_rented(options: dict[str, Any]) -> None:
    """However cheap they are: they would count as replicas, and take no request."""
    traffic, known = authors()
    useless = offer("T4", 0.01)
    rates = np.concatenate([known.max_request_rate, np.zeros((1, 2, 2))])
    asked = Options(**options)
    plan = solve(traffic, profile([*(one.offer for one in known.replica_types), useless], rates), asked)
    assert plan.instances_by_name["T4"] == 0
    assert plan.cost_per_h == pytest.approx(solve(traffic, known, asked).cost_per_h)
    with pytest.raises(InfeasibleError) as error:
        solve(traffic, profile([*(one.offer for one in known.replica_types), useless], rates), Options(require=("T4",)))
    assert "T4 is required, but none is allowed, available and able to serve" in " ".join(error.value.reasons)
