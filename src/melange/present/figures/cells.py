"""Common parts of grid pictures: cells with text, frames, keys, axes of buckets, and hover texts."""

from __future__ import annotations

from typing import Any

import numpy as np

from melange.present.figures.figure import Figure
from melange.present.figures.legend import Entry, Legend, ink_on
from melange.present.figures.theme import cell_axis, plain, short_amount
from melange.profile.profile import Profile
from melange.workload.workload import Buckets, Workload

# Input and output bucket of a request size.
Cell = tuple[int, int]


def size_axes(buckets: Buckets, rows: list[int] | None = None, columns: list[int] | None = None) -> dict[str, Any]:
    """Both axes of a grid of request sizes, small sizes at the top left as in the paper's tables."""
    rows = list(range(buckets.shape[0])) if rows is None else rows
    columns = list(range(buckets.shape[1])) if columns is None else columns
    unit = "bucket number" if buckets.is_ordinal else "tokens, up to"
    return {
        "xaxis": cell_axis(f"Output length [{unit}]", _edge_names(buckets, "output", columns), side="bottom"),
        "yaxis": cell_axis(
            f"Input length [{unit}]", _edge_names(buckets, "input", rows), range=[len(rows) - 0.5, -0.5]
        ),
    }


def _edge_names(buckets: Buckets, axis: str, chosen: list[int]) -> list[str]:
    """Upper edges as text; bucket numbers if the buckets have no sizes."""
    return [buckets.edge_label(axis, k) for k in chosen]


def add_cells(figure: Figure, colors: list[list[str]], texts: list[list[str]], hovers: list[list[str]]) -> None:
    """A grid of cells, each with a color, a short text in a readable ink, and a hover."""
    palette = sorted({color for row in colors for color in row})
    steps = [[(k + end) / len(palette), color] for k, color in enumerate(palette) for end in (0, 1)]
    figure.add_trace(
        "heatmap",
        z=[[palette.index(color) for color in row] for row in colors],
        zmin=-0.5,
        zmax=len(palette) - 0.5,
        colorscale=steps,
        showscale=False,
        xgap=2,
        ygap=2,
        hovertext=hovers,
        hoverinfo="text",
    )
    cells = [(i, o) for i in range(len(texts)) for o in range(len(texts[0])) if texts[i][o]]
    figure.add_trace(
        "scatter",
        x=[o for _, o in cells],
        y=[i for i, _ in cells],
        mode="text",
        text=[plain(texts[i][o]) for i, o in cells],
        textfont={"size": 12, "color": [ink_on(colors[i][o]) for i, o in cells]},
        hoverinfo="skip",
        showlegend=False,
    )


def frame_traffic(figure: Figure, workload: Workload) -> None:
    """A frame around every size that the traffic has."""
    # Slightly inside the cell, or the frames of neighbors would overlap.
    frame = {"type": "rect", "line": {"color": "#000000", "width": 2}}
    cells = np.argwhere(workload.request_rate > 0).tolist()
    shapes = [frame | {"x0": o - 0.47, "x1": o + 0.47, "y0": i - 0.45, "y1": i + 0.45} for i, o in cells]
    figure.update_layout(shapes=shapes)


def add_keys(figure: Figure, entries: list[Entry]) -> None:
    """Lines of the legend for types."""
    for entry in entries:
        add_key(figure, f"{entry.letter}  {entry.label}", entry.color)


def add_key(figure: Figure, label: str, color: str) -> None:
    """A legend line for a cell color."""
    marker = {"symbol": "square", "size": 13, "color": color, "line": {"color": "#777777", "width": 1}}
    figure.add_trace("scatter", x=[None], y=[None], mode="markers", marker=marker, name=plain(label))


def margin_text(margin: float) -> str:
    """A margin in a cell: how much more the second costs."""
    if not np.isfinite(margin):
        return "only"
    # From +1,000 % on a factor is shorter and fits into the cell.
    return f"+{margin:.0%}" if margin < 9.995 else f"x{margin + 1:.0f}"


def cost_text(profile: Profile, r: int, i: int, o: int) -> str:
    """Cost of 1,000 requests of a size on a type, with its interval if known."""
    rate = profile.max_request_rate[r, i, o]
    price = profile.replica_types[r].cost_per_h / profile.replica_types[r].replicas_per_instance / 3.6
    text = f"{short_amount(price / rate)} USD per 1,000"
    low, high = profile.low[r, i, o], profile.high[r, i, o]
    if high > low:
        text += f" (80% interval {short_amount(price / high)} to {short_amount(price / low) if low > 0 else 'cannot'})"
    return text


def planned_at(workload: Workload, i: int, o: int) -> str:
    """The planned size of a bucket, as text; empty if it has none."""
    if workload.buckets.is_ordinal:
        return ""
    return f", planned at {workload.input_tokens[i, o]:,.0f} in and {workload.output_tokens[i, o]:,.0f} out"


def name_of(profile: Profile, legend: Legend, r: int) -> str:
    """The short name of a type that has a color, the full one of others."""
    entry = legend.find(r)
    return entry.label if entry else profile.replica_types[r].name
