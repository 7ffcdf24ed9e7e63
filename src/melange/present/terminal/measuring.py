"""Expected time and cost of a measurement campaign, and its results, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from melange.measure.campaign import Result
from melange.measure.outlook import Outlook
from melange.measure.search import Found
from melange.measure.subject import Subject
from melange.present.terminal.layout import MAX_ROWS, add_column, cautions, spaced, table_of, titled, usd
from melange.units import S_PER_H, S_PER_MIN, count_of, significant

_SIZE_COLUMNS = ("Tokens in", "Tokens out", "Traffic")


def outlook_page(
    outlooks: Sequence[Outlook],
    subject: Subject,
    endpoint: str,
    *,
    most_buckets: int | None,
    budget_s: float | None,
) -> RenderableType:
    """Expected time per bucket, most important first, and total time and cost."""
    table = table_of()
    for heading in (*_SIZE_COLUMNS, "Expected [requests/s]", "Rates tried", "Minutes", *_cost_heading(subject)):
        add_column(table, heading, right=True)
    for one in outlooks[:MAX_ROWS]:
        table.add_row(
            f"{one.input_tokens:,}",
            f"{one.output_tokens:,}",
            f"{one.request_rate / subject.workload.total_rate:.1%}",
            significant(one.guess) if one.guess else "not known",
            f"{one.tests}",
            f"{one.duration_s / S_PER_MIN:.1f}",
            *_cost(subject, one.duration_s),
        )
    parts: list[RenderableType] = [
        Text(f"{endpoint}, as {subject.replica_type}: {subject.slo}", style="bold"),
        titled("Expected measuring time, most important sizes first", table),
    ]
    if len(outlooks) > MAX_ROWS:
        parts.append(Text(f"{len(outlooks) - MAX_ROWS} less important sizes not shown", style="dim"))
    return Group(*spaced([*parts, Text(_in_all(outlooks, subject, most_buckets, budget_s))]), Text(""))


def _in_all(outlooks: Sequence[Outlook], subject: Subject, most_buckets: int | None, budget_s: float | None) -> str:
    """Duration, cost, and condition for the end of a campaign."""
    chosen = outlooks[:most_buckets]
    duration_s = sum(one.duration_s for one in chosen)
    least_s = chosen[0].duration_s if chosen else 0.0
    which = f"These {len(chosen)}" if most_buckets else f"All {len(chosen)}"
    price = _cost(subject, duration_s)
    said = f"{which} take about {_minutes(duration_s)}{f' and {price[0]} USD' if price else ''}"
    if most_buckets is None:
        said += f"; it stops as soon as the plan would no longer change, after {_minutes(least_s)} at the earliest"
    if budget_s is not None:
        said += f"; no test starts after {_minutes(budget_s)}"
    return f"{said}. Every point is saved as it is measured: you can interrupt at any time."


def result_page(result: Result, subject: Subject) -> RenderableType:
    """The highest rate of each measured size, and the limiting factor."""
    table = table_of()
    for heading in (*_SIZE_COLUMNS, "Highest rate [requests/s]", "Fails at"):
        add_column(table, heading, right=True)
    add_column(table, "Limited by")
    for bucket, found in result.found_by_bucket.items():
        inputs, outputs = subject.size(bucket)
        share = subject.workload.request_rate[bucket] / subject.workload.total_rate
        fails = significant(found.failed_rate) if math.isfinite(found.failed_rate) and found.failed_rate else "-"
        table.add_row(f"{inputs:,}", f"{outputs:,}", f"{share:.1%}", _rate(found), fails, Text(found.why))
    others = int((subject.workload.request_rate > 0).sum()) - len(result.found_by_bucket)
    parts: list[RenderableType] = [
        titled(f"{subject.replica_type}: {subject.slo}", table),
        Text(f"{count_of(result.points, 'load point')}. Ended: {result.ended}. {_anchored(others)}"),
    ]
    if result.profile.cautions:
        parts.append(cautions(result.profile.cautions))
    return Group(*spaced(parts))


def _anchored(others: int) -> str:
    """The status of the sizes that were not measured."""
    if not others:
        return "All sizes of the traffic were measured."
    subject = "The other size of the traffic is" if others == 1 else f"The other {others} sizes of the traffic are"
    return f"{subject} anchored: estimated from step times fitted to the points."


def _rate(found: Found) -> str:
    """The highest rate with its interval, if it has one."""
    if not found.high > found.low:
        return significant(found.max_request_rate)
    ends = (
        f"{significant(found.low)}-{significant(found.high)}"
        if math.isfinite(found.high)
        else f"{significant(found.low)} or more"
    )
    return f"{significant(found.max_request_rate)} ({ends})"


def _cost_heading(subject: Subject) -> tuple[str, ...]:
    return () if subject.cost_per_h is None else ("USD",)


def _cost(subject: Subject, duration_s: float) -> tuple[str, ...]:
    if subject.cost_per_h is None:
        return ()
    return (usd(duration_s / S_PER_H * subject.cost_per_h).removesuffix(" USD"),)


def _minutes(duration_s: float) -> str:
    """A duration in a readable unit.

    >>> _minutes(40), _minutes(600), _minutes(9000)
    ('40 s', '10 min', '2.5 h')
    """
    # In whole minutes, 85 s would be shown as 1 min; above two hours, minutes are hard to read.
    if duration_s < 90:
        return f"{duration_s:.0f} s"
    return f"{duration_s / S_PER_MIN:.0f} min" if duration_s < 5400 else f"{duration_s / S_PER_H:.1f} h"
