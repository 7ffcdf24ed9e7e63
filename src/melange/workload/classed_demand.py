"""Traffic over time of several classes on one grid, or of a selection of classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from melange.errors import InputError
from melange.workload.demand import Demand, Indices
from melange.workload.workload import Array, Workload

# If class shares are equal in all windows within this tolerance, they are stored by period, not by window.
_ROUNDING = 1e-12


def demand_of_classes(parts: Mapping[str, Demand]) -> Demand:
    """The traffic of several classes (K) by name, the first class first, over the windows that all have in common.

    Parameters
    ----------
    parts
        The traffic of each class (I, O), on the same buckets and in windows of the same length.

    Returns
    -------
    Demand
        With a row for each input bucket of each class (K I, O).

    Raises
    ------
    InputError
        Buckets or windows differ, only some clocks have dates, or there is no common window.

    Examples
    --------
    >>> from melange.workload.demand import constant_demand
    >>> both = demand_of_classes({"default": constant_demand(3.0, hours=24), "batch": constant_demand(1.0, hours=30)})
    >>> both.buckets.classes, len(both), both.mean_rate, both.share[0].ravel().tolist()
    (('default', 'batch'), 24, 4.0, [0.75, 0.25])
    """
    demands = _on_one_clock(parts)
    first = demands[0]
    rates = np.stack([one.rate for one in demands])
    total = rates.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # An empty window may have any shares.
        part = np.where(total > 0, rates / total, np.eye(len(demands))[0][:, None])
    is_constant = all(np.array_equal(one.period, first.period) for one in demands)
    known = ~np.isnan(total) & (total > 0)
    period: Indices
    is_constant = is_constant and bool((np.ptp(part[:, known], axis=1) < _ROUNDING).all())
    if is_constant:
        period = first.period
        share = np.concatenate([part[k, known][0] * one.share for k, one in enumerate(demands)], axis=1)
    else:
        period = np.asarray(np.arange(len(first)), np.int64)
        share = np.concatenate(
            [part[k][:, None, None] * one.share[one.period] for k, one in enumerate(demands)], axis=1
        )
    counts = [one.requests for one in demands]
    return Demand(
        buckets=replace(first.buckets, classes=tuple(parts)),
        window_s=first.window_s,
        rate=total,
        period=period,
        share=share,
        input_tokens=np.concatenate([one.input_tokens for one in demands]),
        output_tokens=np.concatenate([one.output_tokens for one in demands]),
        start=first.start,
        time_zone=first.time_zone,
        source="; ".join(dict.fromkeys(one.source for one in demands if one.source)) + f"; classes {', '.join(parts)}",
        requests=sum(one for one in counts if one) if None not in counts else None,
        failed_requests=max(one.failed_requests for one in demands),
        cautions=tuple(dict.fromkeys(caution for one in demands for caution in one.cautions)),
    )


def _on_one_clock(parts: Mapping[str, Demand]) -> list[Demand]:
    """The demands cut to the windows that all have in common."""
    named = list(parts.items())
    first_name, first = named[0]
    begins = [0]
    for name, one in named[1:]:
        if one.buckets != first.buckets:
            raise InputError(f"classes.{name}: its buckets are not those of {first_name}", hint="use the same edges")
        if one.window_s != first.window_s:
            raise InputError(
                f"classes.{name}: its windows last {one.window_s:g} s, and those of {first_name} {first.window_s:g} s",
                hint="set workload.window of both to the same",
            )
        if (one.start is None) != (first.start is None):
            raise InputError(f"classes.{name}: its traffic and that of {first_name} must both have dates, or none")
        away = 0.0
        if one.start is not None and first.start is not None:
            away = (one.start - first.start).total_seconds() / first.window_s
        if abs(away - round(away)) > 1e-6:
            raise InputError(f"classes.{name}: its windows begin at other times than those of {first_name}")
        begins.append(round(away))
    begin = max(begins)
    end = min(at + len(one) for at, (_, one) in zip(begins, named, strict=True))
    if end <= begin:
        raise InputError("classes: their traffic has no time in common", hint="use logs of the same days")
    return [
        one if at == begin and at + len(one) == end else one.part(begin - at, end - at)
        for at, (_, one) in zip(begins, named, strict=True)
    ]


def steady_demand(workload: Workload, like: Demand) -> Demand:
    """A workload that arrives at the same rate in all windows of another demand."""
    return replace(
        like,
        buckets=workload.buckets,
        rate=np.full(len(like), workload.total_rate),
        period=np.zeros(len(like), np.int64),
        share=(workload.request_rate / workload.total_rate)[None],
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        source=workload.source,
        requests=None,
        failed_requests=workload.failed_requests,
        cautions=workload.cautions,
    )


def only_classes(demand: Demand, names: Collection[str]) -> Demand:
    """The requests of selected classes, on the grid of all classes.

    Raises
    ------
    InputError
        The selected classes have no requests.
    """
    rows = len(demand.buckets.input_edges)
    kept = np.repeat([name in names for name in demand.buckets.classes], rows)
    share = np.where(kept[:, None], demand.share, 0.0)
    part = share.sum(axis=(1, 2))
    seen = np.bincount(demand.period, np.nan_to_num(demand.rate), minlength=len(part))
    of_all: Array = np.tensordot(np.asarray(seen, float), share, axes=1)
    if not of_all.sum() > 0:
        raise InputError(f"classes: {', '.join(names)} has no requests")
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(part[:, None, None] > 0, share / part[:, None, None], of_all / of_all.sum())
    return replace(demand, rate=demand.rate * part[demand.period], share=share, requests=None)
