"""Pictures by request size: which type serves it cheapest, and two types side by side."""

from __future__ import annotations

import numpy as np

from melange.present.figures.cells import (
    add_cells,
    add_key,
    add_keys,
    cost_text,
    frame_traffic,
    margin_text,
    name_of,
    planned_at,
    size_axes,
)
from melange.present.figures.efficiency import Winners, advantage, request_cost
from melange.present.figures.figure import Figure
from melange.present.figures.legend import NONE_COLOR, OTHER_COLOR, Entry, Legend, color_of
from melange.present.figures.theme import new_figure, percent, plain, with_title_room
from melange.profile.profile import Profile
from melange.workload.workload import Array, Workload

# Row height [px]: 12 px text with padding. If smaller, frames touch the letters; if larger, a grid of a dozen input
# sizes no longer fits on a screen.
_ROW_HEIGHT = 34
# Lead at which a color reaches full strength, and its strength at no lead. A wider range would hide leads of a few
# percent; a weaker start would make small leads look like cells that nothing serves.
_FULL_LEAD, _LEAST_STRENGTH = 0.5, 0.3


def _grid_height(rows: int) -> int:
    """Height of a grid with that many rows, including its axis title [px]."""
    return 190 + max(_ROW_HEIGHT * rows, 160)


def figure_winners(profile: Profile, workload: Workload, found: Winners, legend: Legend) -> Figure:
    """The cheapest type for each request size, and its margin over the second (the paper's Figure 5)."""
    shape = profile.buckets.shape
    colors = [[_winner_color(legend, int(r)) for r in row] for row in found.best]
    texts = [[_winner_text(found, legend, i, o) for o in range(shape[1])] for i in range(shape[0])]
    hovers = [[_winner_hover(profile, workload, found, i, o) for o in range(shape[1])] for i in range(shape[0])]
    figure = new_figure(_winners_finding(profile, workload, found, legend), height=_grid_height(shape[0]))
    add_cells(figure, colors, texts, hovers)
    frame_traffic(figure, workload)
    shown = {int(r) for r in np.unique(found.best) if r >= 0}
    add_keys(figure, [entry for entry in legend.entries if entry.r in shown])
    if any(legend.find(r) is None for r in shown):
        add_key(figure, "other types", OTHER_COLOR)
    if (found.best < 0).any():
        add_key(figure, "no type meets the SLO" if profile.slo else "no type can serve it", NONE_COLOR)
    figure.update_layout(**size_axes(profile.buckets))
    return with_title_room(figure)


def _winners_finding(profile: Profile, workload: Workload, found: Winners, legend: Legend) -> str:
    """The share of the traffic for which each type is cheapest, in a sentence."""
    rate = workload.request_rate
    parts = {int(r): float(rate[found.best == r].sum() / rate.sum()) for r in np.unique(found.best) if r >= 0}
    leading = sorted(((part, r) for r, part in parts.items() if part > 0), key=lambda pair: (-pair[0], pair[1]))
    if not leading:
        return "No type can serve any of these sizes"
    names = {r: name_of(profile, legend, r) for _, r in leading}
    first = f"{names[leading[0][1]]} is the cheapest type for {percent(leading[0][0])} of the requests"
    rest = [f"{names[r]} {percent(part)}" for part, r in leading[1:3]]
    return first + (f", {' and '.join(rest)}" if rest else "")


def _winner_color(legend: Legend, r: int) -> str:
    return NONE_COLOR if r < 0 else color_of(legend, r)


def _winner_text(found: Winners, legend: Legend, i: int, o: int) -> str:
    if found.best[i, o] < 0:
        return ""
    entry = legend.find(int(found.best[i, o]))
    return f"{entry.letter if entry else '*'} {margin_text(float(found.margin[i, o]))}"


def _winner_hover(profile: Profile, workload: Workload, found: Winners, i: int, o: int) -> str:
    lines = [f"<b>{plain(workload.buckets.label(i, o))}</b>{planned_at(workload, i, o)}"]
    best, second = int(found.best[i, o]), int(found.second[i, o])
    for rank, r in (("cheapest", best), ("second", second)):
        if r >= 0:
            lines.append(f"{rank}: {plain(profile.replica_types[r].name)}, {cost_text(profile, r, i, o)}")
    if best < 0:
        lines.append("no type can serve it")
    elif second < 0:
        lines.append("no other type can serve it")
    part = workload.request_rate[i, o] / workload.total_rate
    lines.append(f"{part:.2%} of requests" if part else "no such requests in the traffic")
    return "<br>".join(lines)


def figure_pair(profile: Profile, workload: Workload, a: Entry, b: Entry) -> Figure:
    """Two types compared: which is cheaper for each request size, and by how much (the paper's Figure 3b)."""
    ahead = advantage(request_cost(profile), a.r, b.r)
    shape = ahead.shape
    colors = [[_pair_color(float(value), a, b) for value in row] for row in ahead]
    texts = [[_pair_text(float(value), a, b) for value in row] for row in ahead]
    hovers = [[_pair_hover(profile, workload, (a, b), i, o) for o in range(shape[1])] for i in range(shape[0])]
    figure = new_figure(_pair_finding(workload, ahead, a, b), height=_grid_height(shape[0]))
    add_cells(figure, colors, texts, hovers)
    frame_traffic(figure, workload)
    add_keys(figure, [a, b])
    figure.update_layout(**size_axes(profile.buckets))
    return with_title_room(figure)


def _pair_finding(workload: Workload, ahead: Array, a: Entry, b: Entry) -> str:
    """The share of the traffic that each of two types serves cheaper, in a sentence."""
    rate = workload.request_rate
    parts = [float(rate[mask].sum() / rate.sum()) for mask in (ahead > 0, ahead < 0)]
    return f"{a.label} is cheaper for {percent(parts[0])} of the requests, {b.label} for {percent(parts[1])}"


def _pair_color(ahead: float, a: Entry, b: Entry) -> str:
    """The color of the cheaper type, paler for a smaller lead; full from a lead of 50 % on."""
    if np.isnan(ahead):
        return NONE_COLOR
    strength = _LEAST_STRENGTH + (1.0 - _LEAST_STRENGTH) * min(abs(ahead), _FULL_LEAD) / _FULL_LEAD
    return _mixed((a if ahead >= 0 else b).color, strength)


def _mixed(color: str, strength: float) -> str:
    """A color on white."""
    channels = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - strength * (255 - channel)):02x}" for channel in channels)


def _pair_text(ahead: float, a: Entry, b: Entry) -> str:
    return "" if np.isnan(ahead) else f"{(a if ahead >= 0 else b).letter} {margin_text(abs(ahead))}"


def _pair_hover(profile: Profile, workload: Workload, pair: tuple[Entry, Entry], i: int, o: int) -> str:
    lines = [f"<b>{plain(workload.buckets.label(i, o))}</b>{planned_at(workload, i, o)}"]
    for entry in pair:
        able = profile.max_request_rate[entry.r, i, o] > 0
        reason = profile.reasons[profile.reason[entry.r, i, o]] or "cannot serve it"
        lines.append(f"{plain(entry.label)}: {cost_text(profile, entry.r, i, o) if able else plain(reason)}")
    return "<br>".join(lines)
