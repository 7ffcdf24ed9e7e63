"""A plan with classes of requests, for a router that knows the length of a request but not its class."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from melange.plan.plan import Plan
from melange.workload.workload import Workload

_Number = TypeVar("_Number", bound=np.generic)

# Shares of a size that differ by less between classes count as equal: half a point, as in a gateway's routes.
_SAME = 0.005


def without_classes(plan: Plan) -> Plan:
    """The plan with the share of each size over all classes; a plan without classes is returned unchanged.

    Its limits are those of the first class, and each of its rates is the lowest over the classes, so that all hold.
    """
    buckets = plan.workload.buckets
    if not buckets.classes:
        return plan
    workload, profile = plan.workload, plan.question.profile
    rate = _apart(workload.request_rate, plan)
    whole = rate.sum(axis=0)
    weight = np.divide(rate, whole, out=np.full(rate.shape, 1.0 / len(rate)), where=whole > 0)
    sizes = Workload(
        buckets=buckets.of_one_class,
        request_rate=whole,
        input_tokens=(weight * _apart(workload.input_tokens, plan)).sum(axis=0),
        output_tokens=(weight * _apart(workload.output_tokens, plan)).sum(axis=0),
        source=workload.source,
        cautions=workload.cautions,
    )
    # A size that only one class has is served as that class is.
    least = [
        np.where((rate > 0) | (whole <= 0), _apart(table, plan), np.inf).min(axis=1)
        for table in (profile.low, profile.max_request_rate, profile.high)
    ]
    profile = replace(
        profile,
        buckets=sizes.buckets,
        low=least[0],
        max_request_rate=least[1],
        high=least[2],
        provenance=_apart(profile.provenance, plan)[:, 0],
        reason=_apart(profile.reason, plan)[:, 0],
        slo=None if profile.slo is None else replace(profile.slo, classes=()),
    )
    share = (weight * _apart(plan.share, plan)).sum(axis=1)
    return replace(plan, question=replace(plan.question, workload=sizes, profile=profile), share=share)


def routed_by_class(plan: Plan) -> tuple[str, ...]:
    """Sizes whose requests are routed differently by class, in words; empty if there are none."""
    buckets = plan.workload.buckets
    if not buckets.classes:
        return ()
    has_traffic = _apart(plan.workload.request_rate, plan) > 0
    share = _apart(plan.share, plan)
    highest = np.where(has_traffic, share, -np.inf).max(axis=1)
    lowest = np.where(has_traffic, share, np.inf).min(axis=1)
    differs = (np.where(has_traffic.any(axis=0), highest - lowest, 0.0) > _SAME).any(axis=0)
    return tuple(buckets.of_one_class.label(i, o) for i, o in np.argwhere(differs).tolist())


def _apart(table: npt.NDArray[_Number], plan: Plan) -> npt.NDArray[_Number]:
    """A table over rows (..., K I, O) with the classes on an axis of their own (..., K, I, O)."""
    buckets = plan.workload.buckets
    shape = (len(buckets.classes), len(buckets.input_edges), len(buckets.output_edges))
    return table.reshape(*table.shape[:-2], *shape)
