"""Why a plan is what it is, as tables for the terminal."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from melange.plan.explain import Explanation
from melange.plan.plan import Plan
from melange.present.terminal.layout import MAX_ROWS, edge, spaced, table_of, titled, usd, with_whole_names
from melange.units import significant


def explanation_page(explanation: Explanation, plan: Plan) -> RenderableType:
    """Marginal cost, cost by size, break-even prices of unused types, and why no cheaper fleet works."""
    lines = explanation.lines()[: 1 + (explanation.cheaper is not None)]
    parts: list[RenderableType] = [
        titled(_title(plan), Group(*(Text(line) for line in lines))),
        _break_even(explanation, plan),
    ]
    if np.isfinite(explanation.cost_per_mtok).any():
        parts.append(_costs(explanation, plan))
    return Group(*spaced(parts))


def _title(plan: Plan) -> str:
    if plan.certificate is None:
        return "What would change the answer"
    cost = usd(plan.certificate.cost_before_per_h)
    return f"What would change the answer by closed form ({cost}/h, not certified)"


def _break_even(explanation: Explanation, plan: Plan) -> RenderableType:
    price_by_name = {replica_type.name: replica_type.cost_per_h for replica_type in plan.replica_types}
    table = table_of("Unused type", "USD/h now", "Break-even USD/h", "Price cut")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    nearest = sorted(explanation.break_even_per_h.items(), key=lambda item: -item[1] / price_by_name[item[0]])
    for name, price in nearest[:MAX_ROWS]:
        now = price_by_name[name]
        if price >= now:
            # The relaxation rents fractions of instances, and already rents a fraction of this one.
            table.add_row(name, f"{now:,.2f}", f"{price:,.2f}", "none: one instance exceeds the need")
        elif price > 0:
            table.add_row(name, f"{now:,.2f}", f"{price:,.2f}", f"{1 - price / now:.1%}")
        else:
            table.add_row(name, f"{now:,.2f}", "-", "not even for free")
    how = "each re-solved" if explanation.is_exact else "estimated, as if fractions of instances could be rented"
    return titled(f"Break-even prices of unused types ({how})", with_whole_names(table))


def _costs(explanation: Explanation, plan: Plan) -> RenderableType:
    workload = plan.workload
    rows = np.flatnonzero(workload.request_rate.sum(axis=1))
    columns = np.flatnonzero(workload.request_rate.sum(axis=0))
    table = table_of("")
    table.columns[0].justify = "right"
    for o in columns:
        table.add_column(edge(workload.buckets, "output", int(o)), justify="right")
    for i in rows:
        cells = [significant(cost) if np.isfinite(cost) else "." for cost in explanation.cost_per_mtok[i, columns]]
        table.add_row(edge(workload.buckets, "input", int(i)), *cells)
    return titled("USD per million tokens by size (rows: input tokens up to, columns: output tokens up to)", table)
