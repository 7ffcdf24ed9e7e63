"""Pictures by request rate: cost of the mix and of each single type, and savings of the mix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melange.plan.plan import Plan
from melange.plan.sweeps import SweepPoint, savings_against, single_costs
from melange.present.figures.figure import Figure
from melange.present.figures.legend import CERTIFIED_COLOR, MIX_COLOR, Entry, Legend
from melange.present.figures.theme import (
    mark_own,
    new_figure,
    percent,
    plain,
    short_amount,
    value_axis,
    with_title_room,
)
from melange.present.terminal.layout import LEAST_SHOWN
from melange.units import count_of, significant

# How the points of curves were computed, as shown in legends.
CLOSED_FORM = "closed form"
# Types of a mix that a hover lists: more lines would cover the curves.
_MOST_COUNTED = 4


def figure_cost_by_rate(points: Sequence[SweepPoint], legend: Legend, plan: Plan) -> Figure:
    """Cost of the mix and of each leading single type by closed form, by request rate (the paper's Figure 9).

    Between two planned rates a line shows the cost of the higher one: that plan serves the rates below it too.
    ``plan`` is the service's own; it gets its own point if it is certified.
    """
    figure = new_figure(_cost_finding(points, legend), height=460)
    rates = [0.0, *(point.at for point in points)]
    for entry in able_entries(points, legend):
        costs = [0.0, *single_costs(points, points_name(points, entry))]
        figure.add_trace(
            "scatter",
            x=rates,
            y=costs,
            mode="lines",
            line={"shape": "vh", "color": entry.color, "width": 2, "dash": entry.dash},
            name=plain(f"{entry.letter}  only {entry.label}, {CLOSED_FORM}"),
            hovertext=[
                f"only {plain(entry.label)}<br>{cost:,.2f} USD/h at {significant(rate)}/s ({CLOSED_FORM})"
                for rate, cost in zip(rates, costs, strict=True)
            ],
            hoverinfo="text",
        )
    mix = [0.0, *(point.plan.cost_per_h if point.plan else np.nan for point in points)]
    hovers = ["", *(mix_hover(point, legend) for point in points)]
    figure.add_trace(
        "scatter",
        x=rates,
        y=mix,
        mode="lines+markers",
        line={"shape": "vh", "color": MIX_COLOR, "width": 3},
        marker={"size": 6},
        name=f"the cheapest mix, {CLOSED_FORM}",
        hovertext=hovers,
        hoverinfo="text",
    )
    own_rate = plan.workload.total_rate
    add_certified(figure, plan, own_rate)
    mark_own(figure, own_rate)
    figure.update_layout(
        xaxis=value_axis("Request rate [1/s]", rangemode="tozero"),
        yaxis=value_axis("Cost [USD/h]", rangemode="tozero"),
    )
    return with_title_room(figure)


def add_certified(figure: Figure, plan: Plan, at: float) -> None:
    """A point for a certified plan, next to closed-form curves; nothing for other plans."""
    certificate = plan.certificate
    if certificate is None:
        return
    figure.add_trace(
        "scatter",
        x=[at],
        y=[plan.cost_per_h],
        mode="markers",
        marker={"size": 13, "symbol": "star", "color": CERTIFIED_COLOR, "line": {"color": MIX_COLOR, "width": 1}},
        name="this service's plan, certified",
        hovertext=[
            f"<b>this service's plan, certified</b>: {plan.cost_per_h:,.2f} USD/h<br>"
            f"{certificate.attainment:.2%} of the simulated requests met the SLO<br>"
            f"by closed form: {certificate.cost_before_per_h:,.2f} USD/h, {certificate.attainment_before:.2%}"
        ],
        hoverinfo="text",
    )


def points_name(points: Sequence[SweepPoint], entry: Entry) -> str:
    """The full name of a type."""
    return points[0].profile.replica_types[entry.r].name


def able_entries(points: Sequence[SweepPoint], legend: Legend) -> list[Entry]:
    """The types with a color that can serve the traffic alone at some rate."""
    return [
        entry for entry in legend.of_compared if np.isfinite(single_costs(points, points_name(points, entry))).any()
    ]


def _cost_finding(points: Sequence[SweepPoint], legend: Legend) -> str:
    """Where the mix beats every single type, in a sentence."""
    planned = [point.plan for point in points if point.plan is not None]
    savings = [plan.savings for plan in planned if plan.savings is not None]
    if not savings:
        return "Under the settings of the plan, no single type can serve this traffic; the mix can"
    rates = count_of(len(savings), "rate")
    cheaper = sum(saved > LEAST_SHOWN for saved in savings)
    if not cheaper:
        return f"By closed form, the mix is not cheaper than the best single type at any of {rates}"
    return (
        f"By closed form, the mix is cheaper than every single type at {cheaper} of {rates}, "
        f"by up to {percent(max(savings))}"
    )


def mix_hover(point: SweepPoint, legend: Legend) -> str:
    """Cost, gap and mix of a plan."""
    plan = point.plan
    if plan is None:
        return ""
    head = (
        f"<b>the mix</b> at {significant(plan.workload.total_rate)}/s: {plan.cost_per_h:,.2f} USD/h ({kind_text(plan)})"
    )
    lines = [head, _gap_text(plan)]
    counted = [
        f"{count} x {(entry.label if (entry := legend.find(r)) else plan.replica_types[r].name)}"
        for r, count in enumerate(plan.instances.tolist())
        if count
    ]
    lines += counted[:_MOST_COUNTED]
    if len(counted) > _MOST_COUNTED:
        lines.append(f"and {count_of(len(counted) - _MOST_COUNTED, 'more type')}")
    if plan.served_fraction < 1:
        lines.append(f"for {percent(plan.served_fraction)} of the requests")
    return "<br>".join([lines[0], *(plain(line) for line in lines[1:])])


def kind_text(plan: Plan) -> str:
    """How the cost of a point was computed: closed form, with the simulated share of requests if there is one."""
    if plan.simulation is None:
        return plan.kind
    return f"{CLOSED_FORM}; simulated, {plan.simulation.attainment:.1%} of requests met the limits"


def _gap_text(plan: Plan) -> str:
    """What is proven about a plan, in a few words."""
    if plan.gap == 0:
        return "proven: none is cheaper"
    bound = f" (none under {plan.bound_per_h:,.2f})" if plan.bound_per_h is not None else ""
    return f"proven within {plan.gap:.2%}{bound}"


def figure_savings(points: Sequence[SweepPoint], legend: Legend) -> Figure:
    """Savings of the mix over each leading single type, at several rates (the paper's Figure 11)."""
    planned = [point for point in points if point.plan is not None]
    figure = new_figure(_savings_finding(planned, legend), height=400, barmode="group", bargap=0.25)
    rates = [significant(point.at) for point in planned]
    for entry in able_entries(points, legend):
        name = points_name(points, entry)
        saved = [savings_against(point.plan, name) for point in planned if point.plan]
        costs = single_costs(planned, name)
        figure.add_trace(
            "bar",
            x=rates,
            y=[100 * value for value in saved],
            marker={"color": entry.color},
            name=plain(f"{entry.letter}  only {entry.label}"),
            text=["" if np.isnan(value) else f"{value:.0%}" for value in saved],
            textposition="outside",
            textangle=0,
            textfont={"size": 10},
            constraintext="none",
            cliponaxis=False,
            hovertext=[
                f"{value:.1%} less than only {plain(entry.label)} at {rate}/s ({short_amount(cost)} USD/h)"
                for value, rate, cost in zip(saved, rates, costs, strict=True)
            ],
            hoverinfo="text",
        )
    figure.update_layout(
        xaxis=value_axis("Request rate [1/s]", type="category"),
        yaxis=value_axis("Saved by the mix [%]", rangemode="tozero"),
    )
    return with_title_room(figure)


def _savings_finding(points: Sequence[SweepPoint], legend: Legend) -> str:
    """The range of the savings over types and rates, in a sentence."""
    saved = [
        value
        for point in points
        if point.plan
        for entry in able_entries(points, legend)
        if not np.isnan(value := savings_against(point.plan, points_name(points, entry)))
    ]
    if not saved:
        return "Under the settings of the plan, no single type can serve this traffic: there is nothing to compare with"
    return f"By closed form, the mix saves {percent(max(min(saved), 0.0))} to {percent(max(saved))} over one type alone"
