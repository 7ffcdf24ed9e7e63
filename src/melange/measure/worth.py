"""The next bucket to measure: the bucket whose unknown rate affects the fleet most; none if the plan cannot change.

A bucket with ``rate`` arrivals per second needs between ``rate / high`` and ``rate / low`` replicas. The value of a
measurement is the width of this range, times the share of the bucket that the replica type would serve. The plan is
solved with all rates of the type at their low ends, and at their high ends; if both plans buy the same, no measurement
is needed. A measured rate stays as found: another search would leave an interval of the same width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from melange.errors import InfeasibleError
from melange.measure.subject import Bucket, Subject, same_kind
from melange.plan.confidence import DECILE, NOT_KNOWN, at_quantile, with_rates
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.profile.profile import MEASURED, Profile
from melange.workload.workload import Array, Mask

# Lower bound of a rate as a share of its highest estimate; without it, one bucket would outweigh all others.
_LEAST_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The next buckets to measure.

    Parameters
    ----------
    buckets
        Buckets that are not measured yet, most important first.
    is_settled
        Whether the plan would stay the same for all possible rates of these buckets.
    costs_per_h
        Cost of the plan with the type's rates at their low and at their high ends [USD/h]; None: there is no plan.
    """

    buckets: tuple[Bucket, ...]
    is_settled: bool
    costs_per_h: tuple[float | None, float | None] = (None, None)


def choose(subject: Subject, profile: Profile | None) -> Choice:
    """The next buckets to measure, given ``profile``; None: nothing is known yet."""
    traffic = subject.workload.request_rate
    if profile is None:
        # The number of tokens determines the time.
        tokens = traffic * (subject.workload.input_tokens / 10 + subject.workload.output_tokens)
        return Choice(buckets=_in_order(tokens), is_settled=False)
    kind = same_kind(profile, subject.replica_type)
    profile = _as_found(profile)
    r = profile.index(subject.replica_type)
    ends = [_plan_at(subject, profile, kind, deviation) for deviation in (DECILE, 0.0, -DECILE)]
    served = np.max([_share(plan, kind, traffic) for plan in ends], axis=0)
    if not served.any():
        served = np.ones_like(traffic)
    high = profile.high[r]
    low = np.maximum(profile.low[r], _LEAST_SHARE * high)
    width = np.divide(1.0, low, out=np.zeros_like(low), where=low > 0)
    width -= np.divide(1.0, high, out=np.zeros_like(high), where=high > 0)
    # Skip measured buckets, and buckets that the type cannot serve even at best, unless it can serve none.
    is_open = (profile.provenance[r] != MEASURED) & ((high > 0) | ~(high > 0).any())
    value = np.where(is_open, traffic * served * np.maximum(width, 1e-12), 0.0)
    low_plan, _, high_plan = ends
    return Choice(
        buckets=_in_order(value),
        is_settled=_same(low_plan, high_plan),
        costs_per_h=(low_plan.cost_per_h if low_plan else None, high_plan.cost_per_h if high_plan else None),
    )


def _as_found(profile: Profile) -> Profile:
    """The profile with measured cells exactly as measured."""
    is_measured = profile.provenance == MEASURED
    low, high = (np.where(is_measured, profile.max_request_rate, end) for end in (profile.low, profile.high))
    return replace(profile, low=low, high=high)


def _in_order(value: Array) -> tuple[Bucket, ...]:
    """Buckets with a positive value, largest first."""
    order = np.argsort(-value, axis=None, kind="stable")
    cells = [divmod(int(cell), value.shape[1]) for cell in order]
    return tuple(cell for cell in cells if value[cell] > 0)


def _plan_at(subject: Subject, profile: Profile, kind: Mask, deviation: float) -> Plan | None:
    """The plan with the types of one kind at a given quantile of their intervals, and the others unchanged."""
    rates = with_rates(profile, at_quantile(profile, np.where(kind, deviation, 0.0)), NOT_KNOWN)
    try:
        return solve(subject.workload, rates, replace(subject.options, confidence=None, budget_per_h=None))
    except InfeasibleError:
        return None


def _share(plan: Plan | None, kind: Mask, traffic: Array) -> Array:
    return np.zeros_like(traffic) if plan is None else np.asarray(plan.share[kind].sum(axis=0))


def _same(one: Plan | None, other: Plan | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool((one.instances == other.instances).all()) and one.served_fraction == other.served_fraction
