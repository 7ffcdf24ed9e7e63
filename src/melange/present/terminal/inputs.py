"""The inputs of a plan as pages for the terminal: a workload, a profile."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from melange.present.terminal.layout import MAX_ROWS, add_column, cautions, edge, spaced, table_of, titled
from melange.profile.profile import PROVENANCES, Profile
from melange.units import REQUESTS_PER_THOUSAND, S_PER_H, count_of, significant
from melange.workload.workload import Array, Workload


def workload_page(workload: Workload) -> RenderableType:
    """A workload as a table: share of requests by size, and its totals."""
    rows = np.flatnonzero(workload.request_rate.sum(axis=1))
    columns = np.flatnonzero(workload.request_rate.sum(axis=0))
    title = "Requests [%] by size (rows: input tokens up to, columns: output tokens up to)"
    table = table_of("")
    for o in columns:
        table.add_column(edge(workload.buckets, "output", int(o)), justify="right")
    table.columns[0].justify = "right"
    for i in rows:
        share = workload.request_rate[i, columns] / workload.total_rate
        cells = [f"{value:.2%}".rstrip("%") if value else "." for value in share]
        table.add_row(edge(workload.buckets, "input", int(i)), *cells)
    total = f"{significant(workload.total_rate, 4)} requests/s"
    if not workload.buckets.is_ordinal:
        total += f", {workload.input_token_rate:,.0f} tokens/s in, {workload.output_token_rate:,.0f} tokens/s out"
    if workload.burstiness is not None:
        total += f", burstiness {workload.burstiness:.2f} (1 is Poisson)"
    counted = (
        f"{count_of(workload.requests, 'request')} observed" if workload.requests else "number of requests unknown"
    )
    if workload.requests and count_of(workload.requests, "request") in workload.source:
        counted = ""  # the source states it
    failed = f"{count_of(workload.failed_requests, 'failed row')} left out" if workload.failed_requests else ""
    told = ", ".join(one for one in (counted, failed) if one)
    source = Text(f"{workload.source} ({told})" if told else workload.source)
    parts: list[RenderableType] = [Text(total, style="bold"), source, titled(title, table)]
    return Group(*spaced([*parts, *([cautions(workload.cautions)] if workload.cautions else [])]))


def profile_page(profile: Profile, workload: Workload | None) -> RenderableType:
    """A profile as a table: the rate of the workload's mix that each type serves, and the cost of each type."""
    heading = " | ".join(part for part in (profile.model, str(profile.slo or ""), profile.source) if part)
    table = table_of("Replica type", "Accelerators", "USD/h", "Sizes served")
    add_column(table, "Requests/s of this mix" if workload else "Requests/s", right=True)
    add_column(table, "USD per 1,000 requests", right=True)
    for column in (2, 3):
        table.columns[column].justify = "right"
    rows = sorted(_profile_row(profile, workload, r) for r in range(len(profile.replica_types)))
    # The table is the whole page of a profile, so it may fill more than a screen.
    shown = rows[: 4 * MAX_ROWS]
    sources = {cells[-1] for cost, cells in rows if np.isfinite(cost)}
    is_one = len(sources) == 1  # then a line below the table states it once
    notes = ["" if is_one and np.isfinite(cost) else cells[-1] for cost, cells in shown]
    if any(notes):
        table.add_column("Why infeasible" if is_one else "Source / why infeasible")
    for (_, cells), note in zip(shown, notes, strict=True):
        table.add_row(*cells[:-1], *([note] if any(notes) else []))
    below = [f"All rates are {sources.pop()}."] if is_one else []
    if any(one.replicas_per_instance > 1 for one in profile.replica_types):
        below.append("4 x (2 x L4): an instance with four replicas, each on two L4.")
    capacity = Group(table, Text(" ".join(below), style="dim")) if below else table
    parts: list[RenderableType] = [Text(heading, style="bold"), titled("Capacity of one replica", capacity)]
    if len(rows) > len(shown):
        parts.append(
            Text(
                f"{count_of(len(rows) - len(shown), 'more expensive or infeasible type')} not shown (--json lists all)",
                style="dim",
            )
        )
    return Group(*spaced([*parts, *([cautions(profile.cautions)] if profile.cautions else [])]))


def _profile_row(profile: Profile, workload: Workload | None, r: int) -> tuple[float, list[str]]:
    replica_type, rates = profile.replica_types[r], profile.max_request_rate[r]
    weight = workload.request_rate / workload.total_rate if workload else np.full(rates.shape, 1 / rates.size)
    able = rates > 0
    needed = weight > 0
    per_instance = replica_type.replicas_per_instance
    cost_per_request = np.inf
    mix = "-"
    if able[needed].all():
        mix_rate = _mix_rate(weight[needed], rates[needed])
        cost_per_request = replica_type.cost_per_h / S_PER_H / (mix_rate * per_instance)
        mix = significant(mix_rate)
        low, high = (_mix_rate(weight[needed], ends[r][needed]) for ends in (profile.low, profile.high))
        if high > low:
            mix += f" ({significant(low)}-{significant(high)})"
        kinds = {PROVENANCES[kind] for kind in profile.provenance[r][needed]}
        note = ", ".join(kind for kind in PROVENANCES if kind in kinds)
    else:
        reasons = profile.reason[r][needed & ~able]
        note = profile.reasons[int(np.bincount(reasons).argmax())] or "capacity 0 for some sizes"
    held = replica_type.layout.accelerators
    shards = f"{held} x " if held > 1 else ""
    cells = [
        replica_type.name,
        f"{per_instance} x ({shards}{replica_type.offer.accelerator})"
        if per_instance > 1
        else f"{shards}{replica_type.offer.accelerator}",
        f"{replica_type.cost_per_h:,.2f}",
        f"{(able & needed).sum()}/{needed.sum()}",
        mix,
        f"{cost_per_request * REQUESTS_PER_THOUSAND:.3f}" if np.isfinite(cost_per_request) else "-",
        note,
    ]
    return cost_per_request, cells


def _mix_rate(weight: Array, rates: Array) -> float:
    """The rate of the whole mix of sizes that one replica serves [1/s]; 0 if it cannot serve one of the sizes."""
    return float(1 / (weight / rates).sum()) if (rates > 0).all() else 0.0
