"""Traffic over time as a page for the terminal."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from melange.present.terminal.layout import cautions, spaced, table_of, titled
from melange.units import S_PER_WEEK
from melange.workload.cycle import DAY, WEEK, Cycle, fold
from melange.workload.demand import Demand
from melange.workload.rows import lasting


def demand_page(demand: Demand, over: str | None = None) -> RenderableType:
    """The traffic in a sentence, its hours, and warnings; ``over`` is the cycle to fold into; None: by duration."""
    cycle = fold(demand, over or (WEEK if demand.duration_s + 2 * demand.window_s >= S_PER_WEEK else DAY))
    parts: list[RenderableType] = [Text(demand_sentence(demand), style="bold"), Text(demand.source, style="dim")]
    parts.append(_hours(cycle))
    said = (*demand.cautions, *cycle.cautions)
    if said:
        parts.append(cautions(said))
    return Group(*spaced(parts))


def demand_sentence(demand: Demand) -> str:
    """Mean, peak and duration of the traffic."""
    busiest = int(np.nanargmax(demand.rate))
    missing = int(demand.is_missing.sum())
    return (
        f"{demand.mean_rate:.4g} requests/s on average and {demand.peak_rate:.4g} in the busiest "
        f"{lasting(demand.window_s)} ({demand.label(busiest)}), over {lasting(demand.duration_s)}"
        f"{f', with {missing:,} of {len(demand):,} windows missing' if missing else ''}."
    )


def _hours(cycle: Cycle) -> RenderableType:
    """One line per day: each hour as a digit, and the day's mean and busiest hour."""
    highest = cycle.mean_rate.max()
    table = table_of("", "00    06    12    18", "Mean [1/s]", "Busiest hour [1/s]")
    for column in (2, 3):
        table.columns[column].justify = "right"
    rates = cycle.mean_rate.reshape(-1, 24)
    filled = cycle.is_filled.reshape(-1, 24)
    for day, (row, unknown) in enumerate(zip(rates, filled, strict=True)):
        # 9 is the busiest hour of all; 0 is an hour with less than a tenth of it.
        digits = "".join(
            "?" if u else str(min(9, int(10 * rate / highest))) for rate, u in zip(row, unknown, strict=True)
        )
        label = cycle.labels[24 * day].rpartition(" ")[0] if cycle.over == WEEK else "a day"
        table.add_row(label, digits, f"{row.mean():.4g}", f"{row.max():.4g}")
    note = "Each digit is an hour: tenths of the busiest hour" + ("; ? has no data." if filled.any() else ".")
    return titled(f"Hours of a {cycle.over}, mean rate", Group(table, Text(note, style="dim")))
