"""The picture of where a plan sends each request size."""

from __future__ import annotations

import numpy as np

from melange.plan.plan import Plan
from melange.present.figures.cells import size_axes
from melange.present.figures.figure import Figure
from melange.present.figures.legend import OTHER_COLOR, Legend
from melange.present.figures.theme import new_figure, percent, plain, with_title_room
from melange.present.terminal.plan_tables import SHOWN_SHARE
from melange.workload.workload import Array

# Row height [px]: a line of text above a bar.
_ROUTE_HEIGHT = 44
# Share of a cell's width that its bar may fill: the remaining space separates neighbors.
_FILL = 0.92
# Shortest part of a bar, in cells: less than a pixel is invisible, as if the type served nothing there.
_SHORTEST = 0.012


def figure_routes(plan: Plan, legend: Legend) -> Figure:
    """Where each request size goes: a bar per cell, as long as the cell's traffic share, in the colors of its types."""
    workload = plan.workload
    rows = np.flatnonzero(workload.request_rate.sum(axis=1))
    columns = np.flatnonzero(workload.request_rate.sum(axis=0))
    part = workload.request_rate[np.ix_(rows, columns)] / workload.total_rate
    length = _FILL * part / part.max()
    figure = new_figure(
        _routes_finding(plan, legend), height=170 + max(_ROUTE_HEIGHT * len(rows), 180), barmode="overlay"
    )
    start = np.arange(len(columns))[None, :] - _FILL / 2 + np.zeros((len(rows), 1))
    for r in [entry.r for entry in legend.entries if plan.instances[entry.r] > 0] + [-1]:
        share = _route_share(plan, legend, r)[np.ix_(rows, columns)]
        y, x = np.nonzero(share * part > 0)
        if not len(y):
            continue
        entry = legend.find(r)
        label = entry.label if entry else "other types"
        figure.add_trace(
            "bar",
            orientation="h",
            y=y,
            x=np.maximum((share * length)[y, x], _SHORTEST),
            base=start[y, x],
            width=0.34,
            offset=0.06,
            marker={"color": entry.color if entry else OTHER_COLOR},
            name=plain(f"{entry.letter}  {label}" if entry else label),
            hovertext=[
                f"<b>{plain(workload.buckets.label(int(rows[a]), int(columns[b])))}</b><br>{part[a, b]:.2%} of "
                f"requests, {share[a, b]:.0%} of them to {plain(label)}"
                for a, b in zip(y, x, strict=True)
            ],
            hoverinfo="text",
        )
        start = start + share * length
    y, x = np.nonzero(part)
    figure.add_trace(
        "scatter",
        x=x - _FILL / 2,
        y=y - 0.2,
        mode="text",
        textposition="middle right",
        text=[_route_text(plan, legend, int(rows[a]), int(columns[b])) for a, b in zip(y, x, strict=True)],
        textfont={"size": 11},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_layout(shapes=_lines(len(rows), len(columns)))
    figure.update_layout(**size_axes(workload.buckets, rows.tolist(), columns.tolist()))
    return with_title_room(figure)


def _routes_finding(plan: Plan, legend: Legend) -> str:
    """The share of requests and of cost of each used type, in a sentence."""
    taken = (plan.share * plan.workload.request_rate).sum(axis=(1, 2)) / plan.workload.total_rate
    used = [entry for entry in legend.entries if plan.instances[entry.r] > 0]
    parts = [
        f"{entry.label} takes {percent(float(taken[entry.r]))} of the requests for "
        f"{percent(float(plan.instances[entry.r]) * plan.replica_types[entry.r].cost_per_h / plan.cost_per_h)} "
        "of the cost"
        for entry in used[:3]
    ]
    return "; ".join(parts)


def _route_share(plan: Plan, legend: Legend, r: int) -> Array:
    """Share of each bucket that goes to the type at ``r``; if ``r`` is -1, to all types without a color (I, O)."""
    if r >= 0:
        share: Array = plan.share[r]
        return share
    rest = [k for k in range(len(plan.replica_types)) if legend.find(k) is None]
    remainder: Array = plan.share[rest].sum(axis=0)
    return remainder


def _route_text(plan: Plan, legend: Legend, i: int, o: int) -> str:
    part = plan.workload.request_rate[i, o] / plan.workload.total_rate
    shares = sorted(((plan.share[r, i, o], r) for r in np.flatnonzero(plan.share[:, i, o] > SHOWN_SHARE)), reverse=True)
    letters = "".join(entry.letter if (entry := legend.find(int(r))) else "*" for _, r in shares) or "-"
    weight = f"{part:.1%}" if part >= 1e-3 else "<0.1%"
    return plain(f"{letters} {weight}")


def _lines(rows: int, columns: int) -> list[dict[str, object]]:
    """Lines between cells."""
    line = {"type": "line", "line": {"color": "#dddddd", "width": 1}}
    across = [line | {"xref": "paper", "x0": 0, "x1": 1, "y0": k - 0.5, "y1": k - 0.5} for k in range(rows + 1)]
    down = [line | {"yref": "paper", "y0": 0, "y1": 1, "x0": k - 0.5, "x1": k - 0.5} for k in range(columns + 1)]
    return across + down
