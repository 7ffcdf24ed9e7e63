"""Pictures of a simulation: attainment by size, times by percentile, queues, utilization, causes, policies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melange.plan.plan import Plan
from melange.present.figures.cells import add_cells, add_key, size_axes
from melange.present.figures.figure import Figure
from melange.present.figures.legend import COLORS, DASHES, MIX_COLOR, NONE_COLOR, OTHER_COLOR
from melange.present.figures.theme import GRID, new_figure, percent, plain, value_axis, with_title_room
from melange.present.terminal.plan_words import used_types
from melange.units import count_of, ms
from melange.validate.causes import CAUSES
from melange.validate.report import PERCENTILES, Report

TIME_NAME_BY_METRIC = {
    "ttft": "Time to first token",
    "tpot": "Time per output token",
    "ntpot": "Latency per output token",
    "latency": "Latency",
    "itl": "Time between two tokens",
}
_HELD_COLOR = "#BFD9EC"
# Colors below the target, darker for lower attainment. The steps are about a factor of five in the misses (1, 5, 20 %),
# so that a page shows at a glance how far a size misses. Chosen by judgment.
_MISSED_COLORS = ((0.99, "#FBE3CC"), (0.95, "#F5BF8B"), (0.8, "#E69145"), (0.0, "#A64B00"))


def colors_of(report: Report, plan: Plan) -> tuple[str, ...]:
    """The colors of the report's types, as on the plan's own page; gray when colors run out."""
    order = [plan.replica_types[r].name for r in used_types(plan)]
    places = (order.index(one.name) if one.name in order else len(COLORS) for one in report.types)
    return tuple(COLORS[place] if place < len(COLORS) else OTHER_COLOR for place in places)


def _dash_at(t: int) -> str:
    return DASHES[t % len(DASHES)]


def figure_attainment(report: Report) -> Figure:
    """Share of each size's requests that met the SLO."""
    held, came = report.bucket_attainment, report.bucket_requests
    rows, columns = (np.flatnonzero(came.sum(axis=axis)).tolist() for axis in (1, 0))
    colors = [[_shade(held[i, o], report.target) for o in columns] for i in rows]
    texts = [[percent(float(held[i, o])) if came[i, o] > 0 else "" for o in columns] for i in rows]
    hovers = [
        [
            f"{report.buckets.label(i, o)}: {held[i, o]:.2%} met the SLO<br>{percent(float(came[i, o]))} of requests"
            if came[i, o] > 0
            else "no requests"
            for o in columns
        ]
        for i in rows
    ]
    figure = new_figure(_attainment_finding(report), height=150 + 30 * len(rows))
    add_cells(figure, colors, texts, hovers)
    shown = {color for row in colors for color in row}
    bounds = [(f"at least {percent(report.target)}", _HELD_COLOR)]
    ends = [report.target, *(low for low, _ in _MISSED_COLORS)]
    bounds += [
        (f"{percent(low)} to {percent(high)}" if low else f"under {percent(high)}", color)
        for (low, color), high in zip(_MISSED_COLORS, ends, strict=False)
    ]
    for label, color in bounds:
        if color in shown:
            add_key(figure, label, color)
    figure.update_layout(**size_axes(report.buckets, rows, columns))
    return with_title_room(figure)


def _shade(held: float, target: float) -> str:
    if np.isnan(held):
        return NONE_COLOR
    if held >= target:
        return _HELD_COLOR
    return next(color for low, color in _MISSED_COLORS if held >= low)


def _attainment_finding(report: Report) -> str:
    """How many sizes meet the target, in a sentence."""
    came = report.bucket_requests > 0
    below = came & (report.bucket_attainment < report.target)
    if not below.any():
        meet = "The only request size meets" if came.sum() == 1 else f"All {int(came.sum())} request sizes meet"
        return f"{meet} {percent(report.target)}"
    part = float(report.bucket_requests[below].sum())
    return (
        f"{int(below.sum())} of {count_of(int(came.sum()), 'request size')}, with {percent(part)} of the requests, "
        f"stay below {percent(report.target)}"
    )


def figure_times(report: Report, metric: str, colors: Sequence[str]) -> Figure:
    """One metric's mean and percentiles, overall and by type, with its limit."""
    figure = new_figure(_times_finding(report, metric), height=360)
    lines = [("all requests", MIX_COLOR, "solid", report.times)]
    if len(report.types) > 1:
        lines += [(one.name, colors[t], _dash_at(t), one.times) for t, one in enumerate(report.types)]
    for name, color, dash, times in lines:
        values = [ms(times[metric][one]) if one in times.get(metric, {}) else None for one in PERCENTILES]
        figure.add_trace(
            "scatter",
            x=list(PERCENTILES),
            y=values,
            mode="lines+markers",
            line={"color": color, "dash": dash, "width": 2},
            marker={"size": 6},
            name=plain(name),
            hovertext=["" if v is None else f"{plain(name)}<br>{v:,.1f} ms" for v in values],
            hoverinfo="text",
        )
    limit = report.slo.limits.get(metric) if report.slo else None
    if limit is not None:
        figure.add_hline(y=ms(limit), line={"color": "#777777", "width": 1, "dash": "dot"})
        figure.add_annotation(
            x=0, xref="paper", y=ms(limit), text=f"limit {ms(limit):g} ms", showarrow=False, xanchor="left",
            yanchor="bottom", font={"size": 11, "color": "#555555"},
        )  # fmt: skip
    figure.update_layout(
        xaxis=value_axis("Statistic over requests", type="category"),
        yaxis=value_axis(f"{TIME_NAME_BY_METRIC[metric]} [ms]", rangemode="tozero"),
    )
    return with_title_room(figure)


def _times_finding(report: Report, metric: str) -> str:
    """Mean and high percentile of a metric, in a sentence."""
    values = report.times.get(metric) or {}
    if not values:
        return f"{TIME_NAME_BY_METRIC[metric]}: no request was served"
    return (
        f"{TIME_NAME_BY_METRIC[metric]} is {ms(values['mean']):,.1f} ms on average and {ms(values['p99']):,.1f} ms "
        "at p99"
    )


def figure_queue(report: Report, colors: Sequence[str]) -> Figure:
    """Requests that wait at each type over time, in the first run."""
    figure = new_figure(_queue_finding(report), height=320)
    for t, one in enumerate(report.types):
        figure.add_trace(
            "scatter",
            x=list(report.queue_s),
            y=list(report.queue[t]),
            mode="lines",
            line={"color": colors[t], "width": 1.5, "shape": "hv"},
            name=plain(one.name),
            showlegend=True,
        )
    figure.update_layout(
        xaxis=value_axis("Time since the first request [s]"),
        yaxis=value_axis("Waiting requests", rangemode="tozero"),
    )
    return with_title_room(figure)


def _queue_finding(report: Report) -> str:
    """The longest queue, in a sentence."""
    longest = [(max(row, default=0.0), one.name) for row, one in zip(report.queue, report.types, strict=True)]
    most, name = max(longest, default=(0.0, ""))
    if most <= 0:
        return "No request was waiting at any sample"
    return f"At most {most:,.0f} requests wait at the same time, on {name}"


def figure_utilization(report: Report, colors: Sequence[str]) -> Figure:
    """Planned load and observed load."""
    kinds = ("planned load", "busy", "KV cache, mean", "KV cache, peak")
    figure = new_figure(_utilization_finding(report), height=340, barmode="group", bargap=0.25)
    for t, one in enumerate(report.types):
        values = [100 * share for share in (one.planned_load, one.busy, one.kv, one.peak_kv)]
        figure.add_trace(
            "bar",
            x=list(kinds),
            y=values,
            marker={"color": colors[t]},
            name=plain(one.name),
            text=[f"{value:.0f}%" for value in values],
            textposition="outside",
            textangle=0,
            textfont={"size": 10},
            constraintext="none",
            cliponaxis=False,
            showlegend=True,
            hovertext=[f"{plain(one.name)}: {kind} {v:.1f}%" for kind, v in zip(kinds, values, strict=True)],
            hoverinfo="text",
        )
    figure.update_layout(
        xaxis=value_axis("", type="category"),
        yaxis=value_axis("Share of the replicas' capacity [%]", rangemode="tozero"),
    )
    return with_title_room(figure)


def _utilization_finding(report: Report) -> str:
    """Which type's cache or load is fullest, in a sentence."""
    fullest = max(report.types, key=lambda one: one.peak_kv)
    loads = [one.planned_load for one in report.types]
    span = " to ".join(dict.fromkeys((percent(min(loads)), percent(max(loads)))))
    return f"Planned load {span}; KV caches peak at {percent(fullest.peak_kv)}, on {fullest.name}"


def figure_causes(report: Report) -> Figure:
    """Why requests missed the SLO."""
    names = list(report.causes)[::-1]
    values = [100 * report.causes[name] for name in names]
    figure = new_figure(_causes_finding(report), height=130 + 36 * len(names))
    figure.add_trace(
        "bar",
        x=values,
        y=[plain(name) for name in names],
        orientation="h",
        marker={"color": "#D55E00"},
        text=[f"{value:.2g}%" for value in values],
        textposition="outside",
        cliponaxis=False,
        hovertext=[plain(CAUSES[name]) for name in names],
        hoverinfo="text",
    )
    figure.update_layout(
        xaxis=value_axis("Share of all requests [%]", rangemode="tozero"),
        yaxis={"automargin": True, "fixedrange": True},
        margin={"r": 50},
    )
    return with_title_room(figure)


def _causes_finding(report: Report) -> str:
    """The first cause, in a sentence."""
    name, share = next(iter(report.causes.items()))
    return f"{share:.2%} of the requests miss the SLO: {name} ({CAUSES[name]})"


def figure_policies(reports: Sequence[Report]) -> Figure:
    """Attainment by policy on the same requests, with intervals."""
    known = sorted(((one.attainment, one.policy) for one in reports if one.attainment), key=lambda pair: pair[0].value)
    figure = new_figure(_policies_finding(reports), height=140 + 34 * len(known))
    own = reports[0].policy
    values = [100 * held.value for held, _ in known]
    figure.add_trace(
        "scatter",
        x=values,
        y=[plain(name) for _, name in known],
        mode="markers",
        marker={"size": 10, "color": [MIX_COLOR if name == own else "#777777" for _, name in known]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100 * (held.high - held.value) for held, _ in known],
            "arrayminus": [100 * (held.value - held.low) for held, _ in known],
            "color": "#777777",
        },
        hovertext=[f"{name}: {held.value:.2%} ({held.low:.2%} to {held.high:.2%})" for held, name in known],
        hoverinfo="text",
    )
    figure.add_vline(x=100 * reports[0].target, line={"color": "#777777", "width": 1, "dash": "dot"})
    figure.update_layout(
        xaxis=value_axis("Requests that met the SLO [%]; dotted: the target"),
        yaxis={"automargin": True, "fixedrange": True, "gridcolor": GRID},
    )
    return with_title_room(figure)


def _policies_finding(reports: Sequence[Report]) -> str:
    """How the plan's policy compares with the best of the others, in a sentence."""
    own, *others = [one for one in reports if one.attainment]
    best = max(others, key=lambda one: one.attainment.value if one.attainment else 0.0)
    if own.attainment is None or best.attainment is None:
        return "Policies on the same requests"
    return (
        f"{own.policy} meets the SLO for {own.attainment.value:.2%} of the requests, "
        f"{best.policy}, the best of the others, for {best.attainment.value:.2%}"
    )
