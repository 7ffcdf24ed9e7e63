"""What a certified plan says of settings and traffic that its certificate does not cover."""

from __future__ import annotations

from dataclasses import replace

from melange.errors import Caution
from melange.plan.plan import Plan

# Arrivals whose gaps vary by more than this are worth a word where Poisson ones are simulated: production hours of one
# service vary by 1.0 to 1.1 (Azure conversation). A judgment.
_BURSTY = 1.25


def with_word_on_confidence(plan: Plan) -> Plan:
    """A certified plan, with a caution where it was asked to count on less than replicas are expected to carry."""
    confidence = plan.options.confidence
    if confidence is None:
        return plan
    what = f"steps were simulated as they are known, and plan.confidence: {confidence:g} binds the closed form only"
    caution = Caution("confidence", f"{what}; melange validate --steps slow shows the plan on slower ones")
    return replace(plan, cautions=(*plan.cautions, caution))


def with_word_on_bursts(plan: Plan) -> Plan:
    """A plan certified for Poisson arrivals, with a caution where those of its traffic were seen to come in bursts."""
    seen = plan.workload.burstiness
    if seen is None or seen <= _BURSTY:
        return plan
    what = (
        f"the times between its arrivals varied by {seen:.2g} times their mean, and Poisson arrivals were simulated (1)"
    )
    caution = Caution("burstiness", f"{what}; --burstiness {seen:.2g} draws such bursts, workload.trace replays a log")
    return replace(plan, cautions=(*plan.cautions, caution))
