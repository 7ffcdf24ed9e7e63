"""Pictures of a schedule: the week's fleet under its load, and cost against shortage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melange.plan.schedule.choose_rule import FrontierPoint
from melange.plan.schedule.schedule import Schedule
from melange.present.figures.figure import Figure
from melange.present.figures.legend import MIX_COLOR
from melange.present.figures.theme import new_figure, percent, plain, value_axis, with_title_room
from melange.present.terminal.schedule_words import money
from melange.units import H_PER_WEEK
from melange.workload.cycle import WEEK
from melange.workload.workload import Array

# Colors by market: dark for reserved capacity, which is always paid; light for spot capacity, which may be interrupted.
# Their lightness differs, so they can also be distinguished without color.
_COLORS = {"reserved": "#1F5A85", "on-demand": "#E69F00", "spot": "#BFD9EC"}


def stacked(schedule: Schedule) -> dict[str, Array]:
    """Capacity of each market in each hour at on-demand prices (H,) [USD/h]."""
    price = schedule.on_demand_per_h
    hours = len(schedule.labels)
    return {
        "reserved": np.full(hours, float(schedule.reserved @ price)),
        "on-demand": schedule.on_demand @ price,
        "spot": schedule.spot @ price,
    }


def figure_week(schedule: Schedule) -> Figure:
    """The fleet of each hour by market, stacked, and the load that it serves, both at on-demand prices."""
    figure = new_figure(_week_finding(schedule), height=430)
    hours = np.arange(len(schedule.labels))
    for market, capacity in stacked(schedule).items():
        if not capacity.any():
            continue
        figure.add_trace(
            "scatter",
            x=np.append(hours, len(hours)),
            y=np.append(capacity, capacity[-1]),
            mode="lines",
            line={"width": 0.5, "color": _COLORS[market], "shape": "hv"},
            fillcolor=_COLORS[market],
            stackgroup="fleet",
            name=market,
            hovertext=[_hover(schedule, market, hour) for hour in range(len(hours))],
            hoverinfo="text",
        )
    figure.add_trace(
        "scatter",
        x=np.append(hours, len(hours)),
        y=np.append(schedule.work_per_h, schedule.work_per_h[-1]),
        mode="lines",
        line={"color": MIX_COLOR, "width": 2, "shape": "hv"},
        name="load: what the traffic needs",
        hovertext=[
            f"{schedule.labels[h]}: {schedule.request_rate[h]:.4g} requests/s<br>"
            f"load {schedule.work_per_h[h]:,.2f} USD/h"
            for h in range(len(hours))
        ],
        hoverinfo="text",
    )
    step = 24 if schedule.over == WEEK else 3
    figure.update_layout(
        xaxis=value_axis(
            f"Hour of the {schedule.over}",
            tickmode="array",
            tickvals=list(range(0, len(hours), step)),
            ticktext=[schedule.labels[h] for h in range(0, len(hours), step)],
            range=[0, len(hours)],
        ),
        yaxis=value_axis("Fleet and load at on-demand prices [USD/h]", rangemode="tozero"),
    )
    return with_title_room(figure)


def _hover(schedule: Schedule, market: str, hour: int) -> str:
    found = schedule.instances_at(hour)[market]
    lines = "<br>".join(f"{count} x {plain(name)}" for name, count in found.items()) or "none"
    return f"{schedule.labels[hour]}, {market}<br>{lines}"


def _week_finding(schedule: Schedule) -> str:
    parts = stacked(schedule)
    total = sum(float(part.sum()) for part in parts.values())
    share = float(parts["reserved"].sum()) / total if total else 0.0
    return (
        f"{percent(share)} of the capacity of the {schedule.over} is reserved; each hour's own fleet costs "
        f"{schedule.hour_cost_per_h.min():,.2f} to {schedule.hour_cost_per_h.max():,.2f} USD/h"
    )


def figure_frontier(schedule: Schedule) -> Figure:
    """Cost and requests short of each rule in the last third of the history, beside other ways to run the service."""
    figure = new_figure(_frontier_finding(schedule), height=430)
    front = unbeaten(schedule.frontier)
    # A rule that was unbeaten in the windows for its choice may be beaten in later windows.
    beaten = [one for one in schedule.frontier if one not in front]
    for points, name, look in (
        (front, "scaling rules", {"mode": "lines+markers", "line": {"color": _COLORS["reserved"], "width": 2}}),
        (beaten, "rules beaten in the last third", {"mode": "markers", "marker": {"size": 7, "color": "#bbbbbb"}}),
    ):
        if not points:
            continue
        figure.add_trace(
            "scatter",
            x=[one.outcome.short_fraction * 100 for one in points],
            y=[one.outcome.cost_per_h * H_PER_WEEK for one in points],
            name=name,
            hovertext=[
                f"{plain(one.settings.words)}<br>{money(one.outcome.cost_per_h * H_PER_WEEK)} a week<br>"
                f"{one.outcome.short_fraction:.2%} of the requests short, {one.outcome.short_windows_fraction:.1%} "
                "of the windows"
                for one in points
            ],
            hoverinfo="text",
            **look,
        )
    others = [("the rule that was chosen", schedule.unseen, "star", MIX_COLOR)]
    symbols = ("square", "diamond", "triangle-up", "x")
    others += [
        (one.name, one.outcome, symbol, "#777777") for one, symbol in zip(schedule.alternatives, symbols, strict=False)
    ]
    for name, outcome, symbol, color in others:
        figure.add_trace(
            "scatter",
            x=[outcome.short_fraction * 100],
            y=[outcome.cost_per_h * H_PER_WEEK],
            mode="markers",
            marker={"size": 11, "symbol": symbol, "color": color},
            name=plain(name),
            hovertext=[
                f"{plain(name)}<br>{money(outcome.cost_per_h * H_PER_WEEK)} a week<br>"
                f"{outcome.short_fraction:.2%} of the requests short"
            ],
            hoverinfo="text",
        )
    figure.update_layout(
        xaxis=value_axis("Requests above the fleet's capacity [%]", rangemode="tozero"),
        yaxis=value_axis("Cost [USD/week]", rangemode="tozero"),
    )
    return with_title_room(figure)


def unbeaten(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """Rules for which no other rule has both lower cost and fewer short requests, cheapest first."""
    kept: list[FrontierPoint] = []
    for one in sorted(points, key=lambda one: (one.outcome.cost_per_h, one.outcome.short_fraction)):
        if not kept or one.outcome.short_fraction < kept[-1].outcome.short_fraction:
            kept.append(one)
    return kept


def _frontier_finding(schedule: Schedule) -> str:
    points = sorted(schedule.frontier, key=lambda one: one.outcome.short_fraction)
    if len(points) < 2:
        return (
            f"The rule costs {money(schedule.unseen.cost_per_h * H_PER_WEEK)} a week in the last third of the history"
        )
    least, most = points[0].outcome, points[-1].outcome
    return (
        f"Reducing the share of requests short from {percent(most.short_fraction)} to {percent(least.short_fraction)} "
        f"costs {least.cost_per_h / most.cost_per_h:.2f} times as much"
    )
