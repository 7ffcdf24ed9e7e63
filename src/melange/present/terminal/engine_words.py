"""The engine settings that a plan assumes, in words."""

from __future__ import annotations

from melange.plan.energy import energy_of
from melange.plan.plan import Plan
from melange.plan.server import servers_of
from melange.present.terminal.layout import usd
from melange.units import percent, significant

# Settings that depend on the type's GPU memory; ``plan.json`` and the files of a deployment contain them.
_BY_TYPE = ("max_model_len", "block_size")


def energy_line(plan: Plan) -> list[str]:
    """One line with the plan's power and emissions; empty if unknown."""
    total = energy_of(plan).get("total")
    if total is None or total.energy_kwh_per_mtok is None or total.carbon_kg_per_mtok is None:
        return []
    per_mtok = f"{significant(total.energy_kwh_per_mtok)} kWh and {significant(total.carbon_kg_per_mtok)} kg CO2e"
    line = f"Energy: {significant(total.power_kw)} kW at this load, {per_mtok} per million tokens"
    carbon = sum(
        float(count) * one.offer.carbon_cost_per_h
        for one, count in zip(plan.replica_types, plan.instances, strict=True)
    )
    return [f"{line}; USD/h include {usd(carbon)} for carbon" if carbon else line]


def carbon_line(plan: Plan) -> list[str]:
    """One line with the emissions saved and the extra cost against the cheapest plan; only for least emissions."""
    beside = plan.least_carbon
    if beside is None:
        return []
    more, less = plan.cost_per_h - beside.cheapest_per_h, beside.cheapest_kg_per_h - beside.emitted_kg_per_h
    if more <= 0 and less <= 0:
        return ["Lowest emissions: the cheapest plan already reaches them"]
    saved = f", {percent(less / beside.cheapest_kg_per_h)} less" if beside.cheapest_kg_per_h > 0 else ""
    each = f", {usd(more / less)} per kg" if more > 0 and less > 0 else ""
    return [
        f"Lowest emissions: {significant(beside.emitted_kg_per_h)} kg CO2e/h at full load less headroom, against "
        f"{significant(beside.cheapest_kg_per_h)} for the cheapest plan{saved}; it costs {usd(more)}/h more than that "
        f"({usd(beside.cheapest_per_h)}/h{each})"
    ]


def engine_lines(plan: Plan) -> list[str]:
    """One line with the engine settings of the used types, and one about their prefix caches if they are used."""
    by_settings: dict[str, list[str]] = {}
    for server in servers_of(plan):
        settings = [one for one in server.settings() if not one.startswith(_BY_TYPE)]
        by_settings.setdefault(f"{server.engine or 'engine'}: {', '.join(settings)}", []).append(server.replica_type)
    if len(by_settings) == 1:
        lines = [f"Engine {next(iter(by_settings))}"]
    else:
        lines = [f"Engine of {', '.join(names)}, {settings}" for settings, names in by_settings.items()]
    reuse = plan.workload.prefix_reuse
    caching = [
        (one.name, engine)
        for one, engine in zip(plan.replica_types, plan.engines, strict=True)
        if engine is not None and engine.is_prefix_caching and plan.replicas[one.name] > 0
    ]
    if reuse is None or not caching:
        return lines
    tokens = (plan.workload.request_rate * plan.workload.input_tokens).sum(axis=1)
    reusable = float((tokens * reuse.reusable_share).sum() / tokens.sum())
    rates = ", ".join(f"{percent(reusable * engine.prefix_kept)} on {name}" for name, engine in caching)
    return [*lines, f"Prefix cache: {percent(reusable)} of prompt tokens can be cache hits ({reuse.source}); {rates}"]
