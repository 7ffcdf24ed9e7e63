"""What plans draw and emit, by hand, and what carbon is counted with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plan_cases import profile, workload

from melange.catalog.bundled import accelerators, find_model
from melange.catalog.grid import WORLD_G_PER_KWH, grid_intensity
from melange.catalog.offer import Offer
from melange.errors import InputError
from melange.plan.energy import energy_of, instance_kw, with_carbon_cost
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.profile.estimate import estimate
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

H100, L4 = accelerators()["H100-80GB"], accelerators()["L4"]
BUCKETS = Buckets(input_edges=(900,), output_edges=(100,))


def offered(accelerator: str, cost_per_h: float, region: str = "us-east-1") -> Offer:
    """An instance of one accelerator."""
    where = {"provider": "aws", "region": region, "instance_type": accelerator}
    return Offer(**where, accelerator=accelerator, accelerators=1, cost_per_h=cost_per_h)


def plan_of(options: Options | None = None) -> Plan:
    """A plan for a thousand tokens a request on numbered types with tokens."""
    offers = [offered("H100-80GB", 3.0), offered("L4", 0.8, "nowhere")]
    rates = np.array([[[10.0]], [[1.0]]])
    found = replace(profile(offers, rates), buckets=BUCKETS)
    return solve(Workload.at_upper_edges(BUCKETS, [[9.0]]), found, options or Options())


def test_an_instance_draws_between_idle_and_busy() -> None:
    """By hand: 700 W of an H100, 0.4 of it idle and 1.4 at full load, times the data center's 1.2."""
    assert instance_kw(H100, 1, 0.0, 1.2) == pytest.approx(0.7 * 0.4 * 1.2)
    assert instance_kw(H100, 8, 1.0, 1.2) == pytest.approx(8 * 0.7 * 1.4 * 1.2)
    assert instance_kw(H100, 1, 0.5, 1.0) == pytest.approx(0.7 * 0.9)
    assert instance_kw(H100, 1, 7.0, 1.0) == instance_kw(H100, 1, 1.0, 1.0)


def test_energy_and_carbon_for_a_million_tokens() -> None:
    """By hand: one H100 at 0.9 of its capacity serves 9,000 tokens a second, 32.4 million an hour."""
    plan = plan_of()
    total = energy_of(plan)["total"]
    kw = 0.7 * (0.4 + 1.0 * 0.9) * 1.2
    assert total.power_kw == pytest.approx(kw)
    assert total.energy_kwh_per_mtok == pytest.approx(kw / 32.4)
    assert total.carbon_kg_per_mtok == pytest.approx(kw / 32.4 * 0.385)
    assert plan.to_json()["energy"]["H100-80GB"]["power_kw"] == total.power_kw
    told = plan_of(Options(grid_g_per_kwh={"us-east-1": 20.0}, pue=1.0))
    assert energy_of(told)["total"].carbon_kg_per_h == pytest.approx(kw / 1.2 * 0.02)


def test_a_power_that_is_not_known_gives_no_figures() -> None:
    """Rather than a sum that leaves a type out."""
    plan = plan_of()
    without = {"H100-80GB": replace(H100, tdp_w=0.0), "L4": L4}
    assert energy_of(plan, without) == {}
    with pytest.raises(InputError, match=r"plan\.carbon_price_per_kg: the power of TPUv5e is not known"):
        with_carbon_cost([offered("TPUv5e", 1.0)], accelerators(), Options(carbon_price_per_kg=0.1))


def test_the_price_of_carbon_turns_the_plan() -> None:
    """Cheap cards on a dirty grid against others on a clean one; what they cost for carbon is stated."""
    slo = Slo(tpot_s=0.06, statistic="mean")
    model = find_model("meta-llama/Llama-3.1-8B-Instruct")
    offers = [offered("A100-80GB", 1.0, "dirty"), offered("H100-80GB", 4.0, "clean")]
    traffic = Workload.at_upper_edges(BUCKETS, [[40.0]])
    used = []
    for price in (0.0, 5.0):
        options = Options(carbon_price_per_kg=price, grid_g_per_kwh={"dirty": 900.0, "clean": 10.0})
        counted = with_carbon_cost(offers, accelerators(), options) if price else offers
        plan = solve(traffic, estimate(model, counted, slo, traffic), options)
        used.append({one.offer.accelerator for one, n in zip(plan.replica_types, plan.instances, strict=True) if n})
    assert used == [{"A100-80GB"}, {"H100-80GB"}]
    (dirty, clean) = with_carbon_cost(offers, accelerators(), Options(carbon_price_per_kg=5.0, headroom=0.0))
    assert dirty.carbon_cost_per_h == pytest.approx(0.4 * 1.4 * 1.2 * WORLD_G_PER_KWH / 1000 * 5)
    assert dirty.cost_per_h == pytest.approx(1.0 + dirty.carbon_cost_per_h)
    assert clean.carbon_cost_per_h == pytest.approx(0.7 * 1.4 * 1.2 * WORLD_G_PER_KWH / 1000 * 5)


@pytest.mark.parametrize(
    ("region", "found"), [("us-west-2", 385), ("europe-west4", 253), ("eu-central-1", 344), ("moon", 450), ("", 450)]
)
def test_a_grid_is_that_of_its_country(region: str, found: float) -> None:
    """Or the world's, for a region that nobody names."""
    assert grid_intensity(region, {}) == found
    assert grid_intensity(region, {"default": 7.0}) == 7.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pue": 0.9}, r"plan\.pue must be 1 to 5, got 0\.9"),
        ({"carbon_price_per_kg": -1.0}, r"plan\.carbon_price_per_kg must be 0 to 1000"),
        ({"grid_g_per_kwh": {"us-east-1": 385000.0}}, r"plan\.grid_g_per_kwh\.us-east-1 must be 0 to 5000"),
        (
            {"grid_g_per_kwh": {"us-east-2": 100.0}},
            r"plan\.grid_g_per_kwh: unknown region 'us-east-2'",
        ),
    ],
)
def test_figures_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    """Wrong units, and regions in which nothing is offered."""
    with pytest.raises(InputError, match=message):
        plan_of(Options(**options))


def test_plans_of_numbered_buckets_have_no_tokens() -> None:
    """Power all the same."""
    plan = solve(workload([[9.0]]), profile([offered("H100-80GB", 3.0)], [[[10.0]]]), Options())
    total = energy_of(plan)["total"]
    assert total.power_kw > 0
    assert total.energy_kwh_per_mtok is None
