"""Traffic over time as a service's ``workload`` section describes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from melange.errors import InputError
from melange.service.traffic_sections import WorkloadSection
from melange.workload.clock import check_statistic, parse_duration, window_statistic
from melange.workload.demand import Demand
from melange.workload.workload import Workload

# Sources with arrival times, and their names in messages.
_OVER_TIME = {
    "trace": "a log",
    "table": "a table of requests",
    "rates": "tables of rates and sizes",
    "file": "a demand.json",
}


def has_demand(section: WorkloadSection) -> bool:
    """Whether a section describes traffic over time and is read as a demand, not as one workload."""
    return section.source[0] == "rates" or (section.over is not None and section.source[0] == "file")


def demand_of(
    section: WorkloadSection, path: Callable[[str], Path], progress: Callable[[float], None] | None = None
) -> Demand:
    """The demand of a section that has ``over`` or tables of rates.

    Raises
    ------
    InputError
        A source without times, keys that the source does not support, and errors of its readers.
    """
    kind, value = section.source
    if kind not in _OVER_TIME:
        raise InputError(
            f"workload.{kind} has no traffic over time",
            hint="name a log or tables: workload: {trace: requests.parquet, over: week}",
        )
    check_keys(section)
    empty_windows = section.empty_windows or "missing"
    if kind == "file":
        return _of_file(section, path(value))
    if kind == "rates":
        from melange.workload.demand_table import read_demand_tables

        if section.sizes is None:
            raise InputError(
                "workload.rates needs workload.sizes", hint="workload: {rates: rates.csv, sizes: sizes.csv}"
            )
        return read_demand_tables(
            path(value), path(section.sizes), time_zone=section.time_zone, empty_windows=empty_windows
        )
    from melange.workload.over_time import DEFAULT_WINDOW_S, read_demand

    window_s = DEFAULT_WINDOW_S if section.window is None else parse_duration(section.window, name="workload.window")
    return read_demand(
        section.log(path),
        buckets=section.buckets.to_buckets(),
        window_s=window_s,
        time_zone=section.time_zone,
        start=section.start,
        end=section.end,
        empty_windows=empty_windows,
        columns=section.columns,
        trace_format=section.format,
        where=section.where,
        progress=progress,
    )


def _of_file(section: WorkloadSection, file: Path) -> Demand:
    for key in ("time_zone", "empty_windows", "window"):
        if getattr(section, key) is not None:
            raise InputError(
                f"workload.{key}: a demand.json already contains it", hint="remove it, or read the log again"
            )
    return Demand.read(file)


def check_keys(section: WorkloadSection) -> None:
    """Reject keys for traffic over time that have no effect, instead of ignoring them.

    Raises
    ------
    InputError
        States what would give the key an effect.
    """
    kind = section.source[0]
    if section.connection is not None and kind != "table":
        raise InputError(
            "workload.connection belongs to workload.table", hint="workload: {table: logs.requests, connection: ...}"
        )
    if section.sizes is not None and kind != "rates":
        raise InputError(
            "workload.sizes belongs to workload.rates", hint="workload: {rates: rates.csv, sizes: sizes.csv}"
        )
    if section.over is not None and kind not in _OVER_TIME:
        raise InputError(
            f"workload.over needs {', '.join(_OVER_TIME.values())}: workload.{kind} has no times",
            hint="name a log: workload: {trace: requests.parquet, over: week}",
        )
    for key in ("time_zone", "empty_windows"):
        if getattr(section, key) is not None and section.over is None and kind != "rates":
            raise InputError(f"workload.{key} applies only to traffic over time", hint="add over: week")
    if kind == "rates":
        for key in ("window", "from", "to", "where", "columns", "format", "buckets"):
            if {"from": "start", "to": "end"}.get(key, key) in section.model_fields_set:
                raise InputError(f"workload.{key} needs a trace, but workload.rates is a table")


def workload_over_time(demand: Demand, section: WorkloadSection) -> Workload:
    """One workload of a demand: its mean, or scaled to the requested rate or statistic of its windows."""
    workload = demand.workload()
    if section.rate is None:
        return workload
    if not isinstance(section.rate, str):
        return workload.at_rate(section.rate)
    check_statistic(section.rate, demand.window_s)
    return workload.at_rate(window_statistic(demand.rate[~np.isnan(demand.rate)], section.rate))
