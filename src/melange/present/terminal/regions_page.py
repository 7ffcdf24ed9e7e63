"""A plan over regions as a page for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from melange.plan.plan import Plan
from melange.plan.regions.regional_plan import RegionalPlan
from melange.present.terminal.layout import cautions, spaced, table_of, titled
from melange.units import MS_PER_S, percent


def regions_page(plan: RegionalPlan) -> RenderableType:
    """Each region's fleet, and which requests go where."""
    parts: list[RenderableType] = [
        Text(_sentence(plan), style="bold"),
        _regions(plan),
        _flows(plan),
        Text(_proof(plan)),
    ]
    said = [*plan.cautions, *(one for found in plan.plans.values() for one in found.cautions)]
    if said:
        parts.append(cautions(list(dict.fromkeys(said))))
    return Group(*spaced(parts))


def _sentence(plan: RegionalPlan) -> str:
    count = len(plan.plans)
    egress = f", {plan.egress_per_h:,.2f} of it egress" if plan.egress_per_h else ""
    return f"{plan.cost_per_h:,.2f} USD/h in {count} region{'' if count == 1 else 's'}{egress}."


def _regions(plan: RegionalPlan) -> RenderableType:
    table = table_of("Region", "USD/h", "Requests/s", "Within", "SLO met", "Fleet")
    for column in (1, 2):
        table.columns[column].justify = "right"
    for region, one in plan.plans.items():
        fleet = ", ".join(f"{count} x {name}" for name, count in one.instances_by_name.items() if count)
        table.add_row(
            region, f"{one.cost_per_h:,.2f}", f"{one.workload.total_rate:.4g}", str(one.slo or ""), _held(one), fleet
        )
    return titled("Regions; within: the SLO less the longest round trip", table)


def _held(plan: Plan) -> str:
    shown = plan.certificate or plan.simulation
    return "not simulated" if shown is None else percent(shown.attainment, 2)


def _flows(plan: RegionalPlan) -> RenderableType:
    table = table_of("From", "To", "Share", "Requests/s", "Round trip", "Egress [USD/h]")
    for column in (2, 3, 4, 5):
        table.columns[column].justify = "right"
    for one in plan.flows:
        table.add_row(
            one.origin,
            one.region,
            percent(one.flow_fraction),
            f"{one.request_rate:.4g}",
            f"{one.round_trip_s * MS_PER_S:.0f} ms",
            f"{one.egress_per_h:,.2f}" if one.egress_per_h else "-",
        )
    return titled("Where requests go", table)


def _proof(plan: RegionalPlan) -> str:
    least = f"{plan.bound_per_h:,.2f} USD/h"
    if plan.holds is None:
        return f"No fleets of these regions cost less than {least} under the closed form; nothing was simulated."
    return (
        "Each region's fleet was simulated with all requests routed to it, within the SLO less the longest round "
        f"trip. The closed form, which ignores queues, needs at least {least}."
    )
