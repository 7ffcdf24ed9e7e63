"""The answer in words: every plan says what its cost rests on, and what a simulation has shown of it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from melange.plan.certificate import Certificate
from melange.plan.explain import explain
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.simulation import Simulation
from melange.plan.solve import solve
from melange.plan.sweeps import explore
from melange.present.pages.explore_page import explore_pictures
from melange.present.study import Study
from melange.present.terminal.explanation import explanation_page
from melange.present.terminal.plan_tables import assumptions, plan_page, serves
from melange.present.terminal.plan_words import changes_sentence, margin_sentence, plan_sentence, proof, used_types
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.workload.workload import Workload

PROOF = Certificate(
    target=0.99,
    attainment=0.9934,
    low=0.9912,
    requests=2000,
    seeds=60,
    policy="plan-least-work",
    cost_before_per_h=10.8,
    attainment_before=0.467,
    headroom={"small": 0.2, "large": 0.3},
    plans=7,
    wanted=0.99,
    single_type="large",
    single_type_per_h=21.6,
)


@pytest.fixture
def certified(plan: Plan) -> Plan:
    """The plan of both types, as if a search had found it: 16.2 USD/h."""
    return replace(plan, certificate=PROOF, status="certified", bound_per_h=None, gap=1.0)


def beyond(plan: Plan) -> Plan:
    """A plan for 97 % of the requests, where the SLO asks for 99 %."""
    more = replace(
        PROOF,
        target=0.97,
        attainment=0.9721,
        low=0.9703,
        wanted=0.99,
        reach=0.9743,
        beyond_reach=("2.57% of the requests exceed the TTFT limit even alone, by 40% in the median",),
    )
    return replace(plan, certificate=more, status="certified", bound_per_h=None, gap=1.0)


def shown_at(plan: Plan, width: int) -> str:
    """What a terminal of that width shows."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(plan_page(plan))
    console.print(explanation_page(explain(plan), plan))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_certified_plan_says_what_holds_and_what_it_saves(certified: Plan) -> None:
    """Mix, cost, share and target, and the saving against the cheapest certified single type: 21.6 USD/h are 3."""
    said = plan_sentence(certified)
    assert said.startswith("4 x small and 1 x large: ")
    assert "certified: 99.34% of the simulated requests met the SLO (target 99%)" in said
    saved = 1 - certified.cost_per_h / 21.6
    assert said.endswith(f"{saved:.1%} less than the cheapest certified single type (3 x large, 21.60 USD/h).")
    assert certified.savings == pytest.approx(saved)
    likely = replace(certified, certificate=replace(PROOF, margin=0.02, chance=0.547))
    assert "(target 99%), and is about 50% likely to hold given the error of step times; " in plan_sentence(likely)
    none_found = replace(PROOF, single_type=None, single_type_per_h=None)
    assert "no certified fleet of a single type was found" in plan_sentence(replace(certified, certificate=none_found))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget_per_h": 10.0}, "; no single type can serve all requests within the budget."),
        ({"budget_per_h": 22.0}, "; 11.1% less than the cheapest single type (9 x small, 16.20 USD/h)."),
        (
            {"max_instances": {"small": 8, "large": 2}},
            "; no single type can serve all requests with the available instances.",
        ),
        (
            {"require": ["large"]},
            "; 33.3% less than the cheapest single type allowed by plan.require (3 x large, 21.60 USD/h).",
        ),
        ({"require": ["small", "large"]}, "by closed form (nothing was simulated)."),
    ],
)
def test_a_comparison_with_single_types_says_what_limits_them(
    workload: Workload, profile: Profile, options: dict[str, Any], words: str
) -> None:
    """All requests, the budget, the stock, or a required type; if two types are required, there is no comparison."""
    assert plan_sentence(solve(workload, profile, Options(headroom=0.0, **options))).endswith(words)


def test_a_plan_under_a_budget_is_proven_to_serve_most(workload: Workload, profile: Profile) -> None:
    """A share that nothing exceeds is not called one that is exceeded by nothing."""
    plan = solve(workload, profile, Options(headroom=0.0, budget_per_h=10.0, gap=0.0))
    assert proof(plan) == "Optimal: no plan within the budget serves more, under the closed form's assumptions."
    assert "serves more than 1.20% above this (time limit)." in proof(replace(plan, gap=0.012, status="time limit"))


def test_no_type_serves_every_size_whatever_is_required(workload: Workload, profile: Profile) -> None:
    """Then it is the sizes that exclude single types, not the settings."""
    rates = profile.max_request_rate.copy()
    rates[1, 0, 0] = 0.0
    apart = replace(profile, max_request_rate=rates)
    sent = replace(workload, request_rate=np.array([[15.0, 6.0], [9.0, 1.0]]))
    for options in (Options(), Options(budget_per_h=100.0), Options(require=("small", "large"))):
        assert "; no single type can serve all requests." in plan_sentence(solve(sent, apart, options))


def test_a_certified_plan_is_compared_with_what_may_serve_alone(certified: Plan) -> None:
    """With the single type that a requirement allows, and with none if there is none."""
    required = replace(certified, question=certified.question.with_options(require=("large",)))
    assert plan_sentence(required).endswith(
        "; 33.3% less than the cheapest certified single type allowed by plan.require (3 x large, 21.60 USD/h)."
    )
    none_found = replace(PROOF, single_type=None, single_type_per_h=None)
    assert plan_sentence(replace(required, certificate=none_found)).endswith(" met the SLO (target 99%).")


def test_a_certified_fleet_of_one_type_is_not_compared_with_itself(certified: Plan) -> None:
    """It is the cheapest single type."""
    share = certified.share * 0
    share[1] = certified.share.sum(axis=0)
    one = replace(
        certified,
        instances=[0, 3],
        share=share,
        cost_per_h=21.6,
        certificate=replace(PROOF, single_type="large", single_type_per_h=21.6),
    )
    assert plan_sentence(one).endswith("no mix of types is cheaper, as far as searched.")


@pytest.mark.parametrize(
    ("bound", "gap", "words"),
    [
        (None, 1.0, "Lower bound: none; cheaper fleets may exist."),
        (10.0, 0.12, "Lower bound: no fleet below 10.00 USD/h can meet the SLO"),
        (10.0, 0.12, "so a better plan could save at most 12.0%."),
        (16.2, 0.0, "Optimal: no cheaper fleet can meet the SLO, assuming that loads add up."),
    ],
)
def test_a_certified_plan_says_how_far_from_the_cheapest_it_can_be(
    certified: Plan, bound: float | None, gap: float, words: str
) -> None:
    """A bound, a proof, or that there is none."""
    assert words in proof(replace(certified, bound_per_h=bound, gap=gap))


def test_a_target_beyond_reach_is_the_first_thing_said(plan: Plan) -> None:
    """With the best share that is possible, what this plan holds, and why; it does not hold."""
    found = beyond(plan)
    first = plan_sentence(found)
    for words in ("certified for 97% only", "target of 99%", "At most 97.43%", "97.21% do (97.03% at least)", "TTFT"):
        assert words in first
    assert (found.holds, found.target, found.kind) == (False, 0.99, "certified")


def test_a_closed_form_says_that_nothing_was_simulated(plan: Plan) -> None:
    """And why, where a simulation was asked for."""
    assert "by closed form (nothing was simulated); " in plan_sentence(plan)
    reason = replace(plan, not_simulated="the profile names no SLO")
    assert "(nothing was simulated: the profile names no SLO)" in plan_sentence(reason)
    profile = replace(plan.question.profile, slo=Slo(tpot_s=0.1, statistic="p99"))
    on_rates = replace(plan, question=replace(plan.question, profile=profile))
    assert "by sums of simulated rates (the plan itself was not simulated)" in plan_sentence(on_rates)
    assert (plan.kind, plan.holds, plan.attainment, plan.low) == ("closed form", None, None, None)


def test_a_plan_that_was_simulated_once_says_what_came_of_it(plan: Plan) -> None:
    """With the target, where one was asked for."""
    shown = Simulation(attainment=0.934, low=0.929, requests=10_000, seeds=5, policy="plan-least-work")
    once = replace(plan, simulation=shown)
    assert "93.40% of the simulated requests individually met the limits; " in plan_sentence(once)
    assert "Simulated once: 93.40% of 5 x 10,000 counted requests met the limits, 92.90% at least." in proof(once)
    assert (once.kind, once.holds) == ("simulated", None)
    asked = replace(plan, simulation=replace(shown, target=0.99))
    assert "not certified: 93.40%" in plan_sentence(asked)
    assert "met the limits, which does not prove the target of 99%; " in plan_sentence(asked)
    assert asked.holds is False


def test_what_a_plan_rests_on_survives_its_file(plan: Plan, certified: Plan) -> None:
    """Kind, share and reason are there for machines, and come back."""
    shown = Simulation(attainment=0.934, low=0.929, requests=10_000, seeds=5, policy="plan-least-work", target=0.9)
    for one in (certified, beyond(plan), replace(plan, simulation=shown), replace(plan, not_simulated="a reason")):
        content = one.to_json()
        again = Plan.from_json(content)
        assert {name: content[name] for name in ("kind", "holds", "target", "attainment", "low")} == {
            name: getattr(again, name) for name in ("kind", "holds", "target", "attainment", "low")
        }
        assert (again.simulation, again.not_simulated) == (one.simulation, one.not_simulated)
        assert again.certificate == one.certificate


def test_changes_say_what_both_plans_stand_on(plan: Plan, certified: Plan) -> None:
    """A certified answer beside a plan in force that was not simulated, and the other way."""
    said = changes_sentence(certified, plan)
    assert "by closed form for 30 requests/s" in said
    assert "The certified search minimizes cost" in said
    assert "certified for 30 requests/s at 99%" in changes_sentence(plan, certified)


def test_a_type_names_every_size_that_the_routes_send_to_it(workload: Workload, profile: Profile) -> None:
    """One request in 100,000 is long, and the table of the mix covers it like the routes."""
    rare = replace(workload, request_rate=np.array([[30.0, 0.0], [0.0, 3e-4]]))
    plan = solve(rare, profile, Options(headroom=0.0, exclude=("small",)))
    assert serves(plan, used_types(plan)[0]) == "100.0% of requests: 1-1,000 in, 1-500 out"


def test_a_certificate_compares_its_cost_with_the_closed_form(certified: Plan) -> None:
    """In words: 14.4 USD/h are a third more than 10.8, and the same as 14.4."""
    met = "with which 46.70% of the requests met the SLO."
    assert f"This costs 33.3% more than the closed-form plan (10.80 USD/h), {met}" in proof(certified)
    same = replace(certified, certificate=replace(PROOF, cost_before_per_h=certified.cost_per_h))
    assert "Same cost as the closed-form plan (14.40 USD/h, 46.70% met)." in proof(same)


@pytest.mark.parametrize(
    ("spares", "words"),
    [
        ({"spare_replicas": 1}, "| 1 spare replica per type"),
        ({"spare_replicas": {"small": 2}}, "| spare replicas: 2 x small"),
        ({"spare_total_replicas": 2}, "| 2 spare replicas in total"),
        ({}, "fractional routing\n"),
    ],
)
def test_the_header_names_spare_replicas(plan: Plan, spares: dict[str, Any], words: str) -> None:
    """They explain why the fleet is larger than the load needs."""
    asked = replace(plan, question=plan.question.with_options(**spares))
    assert words in f"{assumptions(asked)}\n"


@pytest.mark.parametrize(
    ("options", "slowed_by", "words"),
    [
        ({}, {}, "met the SLO (target 99%)"),
        ({"spare_replicas": 1}, {}, "met the SLO with the spare replicas lost (target 99%)"),
        ({"spare_total_replicas": 1}, {}, "met the SLO with the spare replicas lost (target 99%)"),
        ({}, {"a": 1.2, "b": 1.25}, "met the SLO with steps up to 25.0% slower than estimated (target 99%)"),
        (
            {"spare_replicas": 1},
            {"a": 1.25},
            "with the spare replicas lost and steps up to 25.0% slower than estimated",
        ),
    ],
)
def test_the_answer_says_what_its_share_is_for(
    certified: Plan, options: dict[str, Any], slowed_by: dict[str, float], words: str
) -> None:
    """A fleet without its spare replicas, or slower steps: another simulation of the plan shows a better share."""
    certificate = replace(PROOF, slowed_by=slowed_by)
    asked = replace(certified, certificate=certificate, question=certified.question.with_options(**options))
    assert words in plan_sentence(asked)


def test_single_types_are_compared_with_the_mix_of_their_kind(certified: Plan) -> None:
    """Both by closed form: 10.8 USD/h is what the mix costs there."""
    page = shown_at(certified, 120)
    title = (
        "With one type only, by closed form for 99% (not certified); the cheapest mix by closed form costs 10.80 USD/h"
    )
    assert title in page
    assert "Against that mix" in page
    cost = certified.single_type["large"].cost_per_h
    assert cost is not None
    assert f"{cost / 10.8 - 1:+.1%}" in page
    assert "What would change the answer by closed form (10.80 USD/h, not certified)" in page


@pytest.mark.parametrize("kind", ["closed form", "certified", "beyond reach"])
def test_nothing_is_cut_off_at_80_columns(plan: Plan, certified: Plan, kind: str) -> None:
    """Names and figures are whole."""
    page = shown_at({"closed form": plan, "certified": certified, "beyond reach": beyond(plan)}[kind], 80)
    assert max(map(len, page.splitlines())) <= 80
    assert "…" not in page


def test_points_of_curves_say_their_kind_and_a_certified_plan_has_its_own(certified: Plan, plan: Plan) -> None:
    """The star stands at what certainty costs, and the caption says why it is not on the curve."""
    study = Study(exploration=explore(certified))
    cost = next(picture for picture in explore_pictures(study) if picture.name == "cost-by-rate")
    star = cost.variants[0].figure.data[-1]
    assert (star.name, list(star.x), list(star.y)) == (
        "this service's plan, certified",
        [30.0],
        [certified.cost_per_h],
    )
    curves = [trace.name for trace in cost.variants[0].figure.data[:-1]]
    assert curves
    assert all(name.endswith("closed form") for name in curves)
    assert "in simulation only 46.70% of its requests meet the SLO (target 99%)" in cost.caption
    roomy = replace(certified, certificate=replace(PROOF, cost_before_per_h=2 * certified.cost_per_h))
    captions = [picture.caption for picture in explore_pictures(Study(exploration=explore(roomy)))]
    assert any("the simulation finds capacity" in caption for caption in captions)
    kinds = [row[cost.header.index("Kind")] for row in cost.rows]
    assert kinds[0] == "certified"
    assert set(kinds[1:]) == {"closed form"}
    plain = next(one for one in explore_pictures(Study(exploration=explore(plan))) if one.name == "cost-by-rate")
    assert "No plan was simulated." in plain.caption


@pytest.mark.parametrize(
    ("margin", "chance", "slowed_by", "words"),
    [
        (0.09, 0.68, {}, "until engine steps are 9.0% slower than estimated. Given the error of step times, the plan"),
        (
            -0.03,
            0.31,
            {},
            "the SLO is met only if engine steps are 3.0% faster than estimated.",
        ),
        (0.3, 0.99, {"a": 1.25}, "a probability of more than 95%. Certified with slower steps: +25% on a."),
        (
            0.0,
            0.02,
            {},
            "none; the SLO is met with the estimated step times, but not if engine steps are slower.",
        ),
        (0.004, 0.02, {}, "a probability of less than 5%."),
    ],
)
def test_a_certificate_says_its_margin(margin: float, chance: float, slowed_by: dict[str, float], words: str) -> None:
    """By how much steps may be slower, and how likely they are not; nothing where the file does not say it."""
    said = margin_sentence(replace(PROOF, margin=margin, chance=chance, slowed_by=slowed_by))
    assert said.startswith("Margin: ")
    assert words in said
    assert margin_sentence(PROOF) == ""


@pytest.mark.parametrize(
    ("able", "unable", "said"),
    [
        (9, 0, "1 more expensive type not shown"),
        (10, 0, "2 more expensive types not shown"),
        (8, 5, "1 infeasible type not shown"),
        (9, 5, "1 more expensive and 1 infeasible type not shown"),
        (9, 6, "1 more expensive and 2 infeasible types not shown"),
    ],
)
def test_types_that_are_not_shown_are_counted(plan: Plan, able: int, unable: int, said: str) -> None:
    """Eight that can serve the traffic are shown, and four that cannot; one left is a type, two are types."""
    cheapest, some = next((name, one) for name, one in plan.single_type.items() if one.cost_per_h is not None)
    single = {cheapest if k == 0 else f"able-{k}": replace(some, cost_per_h=20.0 + k) for k in range(able)}
    single |= {f"unable-{k}": replace(some, cost_per_h=None, instances=None, reason="no") for k in range(unable)}
    console = Console(file=io.StringIO(), width=200)
    console.print(plan_page(replace(plan, single_type=single)))
    assert f"\n{said} (--json lists all, with reasons)" in console.file.getvalue().replace("\n  ", "\n")
