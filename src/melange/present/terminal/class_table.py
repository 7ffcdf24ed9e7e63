"""Attainment of each class of requests, as a table and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import RenderableType

from melange.plan.class_result import ClassResult
from melange.present.terminal.layout import share_text, table_of, titled
from melange.slo import Slo
from melange.units import limit_in_ms, ms, percent, significant

CLASS_COLUMNS = ("Class", "Priority", "Requests/s", "Each within", "Target", "Met", "At least")
# Times that are shown for each class, if known.
_METRICS = ("ttft", "tpot", "latency")


def classes_part(results: Sequence[ClassResult], slo: Slo, rate_by_class: Mapping[str, float]) -> RenderableType:
    """One row for each class."""
    has_times = any(one.times for one in results)
    columns = (*CLASS_COLUMNS, *time_columns()) if has_times else CLASS_COLUMNS
    table = table_of(*columns)
    for column in (1, 2, *range(4, len(columns))):
        table.columns[column].justify = "right"
    for one in results:
        table.add_row(*class_cells(one, slo, rate_by_class), *(time_cells(one) if has_times else ()))
    return titled("Classes of requests", table)


def class_cells(one: ClassResult, slo: Slo, rate_by_class: Mapping[str, float]) -> tuple[str, ...]:
    """The row of a class under :data:`CLASS_COLUMNS`."""
    asked = next(each for each in slo.classes if each.name == one.name)
    return (
        one.name,
        f"{asked.priority}",
        significant(rate_by_class.get(one.name, 0.0), 4),
        limits_in_words(asked.slo),
        share_text(one.target),
        percent(one.attainment, 2),
        percent(one.low, 2),
    )


def time_columns() -> tuple[str, ...]:
    """Columns for the times of classes [ms]."""
    return tuple(f"{_named(metric)} p99" for metric in _METRICS)


def time_cells(one: ClassResult) -> tuple[str, ...]:
    """The values of these columns."""
    values = [one.times.get(metric, {}).get("p99") for metric in _METRICS]
    return tuple("-" if value is None else f"{ms(value):,.0f}" for value in values)


def limits_in_words(slo: Slo) -> str:
    """The limits that each request must meet by itself, for each class if there are several.

    >>> limits_in_words(Slo(tpot_s=0.06, ttft_s=1.0))
    'TTFT <= 1,000 ms and TPOT <= 60 ms'
    """
    if slo.classes:
        return "; ".join(f"{one.name}: {limits_in_words(one.slo)}" for one in slo.classes)
    return " and ".join(f"{metric.upper()} <= {limit_in_ms(limit)}" for metric, limit in slo.limits.items())


def met_by_class(results: Sequence[ClassResult]) -> str:
    """Attainment of each class, in words.

    >>> batch = ClassResult(name="batch", target=0.95, attainment=0.971, low=0.968, high=0.974, requests=9000)
    >>> met_by_class([batch])
    '97.10% of batch (target 95%, 96.80% at least)'
    """
    return ", ".join(
        f"{percent(one.attainment, 2)} of {one.name} (target {share_text(one.target)}, {percent(one.low, 2)} at least)"
        for one in results
    )


def _named(metric: str) -> str:
    return metric if metric == "latency" else metric.upper()
