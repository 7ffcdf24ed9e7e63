"""The loss when requests are routed by fixed weights, regardless of size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melange.errors import Caution
from melange.plan.plan import Plan

# Weights that differ by less from every size's shares route as the plan does.
_SAME = 0.005


def weights_of(plan: Plan) -> tuple[int, ...]:
    """Whole parts of 10,000 for each type in use: its part of all requests, the largest remainders rounded up."""
    used = np.flatnonzero(plan.instances > 0)
    sent = (plan.share[used] * plan.workload.request_rate).sum(axis=(1, 2))
    exact = 10_000 * sent / sent.sum()
    parts = np.floor(exact).astype(int)
    parts[np.argsort(parts - exact, kind="stable")[: 10_000 - parts.sum()]] += 1
    return tuple(int(part) for part in parts)


def elsewhere(plan: Plan) -> tuple[float, float]:
    """Under those weights: parts of requests that go to another type than planned, and to one that cannot serve them.

    The first is the part of each size's requests by which its shares differ from the weights, the second the part whose
    size has a rate of 0 where it goes, both over all requests, 0-1.
    """
    used = np.flatnonzero(plan.instances > 0)
    rate = plan.workload.request_rate * (plan.share[used].sum(axis=0) > 0)
    weight = (np.array(weights_of(plan)) / 10_000)[:, None, None]
    share = plan.share[used]
    misplaced = np.maximum(weight - share, 0.0).sum(axis=0)
    unable = (weight * (plan.max_request_rate[used] == 0)).sum(axis=0)
    total = rate.sum()
    return float((rate * misplaced).sum() / total), float((rate * unable).sum() / total)


def is_size_aware(plan: Plan) -> bool:
    """Whether the plan sends sizes to types in other parts than its weights over all requests."""
    return elsewhere(plan)[0] > _SAME


def not_by_size(plan: Plan, target: str, nearest: str) -> Sequence[Caution]:
    """What to say of a target that spreads requests by weights; nothing where the plan asks for no more."""
    misplaced, unable = elsewhere(plan)
    if misplaced <= _SAME:
        return ()
    late = f", {unable:.1%} to a type that cannot serve their size within the SLO" if unable > 0 else ""
    message = (
        f"{target} cannot route by request size: with weights, {misplaced:.0%} of requests go to another type than"
    )
    return (
        Caution(
            "routing", f"{message} planned{late}; the plan's certificate does not apply. Closest alternative: {nearest}"
        ),
    )
