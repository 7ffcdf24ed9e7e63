"""Plans for capacities that are not known exactly.

A profile's ``low`` and ``high`` are the 10 % and 90 % quantiles of what a replica really carries. A plan with
confidence c counts on the (1 - c) quantile of every cell, log-normal between low, middle and high::

    rate(z) = middle (low / middle)^(z / 1.2816)      z = the normal quantile of c: 0.5 -> middle, 0.9 -> low
    rate(z) = middle (1 - z / 1.2816)                 where low is 0: linear, and 0 from c = 0.9 on

All cells move together. Within a replica type errors behave this way: a wrong bandwidth or a slow engine affects every
size. Between types it is the cautious assumption: an engine's constants are common to all, datasheets are not. If
errors were independent, they would partly cancel within a fleet, and a plan with confidence 0.9 would hold more often
than 9 times in 10.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np

from melange.errors import InputError
from melange.profile.profile import Profile
from melange.workload.workload import Array

# Ends of a profile's 80 % intervals, its 10 % and 90 % quantiles, and the confidence that plans for each.
CONFIDENCE_BY_END = {"low": 0.9, "mid": 0.5, "high": 0.1}
# 10 % and 90 % quantiles of a normal distribution, in standard deviations.
DECILE = NormalDist().inv_cdf(0.9)
# The reason for a rate of 0 where the chosen quantile of its interval leaves nothing.
NOT_KNOWN = "too uncertain"


def quantile_of(confidence: float) -> float:
    """Standard deviations below the middle that correspond to a confidence.

    >>> round(quantile_of(0.9), 4), quantile_of(0.5)
    (1.2816, 0.0)
    """
    if not 0 < confidence < 1:
        raise InputError(f"plan.confidence must be between 0 and 1, got {confidence:g}")
    return NormalDist().inv_cdf(confidence)


def at_confidence(profile: Profile, confidence: float | None) -> Profile:
    """The profile with the rates at that confidence.

    Parameters
    ----------
    profile
        Rates with their intervals (R, I, O) [1/s]; measured cells without an interval stay as they are.
    confidence
        Chance that a cell carries at least that rate, 0-1: 0.5 (and None) is the middle, 0.9 the low end, 0.1 the high
        end.
    """
    if confidence is None or confidence == 0.5:
        return profile
    rates = at_quantile(profile, np.full(len(profile.replica_types), quantile_of(confidence)))
    return with_rates(profile, rates, f"too uncertain at {confidence:.0%} confidence; measure it")


def at_quantile(profile: Profile, deviations: Array) -> Array:
    """Rates (R, I, O) at some standard deviations below the middle (negative: above), by replica type (R,) [1/s]."""
    z = (np.asarray(deviations, float) / DECILE)[:, None, None]
    mid = profile.max_request_rate
    end = np.where(z >= 0, profile.low, profile.high)
    far = np.abs(z)
    known = (mid > 0) & (end > 0)
    ratio = np.where(known, end, 1.0) / np.where(known, mid, 1.0)
    linear = np.maximum(mid + far * (end - mid), 0.0)
    return np.asarray(np.where(known, mid * ratio**far, linear))


def with_rates(profile: Profile, rates: Array, why: str) -> Profile:
    """The profile with other rates, and a reason for each that has become 0."""
    lost = (profile.max_request_rate > 0) & (rates <= 0)
    if not lost.any():
        return replace(profile, max_request_rate=rates)
    reason = np.where(lost, len(profile.reasons), profile.reason)
    return replace(profile, max_request_rate=rates, reasons=(*profile.reasons, why), reason=reason)
