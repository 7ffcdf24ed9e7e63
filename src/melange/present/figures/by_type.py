"""The picture of the cost of one request on each type, with its uncertainty."""

from __future__ import annotations

import numpy as np

from melange.present.figures.cells import Cell, cost_text
from melange.present.figures.efficiency import cost_of_size
from melange.present.figures.figure import Figure
from melange.present.figures.legend import Entry, Legend
from melange.present.figures.theme import new_figure, plain, short_amount, value_axis, with_title_room
from melange.profile.profile import Profile
from melange.units import REQUESTS_PER_THOUSAND
from melange.workload.workload import Workload

_CostInterval = tuple[float, float, float]


def cost_interval(profile: Profile, r: int, cell: Cell) -> _CostInterval:
    """Cost of 1,000 requests of a size on a type: low end, estimate, high end [USD]; infinite if it cannot serve them.

    The high end of the cost belongs to the low end of the rate.
    """
    low, mid, high = (
        REQUESTS_PER_THOUSAND * cost_of_size(profile, r, cell, rates)
        for rates in (profile.high, profile.max_request_rate, profile.low)
    )
    return low, mid, high


def figure_intervals(profile: Profile, workload: Workload, legend: Legend, cell: Cell) -> Figure:
    """Cost of 1,000 requests of one size on each leading type that can serve it, with its 80 % interval."""
    ranked = intervals(profile, legend, cell)
    # Some room, so that whiskers do not end on the frame.
    most = 1.08 * max(
        [high for _, (_, mid, high) in ranked if np.isfinite(high)] + [m for _, (_, m, _) in ranked] + [0]
    )
    figure = new_figure(intervals_finding(ranked, workload, cell), height=130 + 36 * max(len(ranked), 3))
    for entry, (low, mid, high) in ranked:
        figure.add_trace(
            "scatter",
            x=[mid],
            y=[plain(f"{entry.letter}  {entry.label}")],
            mode="markers",
            marker={"size": 11, "color": entry.color},
            error_x={
                "type": "data",
                "symmetric": False,
                # An infinite whisker goes past the edge, where it is cut.
                "array": [min(high, 2 * most) - mid],
                "arrayminus": [mid - low],
                "color": entry.color,
                "thickness": 2.5,
            },
            hovertext=[f"{plain(entry.label)}: {cost_text(profile, entry.r, *cell)}"],
            hoverinfo="text",
            showlegend=False,
        )
    figure.update_layout(
        xaxis=value_axis("Cost of 1,000 such requests [USD]", range=[0, most or 1]),
        yaxis=value_axis("", autorange="reversed", showgrid=False, type="category"),
    )
    return with_title_room(figure)


def intervals(profile: Profile, legend: Legend, cell: Cell) -> list[tuple[Entry, _CostInterval]]:
    """The types with a color that can serve a size, cheapest first, with their costs."""
    able = [(entry, cost_interval(profile, entry.r, cell)) for entry in legend.of_compared]
    return sorted((pair for pair in able if np.isfinite(pair[1][1])), key=lambda pair: pair[1][1])


def intervals_finding(ranked: list[tuple[Entry, _CostInterval]], workload: Workload, cell: Cell) -> str:
    """Whether the cheapest type is certain to be the cheapest, in a sentence."""
    size = workload.buckets.label(*cell)
    if not ranked:
        return f"No type with a color can serve {size}"
    first, (low, mid, high) = ranked[0]
    span = f" ({short_amount(low)} to {short_amount(high) if np.isfinite(high) else 'cannot'})" if high > low else ""
    text = f"For {size}, {first.label} is cheapest at {short_amount(mid)} USD per 1,000{span}"
    rivals = [entry.label for entry, interval in ranked[1:] if interval[0] < high]
    if not rivals:
        return f"{text}, and no other interval overlaps"
    if len(ranked) == 2:
        return f"{text}; the other interval overlaps"
    return f"{text}; the intervals of {len(rivals)} of {len(ranked) - 1} others overlap"
