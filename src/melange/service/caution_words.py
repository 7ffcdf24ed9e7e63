"""Cautions on a certified plan about settings and traffic that its certificate does not cover."""

from __future__ import annotations

from dataclasses import replace

from melange.errors import Caution
from melange.plan.plan import Plan

# Coefficient of variation of the gaps above which a Poisson simulation gets a caution: production hours of one service
# have 1.0 to 1.1 (Azure conversation). A judgment.
_BURSTY = 1.25


def with_word_on_confidence(plan: Plan) -> Plan:
    """A certified plan, with a caution if it was asked to plan on less than the expected capacity."""
    confidence = plan.options.confidence
    if confidence is None:
        return plan
    what = (
        f"plan.confidence: {confidence:g} applies to the closed form only; the simulation used the expected step times"
    )
    caution = Caution("confidence", f"{what}; melange validate --steps slow simulates slower ones")
    return replace(plan, cautions=(*plan.cautions, caution))


def with_word_on_bursts(plan: Plan) -> Plan:
    """A plan certified for Poisson arrivals, with a caution if its traffic was observed to be burstier."""
    seen = plan.workload.burstiness
    if seen is None or seen <= _BURSTY:
        return plan
    what = f"the traffic is bursty (gaps vary by {seen:.2g} times their mean), and Poisson arrivals (1) were simulated"
    caution = Caution("burstiness", f"{what}; use --burstiness {seen:.2g}, or replay a log with workload.trace")
    return replace(plan, cautions=(*plan.cautions, caution))
