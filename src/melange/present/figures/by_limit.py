"""Pictures by SLO: cost of a request and of the whole service as a limit on latency varies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from melange.plan.plan import Plan
from melange.plan.sweeps import LimitSweep
from melange.present.figures.by_rate import CLOSED_FORM, add_certified, mix_hover
from melange.present.figures.cells import Cell, add_cells, add_key, add_keys, cost_text, name_of
from melange.present.figures.efficiency import cost_of_size, request_cost, winners
from melange.present.figures.figure import Figure
from melange.present.figures.legend import MIX_COLOR, NONE_COLOR, OTHER_COLOR, Legend, color_of
from melange.present.figures.theme import (
    cell_axis,
    mark_own,
    new_figure,
    percent,
    plain,
    short_amount,
    value_axis,
    with_title_room,
)
from melange.present.terminal.layout import LEAST_SHOWN
from melange.profile.profile import Profile
from melange.units import REQUESTS_PER_THOUSAND, ms, significant
from melange.workload.workload import Array, Workload

# Top of the axis, as a multiple of the highest cost at the loosest limit. A type near its latency floor costs many
# times the others: a larger factor would flatten their lines, a smaller one would cut useful lines.
_TALLEST = 2.5
LIMIT_NAME_BY_METRIC = {
    "ttft": "Limit on the time to first token",
    "tpot": "Limit on the time per output token",
    "ntpot": "Limit on the latency per output token",
    "latency": "Limit on the latency",
}


def figure_request_cost(sweep: LimitSweep, legend: Legend, workload: Workload, cell: Cell) -> Figure:
    """What 1,000 requests of one size cost on each leading type, as a limit varies (the paper's Figure 6)."""
    i, o = cell
    limits = [ms(point.at) for point in sweep.points]
    figure = new_figure(_request_cost_finding(sweep, legend, workload, cell), height=440)
    profiles = [point.profile for point in sweep.points]
    costs_by_type = {entry.letter: cost_at_limits(profiles, entry.r, cell) for entry in legend.of_compared}
    loosest = [costs[-1] for costs in costs_by_type.values() if np.isfinite(costs[-1])]
    for entry in legend.of_compared:
        costs = costs_by_type[entry.letter]
        if not np.isfinite(costs).any():
            continue
        figure.add_trace(
            "scatter",
            x=limits,
            y=costs,
            mode="lines+markers",
            line={"color": entry.color, "width": 2, "dash": entry.dash},
            marker={"size": 5},
            name=plain(f"{entry.letter}  {entry.label}"),
            hovertext=[
                f"{plain(entry.label)} at {limit:,.0f} ms<br>{cost_text(profile, entry.r, i, o)}"
                if np.isfinite(cost)
                else ""
                for limit, cost, profile in zip(limits, costs, profiles, strict=True)
            ],
            hoverinfo="text",
        )
    mark_own(figure, ms(sweep.own))
    scale = {"range": [0, _TALLEST * max(loosest)]} if loosest else {"rangemode": "tozero"}
    figure.update_layout(xaxis=_limit_axis(sweep), yaxis=value_axis("Cost of 1,000 such requests [USD]", **scale))
    return with_title_room(figure)


def cost_at_limits(profiles: Sequence[Profile], r: int, cell: Cell) -> Array:
    """Cost of 1,000 requests of one size on one type under each profile [USD]; nan if it cannot serve them."""
    costs = np.array([REQUESTS_PER_THOUSAND * cost_of_size(profile, r, cell) for profile in profiles])
    return np.where(np.isfinite(costs), costs, np.nan)


def _request_cost_finding(sweep: LimitSweep, legend: Legend, workload: Workload, cell: Cell) -> str:
    """The cheapest type at tight and at loose limits, in a sentence."""
    found = [winners(request_cost(point.profile), list(legend.compared)) for point in sweep.points]
    able = [(point, int(w.best[cell])) for point, w in zip(sweep.points, found, strict=True) if w.best[cell] >= 0]
    size = workload.buckets.label(*cell)
    if not able:
        return f"No type can serve {size} under any of these limits"
    name = {r: name_of(point.profile, legend, r) for point, r in able}
    runs = [[able[0]]]
    for before, after in pairwise(able):
        if before[1] == after[1]:
            runs[-1].append(after)
        else:
            runs.append([after])
    first, last = runs[0], runs[-1]
    if len(runs) == 1:
        return f"For {size}, {name[first[0][1]]} is cheapest at every limit that can be met"
    middle = " (others between)" if len(runs) > 2 else ""
    return (
        f"For {size}, {name[first[0][1]]} is cheapest up to {ms(first[-1][0].at):,.0f} ms, "
        f"{name[last[0][1]]} from {ms(last[0][0].at):,.0f} ms on{middle}"
    )


def figure_winners_by_limit(sweep: LimitSweep, legend: Legend, workload: Workload, cells: Sequence[Cell]) -> Figure:
    """The cheapest type by limit and typical request size, with its cost (the paper's Figure 7)."""
    compared = list(legend.compared)
    found = [winners(request_cost(point.profile), compared) for point in sweep.points]
    best = [[int(w.best[cell]) for w in found] for cell in cells]
    colors = [[NONE_COLOR if r < 0 else color_of(legend, r) for r in row] for row in best]
    texts = [
        ["" if r < 0 else _winner_text(legend, r, float(w.cost[cell])) for r, w in zip(row, found, strict=True)]
        for row, cell in zip(best, cells, strict=True)
    ]
    hovers = [
        [_winner_hover(sweep, legend, k, r, cell) for k, r in enumerate(row)]
        for row, cell in zip(best, cells, strict=True)
    ]
    figure = new_figure(_winners_by_limit_finding(best), height=170 + 40 * len(cells))
    add_cells(figure, colors, texts, hovers)
    _frame_own(figure, sweep, len(cells))
    shown = {r for row in best for r in row}
    add_keys(figure, [entry for entry in legend.entries if entry.r in shown])
    if any(r >= 0 and legend.find(r) is None for r in shown):
        add_key(figure, "other types", OTHER_COLOR)
    if -1 in shown:
        add_key(figure, "no type meets the limit", NONE_COLOR)
    figure.update_layout(
        xaxis=cell_axis(
            f"{LIMIT_NAME_BY_METRIC[sweep.metric]} [ms]", [f"{ms(point.at):,.0f}" for point in sweep.points]
        ),
        yaxis=cell_axis(
            "Request size [tokens]",
            [size_name(workload, cell) for cell in cells],
            range=[len(cells) - 0.5, -0.5],
        ),
    )
    return with_title_room(figure)


def size_name(workload: Workload, cell: Cell) -> str:
    """A request size as its planned tokens."""
    return f"{workload.input_tokens[cell]:,.0f} in, {workload.output_tokens[cell]:,.0f} out"


def _winners_by_limit_finding(best: Sequence[Sequence[int]]) -> str:
    """How many sizes have a cheapest type that depends on the limit, in a sentence."""
    changing = sum(len({r for r in row if r >= 0}) > 1 for row in best)
    if not changing:
        sizes = "the only typical size" if len(best) == 1 else f"all {len(best)} typical sizes"
        return f"For {sizes} the cheapest type stays the same at every limit that can be met"
    if len(best) == 1:
        return "The cheapest type depends on the limit"
    counted = f"all {changing}" if changing == len(best) else f"{changing} of {len(best)}"
    return f"For {counted} typical sizes the cheapest type depends on the limit"


def _winner_text(legend: Legend, r: int, cost: float) -> str:
    entry = legend.find(r)
    return f"{entry.letter if entry else '*'} {short_amount(REQUESTS_PER_THOUSAND * cost)}"


def _winner_hover(sweep: LimitSweep, legend: Legend, k: int, r: int, cell: Cell) -> str:
    point = sweep.points[k]
    if r < 0:
        return f"{ms(point.at):,.0f} ms: no type can serve it"
    name = plain(name_of(point.profile, legend, r))
    return f"{ms(point.at):,.0f} ms: {name}<br>{cost_text(point.profile, r, *cell)}"


def figure_cost_by_limit(sweep: LimitSweep, legend: Legend, plan: Plan) -> Figure:
    """Cost of the whole service by closed form as a limit varies; every point is a plan with its proof.

    ``plan`` is the service's own; it gets its own point if it is certified.
    """
    figure = new_figure(_cost_by_limit_finding(sweep), height=420)
    planned = [(point, point.plan) for point in sweep.points if point.plan is not None]
    bounds = [plan.cost_per_h if plan.bound_per_h is None else plan.bound_per_h for _, plan in planned]
    limits = [ms(point.at) for point, _ in planned]
    for entry in legend.of_compared:
        costs = [plan.single_type[plan.replica_types[entry.r].type_name].cost_per_h for _, plan in planned]
        if all(cost is None for cost in costs):
            continue
        figure.add_trace(
            "scatter",
            x=limits,
            y=costs,
            mode="lines",
            line={"shape": "hv", "color": entry.color, "width": 1.5, "dash": entry.dash},
            name=plain(f"{entry.letter}  only {entry.label}, {CLOSED_FORM}"),
            hoverinfo="skip",
        )
    figure.add_trace(
        "scatter",
        x=limits,
        y=[plan.cost_per_h for _, plan in planned],
        mode="lines+markers",
        line={"shape": "hv", "color": MIX_COLOR, "width": 3},
        marker={"size": 8},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [0.0] * len(planned),
            "arrayminus": [plan.cost_per_h - bound for (_, plan), bound in zip(planned, bounds, strict=True)],
            "color": MIX_COLOR,
            "thickness": 1,
        },
        name=f"the cheapest mix, {CLOSED_FORM} (whisker: proven bound)",
        hovertext=[
            f"{limit:,.0f} ms: {mix_hover(point, legend)}" for limit, (point, _) in zip(limits, planned, strict=True)
        ],
        hoverinfo="text",
    )
    add_certified(figure, plan, ms(sweep.own))
    mark_own(figure, ms(sweep.own))
    figure.update_layout(
        xaxis=_limit_axis(sweep), yaxis=value_axis("Cost [USD/h]", rangemode="tozero"), showlegend=True
    )
    return with_title_room(figure)


def _cost_by_limit_finding(sweep: LimitSweep) -> str:
    """Cost at the tightest feasible limit and at the loosest, against the service's own, in a sentence."""
    planned = [(point.at, point.plan) for point in sweep.points if point.plan is not None]
    if not planned:
        return "None of the limits tried can be met"
    (tight, at_tight), (loose, at_loose) = planned[0], planned[-1]
    own = next((plan for at, plan in planned if at == sweep.own), None)
    text = f"By closed form {short_amount(at_tight.cost_per_h)} USD/h at {ms(tight):,.0f} ms, "
    text += f"{short_amount(at_loose.cost_per_h)} at {ms(loose):,.0f} ms"
    if own is not None:
        change = 1 - at_loose.cost_per_h / own.cost_per_h
        text += (
            f": a limit of {significant(loose / sweep.own)} times the service's own would save {percent(change)}"
            if change > LEAST_SHOWN
            else ": looser limits than the service's own save nothing"
        )
    return text


def _limit_axis(sweep: LimitSweep) -> dict[str, object]:
    """The axis of limits, from 0 to a little beyond the loosest limit, so that its marker is not cut."""
    most = ms(sweep.points[-1].at)
    return value_axis(f"{LIMIT_NAME_BY_METRIC[sweep.metric]} [ms]", range=[0, most * 1.03])


def _frame_own(figure: Figure, sweep: LimitSweep, rows: int) -> None:
    """A frame around the column of the service's own limit."""
    columns = [k for k, point in enumerate(sweep.points) if point.at == sweep.own]
    line = {"color": "#000000", "width": 2}
    figure.update_layout(
        shapes=[
            {"type": "rect", "x0": k - 0.5, "x1": k + 0.5, "y0": -0.48, "y1": rows - 0.52, "line": line}
            for k in columns
        ]
    )
