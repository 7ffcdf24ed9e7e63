"""Cost of a service at other rates and under other limits, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType

from melange.plan.sweeps import Exploration, SweepPoint
from melange.present.terminal.layout import spaced, table_of, titled
from melange.units import ms, significant


def exploration_page(found: Exploration) -> RenderableType:
    """One table for the rate and one for each limit."""
    rates = [significant(point.at, 3) for point in found.by_rate]
    parts = [titled("By rate (closed form)", _table("requests/s", rates, found.by_rate))]
    for sweep in found.by_limit:
        limits = [f"{ms(point.at):,.4g}" for point in sweep.points]
        name = sweep.metric.upper() if sweep.metric != "latency" else "latency"
        parts.append(titled(f"By limit of {name} (closed form)", _table(f"{name} [ms]", limits, sweep.points)))
    return Group(*spaced(parts))


def _table(first: str, cells: Sequence[str], points: Sequence[SweepPoint]) -> RenderableType:
    table = table_of(first, "USD/h", "Fleet")
    for column in range(2):
        table.columns[column].justify = "right"
    for cell, point in zip(cells, points, strict=True):
        counted = {} if point.plan is None else point.plan.instances_by_name
        fleet = ", ".join(f"{count} x {name}" for name, count in counted.items() if count > 0)
        table.add_row(cell, "-" if point.plan is None else f"{point.plan.cost_per_h:,.2f}", fleet or "none")
    return table
