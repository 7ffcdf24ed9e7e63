"""Power draw of a plan's instances, and their emissions.

A server draws ``TDP (idle + (busy - idle) load)`` for each accelerator: 1.4 times the accelerator's thermal design
power at full load, including the host, fans and network, and 0.4 times when idle (chosen by judgment). A node of eight
H100 (5.6 kW of thermal design power) can draw 11.3 kW and draws about 0.7 of that while it serves ("Energy use of AI
inference: efficiency pathways and test-time compute", 2025; it has 0.4 to 0.9, so the figure may be off by that much).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from melange.catalog.accelerator import Accelerator
from melange.catalog.grid import grid_intensity
from melange.errors import InputError, some_of
from melange.files import Json
from melange.plan.options import CARBON
from melange.units import S_PER_H, TOKENS_PER_MTOK

if TYPE_CHECKING:
    from melange.catalog.offer import Offer
    from melange.plan.options import Options
    from melange.plan.plan import Plan

IDLE_OF_TDP, BUSY_OF_TDP = 0.4, 1.4
_W_PER_KW, _G_PER_KG = 1000.0, 1000.0
# The key that asks for emissions, and the line that turns them off.
_PRICE_KEYS = ("carbon_price_per_kg", "carbon_price_per_kg: 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyUse:
    """Power draw and emissions of a plan's instances, or of those of one type, at the planned traffic.

    Parameters
    ----------
    power_kw
        Power that the data center draws for them [kW].
    carbon_kg_per_h
        Emissions of that power [kg CO2e/h].
    energy_kwh_per_mtok, carbon_kg_per_mtok
        Per million tokens served, prompt and completion [kWh], [kg CO2e]; None if token counts are not known.
    """

    power_kw: float
    carbon_kg_per_h: float
    energy_kwh_per_mtok: float | None = None
    carbon_kg_per_mtok: float | None = None

    def to_json(self) -> Json:
        """As a JSON object."""
        return asdict(self)


def instance_kw(accelerator: Accelerator, accelerators: int, load: float, pue: float) -> float:
    """Power that a data center draws for an instance with these accelerators at a load of 0-1 [kW]."""
    share = IDLE_OF_TDP + (BUSY_OF_TDP - IDLE_OF_TDP) * min(max(load, 0.0), 1.0)
    return accelerators * accelerator.tdp_w * share * pue / _W_PER_KW


def emissions_of(
    offers: Sequence[Offer], options: Options, facts: Mapping[str, Accelerator] | None = None
) -> dict[Offer, float]:
    """Emissions of an instance of each offer at the load that headroom leaves [kg CO2e/h].

    Parameters
    ----------
    offers, options
        What is rented, and the headroom, grids and overhead of the plan.
    facts
        Accelerators by name; None: the bundled ones.

    Raises
    ------
    InputError
        Accelerators whose power is not known.
    """
    known = _bundled() if facts is None else facts
    unknown = sorted({one.accelerator for one in offers if not _tdp_w(known, one.accelerator)})
    if unknown:
        key, other = ("objective: carbon", "objective: cost") if options.objective == CARBON else _PRICE_KEYS
        raise InputError(
            f"plan.{key}: the power of {some_of(unknown)} is not known",
            hint=f"leave them out: offers.gpus, or plan.{other}",
        )
    found = {}
    for one in dict.fromkeys(offers):
        kw = instance_kw(known[one.accelerator], one.accelerators, 1.0 - options.headroom, options.pue)
        found[one] = kw * grid_intensity(one.region, options.grid_g_per_kwh) / _G_PER_KG
    return found


def with_carbon_cost(offers: Sequence[Offer], facts: Mapping[str, Accelerator], options: Options) -> tuple[Offer, ...]:
    """Offers whose cost includes the price of their emissions, at the load that headroom leaves.

    Raises
    ------
    InputError
        Accelerators whose power is not known.
    """
    emitted, price = emissions_of(offers, options, facts), options.carbon_price_per_kg
    return tuple(
        replace(one, cost_per_h=one.cost_per_h + emitted[one] * price, carbon_cost_per_h=emitted[one] * price)
        for one in offers
    )


def energy_of(plan: Plan, facts: Mapping[str, Accelerator] | None = None) -> dict[str, EnergyUse]:
    """Power and emissions of each used type by name, and of all together as ``total``; empty if a power is not known.

    Parameters
    ----------
    plan
        The plan, taken at its planned load.
    facts
        Accelerators by name; None: the bundled ones.
    """
    facts = _bundled() if facts is None else facts
    options, found = plan.options, {}
    for r, one in enumerate(plan.replica_types):
        count = int(plan.instances[r])
        if not count:
            continue
        fact = facts.get(one.offer.accelerator)
        if fact is None or not fact.tdp_w:
            return {}
        kw = count * instance_kw(fact, one.accelerators, float(plan.load[r]), options.pue)
        carbon = kw * grid_intensity(one.offer.region, options.grid_g_per_kwh) / _G_PER_KG
        found[one.name] = _use(kw, carbon, _mtok_per_h(plan, r))
    total = _mtok_per_h(plan, None)
    kw, carbon = sum(one.power_kw for one in found.values()), sum(one.carbon_kg_per_h for one in found.values())
    return found | {"total": _use(kw, carbon, total)}


def _bundled() -> Mapping[str, Accelerator]:
    from melange.catalog.bundled import accelerators

    return accelerators()


def _tdp_w(facts: Mapping[str, Accelerator], name: str) -> float:
    return facts[name].tdp_w if name in facts else 0.0


def _use(kw: float, carbon_kg_per_h: float, mtok_per_h: float) -> EnergyUse:
    if not mtok_per_h > 0:
        return EnergyUse(power_kw=kw, carbon_kg_per_h=carbon_kg_per_h)
    return EnergyUse(
        power_kw=kw,
        carbon_kg_per_h=carbon_kg_per_h,
        energy_kwh_per_mtok=kw / mtok_per_h,
        carbon_kg_per_mtok=carbon_kg_per_h / mtok_per_h,
    )


def _mtok_per_h(plan: Plan, r: int | None) -> float:
    """Millions of tokens that a type, or all types (None), serve in an hour; 0 if token counts are not known."""
    workload = plan.workload
    if workload.buckets.is_ordinal:
        return 0.0
    share = plan.share.sum(axis=0) if r is None else plan.share[r]
    tokens = share * workload.request_rate * (workload.input_tokens + workload.output_tokens)
    return float(tokens.sum()) * S_PER_H / TOKENS_PER_MTOK
