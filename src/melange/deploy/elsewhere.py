"""The loss when requests are routed by fixed weights, regardless of size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melange.errors import Caution
from melange.plan.plan import Plan

# Weights count as equal to the plan's routing if all shares differ by less than this.
_SAME = 0.005


def weights_of(plan: Plan) -> tuple[int, ...]:
    """Each used type's share of all requests in whole parts of 10,000, rounded up for the largest remainders."""
    used = np.flatnonzero(plan.instances > 0)
    sent = (plan.share[used] * plan.workload.request_rate).sum(axis=(1, 2))
    exact = 10_000 * sent / sent.sum()
    parts = np.floor(exact).astype(int)
    parts[np.argsort(parts - exact, kind="stable")[: 10_000 - parts.sum()]] += 1
    return tuple(int(part) for part in parts)


def elsewhere(plan: Plan) -> tuple[float, float]:
    """With these weights: shares of requests that go to a type other than planned, and to one that cannot serve them.

    The first is the share by which the weights differ from each size's planned shares. The second is the share of
    requests whose size has a rate of 0 on the type that gets them. Both are relative to all requests, 0-1.
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
    """Whether the plan's shares depend on the request size, so that weights alone cannot reproduce them."""
    return elsewhere(plan)[0] > _SAME


def not_by_size(plan: Plan, target: str, nearest: str) -> Sequence[Caution]:
    """A caution about a target that routes by weights; empty if weights are enough for the plan."""
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
