"""Plans of the least emissions: against every fleet that carries the traffic, and beside the cheapest plan."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from plan_cases import carries, problem_of, profile, random_case

from melange.catalog.bundled import accelerators, find_model
from melange.catalog.offer import Offer
from melange.errors import InfeasibleError, InputError
from melange.plan.by_carbon import least_carbon
from melange.plan.energy import emissions_of
from melange.plan.explain import explain
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.search_clock import by_work, count_whole
from melange.plan.solve import solve
from melange.present.terminal.engine_words import carbon_line
from melange.present.terminal.plan_words import proof
from melange.profile.estimate import estimate
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.validate.certify.certify import certify
from melange.workload.workload import Buckets, Workload

CARDS = ("L4", "A10G", "A100-80GB", "H100-80GB", "L40S")
GRIDS = {"north": 20.0, "south": 600.0}
MOST = 7


def drawn(seed: int) -> tuple[Workload, Profile, Options]:
    """A tiny program on real cards in two regions; some cards twice, at two prices."""
    rng = np.random.default_rng([seed, 14])
    traffic, found = random_case(seed, types=3, buckets=3)
    cards = rng.choice(CARDS, 2)
    names = [*cards, cards[0]]
    offers = [
        Offer(
            provider=f"p{place}",
            region=str(rng.choice(list(GRIDS))),
            instance_type=f"{name}-{place}",
            accelerator=str(name),
            accelerators=1,
            cost_per_h=one.offer.cost_per_h,
            max_instances=int(rng.integers(1, 4)) if rng.random() < 0.3 else None,
        )
        for place, (name, one) in enumerate(zip(names, found.replica_types, strict=True))
    ]
    regions = {one.region for one in offers}
    options = Options(objective="carbon", grid_g_per_kwh={name: GRIDS[name] for name in regions})
    rates = found.max_request_rate.copy()
    rates[2] = rates[0]  # the same card for another price, perhaps on another grid
    return traffic, profile(offers, rates), options


def least_by_trying(traffic: Workload, found: Profile, options: Options) -> tuple[float, float] | None:
    """Least emissions, and the least cost of fleets that emit that, over all fleets that carry the traffic."""
    emitted = emissions_of([one.offer for one in found.replica_types], options)
    problem = problem_of(traffic, found, options)
    kg = np.array([emitted[found.replica_types[r].offer] for r in problem.types])
    best = None
    for count in itertools.product(*(range(min(MOST, int(most)) + 1) for most in problem.most)):
        at = np.array(count)
        key = (round(float(kg @ at), 9), round(float(problem.cost @ at), 9))
        if (best is None or key < best) and carries(problem, at):
            best = key
    return best


@pytest.mark.parametrize("seed", range(12))
def test_no_fleet_emits_less(seed: int) -> None:
    """Every fleet is tried; of those that emit the same, the cheapest."""
    traffic, found, options = drawn(seed)
    best = least_by_trying(traffic, found, options)
    if best is None:
        with pytest.raises(InfeasibleError):
            solve(traffic, found, options)
        return
    plan = solve(traffic, found, options)
    if plan.instances.max() > MOST:
        pytest.skip("beyond the fleets that are tried")
    beside = plan.least_carbon
    assert beside is not None
    assert (beside.emitted_kg_per_h, plan.cost_per_h) == (pytest.approx(best[0]), pytest.approx(best[1]))
    assert beside.bound_kg_per_h == pytest.approx(best[0], rel=1e-6)
    cheapest = solve(traffic, found, replace(options, objective="cost"))
    assert beside.cheapest_per_h == cheapest.cost_per_h <= plan.cost_per_h + 1e-9
    assert beside.cheapest_kg_per_h >= beside.emitted_kg_per_h - 1e-9
    assert Plan.from_json(plan.to_json()).least_carbon == beside


def chat(rate: float) -> tuple[Workload, Profile, Options]:
    """Cheap cards on a dirty grid, others on a clean one."""
    buckets = Buckets(input_edges=(900,), output_edges=(100,))
    traffic = Workload.at_upper_edges(buckets, [[rate]])
    where = {"A100-80GB": ("dirty", 1.0), "H100-80GB": ("clean", 4.0)}
    offers = [
        Offer(provider="p", region=region, instance_type=name, accelerator=name, accelerators=1, cost_per_h=cost)
        for name, (region, cost) in where.items()
    ]
    found = estimate(find_model("meta-llama/Llama-3.1-8B-Instruct"), offers, Slo(tpot_s=0.06), traffic)
    return traffic, found, Options(objective="carbon", grid_g_per_kwh={"dirty": 900.0, "clean": 10.0})


def test_both_searches_share_the_time_limit() -> None:
    """The cheapest plan gets half of it, the plan of least emissions what is left, and the plan states the whole."""
    traffic, found, options = chat(40.0)
    question = Question(workload=traffic, profile=found, options=replace(options, time_limit_s=20.0))
    limits = []

    def search(one: Question) -> Plan:
        limits.append(one.options.time_limit_s)
        return solve(one)

    plan = least_carbon(question, search)
    assert limits[0] == 10.0
    assert 10.0 <= limits[1] <= 20.0
    assert plan.options == question.options

    def late(one: Question) -> Plan:
        limits.append(one.options.time_limit_s)
        count_whole(rows=1_000, pauses=1_000)
        return solve(one)

    with by_work():
        least_carbon(question, late)
    assert limits[2:] == [10.0, 10.0]


def test_a_certified_plan_has_the_least_emissions_and_costs_in_usd() -> None:
    """All of its figures are at the offers' prices, those of its certificate too."""
    traffic, found, options = chat(40.0)
    said: list[str] = []
    plan = certify(traffic, found, options, progress=said.append)
    used = {one.offer.accelerator for one, n in zip(plan.replica_types, plan.instances, strict=True) if n}
    assert used == {"H100-80GB"}
    assert plan.cost_per_h == 4.0 * plan.instances.sum()
    assert plan.certificate is not None
    assert plan.certificate.single_type_per_h == plan.cost_per_h
    assert plan.certificate.cost_before_per_h % 4.0 == 0
    assert plan.options == Question(workload=traffic, profile=found, options=options).options
    assert plan.least_carbon is not None
    assert plan.least_carbon.cheapest_per_h < plan.cost_per_h
    assert any("kg CO2e/h" in one for one in said)
    (line,) = carbon_line(plan)
    assert "it costs" in line
    assert "kg CO2e/h can meet the SLO" in proof(plan)
    assert Plan.from_json(plan.to_json()).fingerprint == plan.fingerprint


def test_a_grid_without_emissions_gives_the_cheapest_plan() -> None:
    """All fleets emit the same: nothing."""
    traffic, found, options = chat(40.0)
    nothing = replace(options, grid_g_per_kwh={"default": 0.0})
    plan, cheapest = solve(traffic, found, nothing), solve(traffic, found, replace(nothing, objective="cost"))
    assert plan.cost_per_h == cheapest.cost_per_h
    assert carbon_line(plan) == ["Lowest emissions: the cheapest plan already reaches them"]


def test_what_goes_by_cost_refuses_the_objective() -> None:
    """Rather than give an answer in other units."""
    traffic, found, options = chat(4.0)
    with pytest.raises(InputError, match=r"plan\.objective: unknown|plan\.objective"):
        Options(objective="carbn")
    with pytest.raises(InputError, match="budget_per_h maximizes traffic"):
        Options(objective="carbon", budget_per_h=3.0)
    with pytest.raises(InputError, match="only for the cheapest plan"):
        explain(solve(traffic, found, options))
    unknown = replace(found.replica_types[0].offer, accelerator="TPUv5e")
    assert not accelerators()["TPUv5e"].tdp_w
    with pytest.raises(InputError, match=r"plan\.objective: carbon: the power of TPUv5e is not known"):
        emissions_of([unknown], options)
