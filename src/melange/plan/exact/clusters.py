"""Reduce many buckets to few: buckets whose loads on all types are nearly proportional are planned for together.

Only the direction of a bucket's loads matters, not their size: in some cheapest plan, two buckets in exact proportion
are served by the same shares. A cluster with the sums of its buckets' loads stands for plans that serve them all by the
same shares: every fleet that it allows is feasible. A cluster with the least of its buckets' scaled loads on each type
allows every feasible fleet: a lower bound.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from melange.plan.problem import ROUNDING, Problem
from melange.workload.workload import Array

_Labels = npt.NDArray[np.int64]

# A type within this factor of the cheapest for a bucket is a candidate for it, and clusters are split where the loads
# of candidates differ. With a smaller factor, types that a plan needs are overlooked; with a larger one, clusters are
# spent on types that it never uses. CPU time as in large.py: 1.03 times at 1.1, 1.08 times at 1.5.
_RIVAL = 1.25


def cluster(problem: Problem, most: int) -> _Labels:
    """Cluster of each bucket (B,), at most ``most`` of them: the widest cluster is split, one after another.

    A cluster's width is the spread of log load, relative to the bucket's cheapest cost, on the type where the spread is
    largest, weighted by the traffic for which that type is a candidate.
    """
    priced = (problem.cost / problem.capacity)[:, None] * problem.load
    weight = priced.min(axis=0)
    with np.errstate(divide="ignore"):
        direction = np.log(priced / weight)
    rivalry = ((priced <= _RIVAL * weight) * weight).sum(axis=1) / weight.sum()
    able = np.isfinite(direction)
    _, labels = np.unique(able, axis=1, return_inverse=True)
    labels = np.asarray(labels, np.int64).ravel()
    direction = np.where(able, direction, 0.0) * rivalry[:, None]
    heap: list[tuple[float, int, int]] = []
    for label in range(int(labels.max()) + 1):
        _push(heap, direction, weight, labels, label)
    count = int(labels.max()) + 1
    while heap and count < most:
        _, label, axis = heapq.heappop(heap)
        members = np.flatnonzero(labels == label)
        values = direction[axis, members]
        upper = values > (values.min() + values.max()) / 2
        labels[members[upper]] = count
        for part in (label, count):
            _push(heap, direction, weight, labels, part)
        count += 1
    return labels


def _push(heap: list[tuple[float, int, int]], direction: Array, weight: Array, labels: _Labels, label: int) -> None:
    members = np.flatnonzero(labels == label)
    spread = np.ptp(direction[:, members], axis=1)
    axis = int(np.argmax(spread))
    if spread[axis] > ROUNDING:
        heapq.heappush(heap, (-float(spread[axis] * weight[members].sum()), label, axis))


def served_alike(problem: Problem, labels: _Labels) -> Problem:
    """The problem whose clusters are each served by one set of shares: its fleets are fleets of ``problem``."""
    return problem.with_changes(load=_by_label(problem.load, labels, np.add), cells=np.unique(labels))


def relaxed(problem: Problem, labels: _Labels) -> Problem:
    """The problem in which a cluster has the load of its lightest bucket on each type: a lower bound on ``problem``."""
    weight = ((problem.cost / problem.capacity)[:, None] * problem.load).min(axis=0)
    total = np.bincount(labels, weight)
    return problem.with_changes(
        load=_by_label(problem.load / weight, labels, np.minimum) * total, cells=np.unique(labels)
    )


def _by_label(values: Array, labels: _Labels, operation: np.ufunc) -> Array:
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], np.arange(int(labels.max()) + 1))
    return np.asarray(operation.reduceat(values[:, order], first, axis=1))
