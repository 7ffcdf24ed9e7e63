"""Traffic of several classes on one grid: each class has rows of its own for its sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from melange.errors import Caution, InputError
from melange.workload.arrivals import Arrivals
from melange.workload.prefix_reuse import PrefixReuse
from melange.workload.workload import Workload


def of_classes(parts: Mapping[str, Workload]) -> Workload:
    """The traffic of several classes (K), by name, on the same buckets.

    Parameters
    ----------
    parts
        The traffic of each class (I, O), the first class first.

    Returns
    -------
    Workload
        With a row for each input bucket of each class (K I, O).

    Raises
    ------
    InputError
        Buckets differ, or are numbered without sizes.

    Examples
    --------
    >>> from melange.workload.datasets import dataset
    >>> chat, batch = dataset("azure-conversation", request_rate=7.0), dataset("azure-code", request_rate=3.0)
    >>> both = of_classes({"default": chat, "batch": batch})
    >>> both.request_rate.shape, [round(float(one), 6) for one in rate_by_class(both).values()]
    ((26, 10), [7.0, 3.0])
    """
    workloads = list(parts.values())
    first = workloads[0]
    if any(one.buckets != first.buckets for one in workloads):
        raise InputError("classes: all must have the same buckets", hint="use the same edges")
    if first.buckets.is_ordinal or first.buckets.classes:
        raise InputError("classes: buckets must be sizes in tokens, without classes", hint="set workload.buckets")
    known = [one.requests for one in workloads]
    reuse, cautions = _reuse(workloads)
    return Workload(
        buckets=replace(first.buckets, classes=tuple(parts)),
        request_rate=np.concatenate([one.request_rate for one in workloads]),
        input_tokens=np.concatenate([one.input_tokens for one in workloads]),
        output_tokens=np.concatenate([one.output_tokens for one in workloads]),
        source=_source(parts),
        requests=sum(one for one in known if one) if None not in known else None,
        failed_requests=max(one.failed_requests for one in workloads),
        burstiness=first.burstiness,
        prefix_reuse=reuse,
        cautions=tuple(dict.fromkeys(caution for one in workloads for caution in one.cautions)) + cautions,
    )


def with_classes(arrivals: Arrivals, workload: Workload) -> Arrivals:
    """Draw a class for requests without one, by the shares that their size has in the workload's classes.

    Requests stay unchanged if they have classes or the workload has none. The same requests get the same classes.
    """
    buckets = workload.buckets
    if not buckets.classes or arrivals.class_of is not None:
        return arrivals
    cell = buckets.of_one_class.cells(arrivals.input_tokens, arrivals.output_tokens, None)
    rates = workload.request_rate.reshape(len(buckets.classes), -1)
    of_all = rates.sum(axis=1, keepdims=True)
    chance = np.where(rates.sum(axis=0) > 0, rates, of_all)
    below = np.cumsum(chance / chance.sum(axis=0), axis=0)[:-1, cell]
    uniform = np.random.default_rng(0).random(len(arrivals))
    return replace(arrivals, class_of=(uniform >= below).sum(axis=0).astype(np.int32))


def _source(parts: Mapping[str, Workload]) -> str:
    """The source of the figures, stated once if it is the same for all classes."""
    sources = list(dict.fromkeys(one.source for one in parts.values()))
    if len(sources) == 1:
        return f"{sources[0]}; classes {', '.join(parts)}"
    return "; ".join(f"{name}: {one.source}" for name, one in parts.items())


def rate_by_class(workload: Workload) -> dict[str, float]:
    """Requests per second of each class, by name [1/s]; empty without classes."""
    classes = workload.buckets.classes
    tables = np.split(workload.request_rate, max(len(classes), 1))
    return {name: float(table.sum()) for name, table in zip(classes, tables, strict=False)}


def _reuse(workloads: list[Workload]) -> tuple[PrefixReuse | None, tuple[Caution, ...]]:
    """The common prefixes of prompts of all classes, by row."""
    found = [one.prefix_reuse for one in workloads]
    first = next((one for one in found if one is not None), None)
    if first is None:
        return None, ()
    rows = workloads[0].buckets.shape[0]
    share = np.concatenate([np.zeros(rows) if one is None else one.reusable_share for one in found])
    differ = any(one is not None and not np.array_equal(one.kept, first.kept) for one in found)
    what = "prefix cache hits are known by class, but one cache serves all classes: the first class's curve is used"
    return replace(first, reusable_share=share), (Caution("prefix-reuse", what),) if differ else ()
