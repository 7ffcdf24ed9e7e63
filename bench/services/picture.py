"""The picture of the benchmark as a small SVG: cost against missed requests, with a panel for each planner."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from results import Best, Line, relative_cost

COLUMNS, WIDTH, HEIGHT = 4, 210, 200
LEFT, TOP, RIGHT, BOTTOM = 34, 40, 8, 22  # around a panel
# Ranges of the axes; dots beyond them are drawn on the edge.
COSTS, MISSES = (0.1, 10.0), (0.01, 100.0)
HELD, MISSED, GRAY, INK = "#1a7f5a", "#c2410c", "#d4d4d4", "#333333"


def picture(lines_by_title: Mapping[str, Sequence[Line]], best: Mapping[str, Best]) -> str:
    """The SVG's text."""
    rows = math.ceil(len(lines_by_title) / COLUMNS)
    width, height = COLUMNS * WIDTH, rows * HEIGHT + 24
    panels = []
    for place, (title, lines) in enumerate(lines_by_title.items()):
        x, y = place % COLUMNS * WIDTH, place // COLUMNS * HEIGHT
        panels.append(f'<g transform="translate({x} {y})">{_panel(title, lines, best)}</g>')
    caption = (
        f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">cost over the best plan known; '
        "upwards: missed requests over those that the target allows; below the line plans hold</text>"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="sans-serif" font-size="10" fill="{INK}">',
            "<title>Cost against missed requests, planner by planner</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *panels,
            caption,
            "</svg>",
            "",
        ]
    )


def _panel(title: str, lines: Sequence[Line], best: Mapping[str, Best]) -> str:
    dots = [(cost, line) for line in lines if (cost := relative_cost(line, best)) is not None]
    held = sum(line.claims and line.holds for line in lines)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [
        f'<text x="{LEFT}" y="16" font-weight="bold">{escape(title)}</text>',
        f'<text x="{LEFT}" y="30">{held} of {len(lines)} hold</text>',
        f'<rect x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}" fill="none" stroke="{GRAY}"/>',
    ]
    for value, label in ((0.1, "0.1"), (1.0, "1"), (10.0, "10")):
        x = _x(value)
        parts.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="{GRAY}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 12}" text-anchor="middle">{label}</text>')
    for value, label in ((0.01, "0.01"), (0.1, "0.1"), (1.0, "1"), (10.0, "10"), (100.0, "100")):
        y, stroke = _y(value), INK if value == 1.0 else GRAY
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{stroke}"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{label}</text>')
    for cost, line in dots:
        over = (1 - line.attainment) / (1 - line.target)
        words = f"{line.service}: {cost:.2f} times the best cost, {line.attainment:.2%} of {line.target:.1%}"
        parts.append(
            f'<circle cx="{_x(cost):.1f}" cy="{_y(over):.1f}" r="2.6" fill="{HELD if line.holds else MISSED}" '
            f'fill-opacity="0.6"><title>{words}</title></circle>'
        )
    return "".join(parts)


def _x(cost: float) -> float:
    return LEFT + (WIDTH - RIGHT - LEFT) * _place(cost, COSTS)


def _y(misses: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * _place(misses, MISSES)


def _place(value: float, ends: tuple[float, float]) -> float:
    """Position of a value between two ends on a logarithmic scale, 0-1."""
    low, high = ends
    inside = min(max(value, low), high)
    return math.log(inside / low) / math.log(high / low)
