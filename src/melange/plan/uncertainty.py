"""The cost of uncertainty: the cost of a plan if capacities were known, and what to measure next."""

from __future__ import annotations

from dataclasses import replace

from melange.errors import Caution, InfeasibleError
from melange.plan.confidence import CONFIDENCE_BY_END, at_confidence
from melange.plan.plan import Plan
from melange.plan.problem import ROUNDING
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.plan.suggest import suggest_measurements
from melange.units import percent
from melange.workload.workload import Array

# Reasons of a caution, which is one line of a page: the plan for that end alone says them all.
_MOST_REASONS = 3


def with_uncertainty(plan: Plan, *, in_flight: Array | None = None) -> Plan:
    """The plan with its cost at the low end, the middle and the high end of all intervals, and what to measure next.

    Parameters
    ----------
    plan
        The output of :func:`~melange.plan.solve.solve`.
    in_flight
        As in :func:`~melange.plan.suggest.suggest_measurements`.
    """
    cost_at: dict[str, float | None] = {}
    cautions = list(plan.cautions)
    for end in CONFIDENCE_BY_END:
        try:
            found = _plan_at(end, plan.question)
            cost_at[end] = found.cost_per_h
            if found.served_fraction < plan.served_fraction - ROUNDING:
                left_out = percent(1 - found.served_fraction, 2)
                what = f"at the {end} end of all intervals {left_out} of requests are left out"
                cautions.append(Caution("uncertain", f"{what}; that cost is for less traffic"))
        except InfeasibleError as error:
            cost_at[end] = None
            why = "; ".join(error.reasons[:_MOST_REASONS])
            what = f"no plan serves the traffic if every replica is at the {end} end of its interval: {error}"
            cautions.append(Caution("uncertain", f"{what} ({why})" if why else what))
    try:
        suggestions = suggest_measurements(plan.question, count=1, in_flight=in_flight)
    except InfeasibleError:
        suggestions = ()
    return replace(
        plan,
        cost_at=cost_at,
        next_measurement=f"{suggestions[0]}" if suggestions else "",
        cautions=tuple(cautions),
    )


def _plan_at(end: str, question: Question) -> Plan:
    """The cheapest plan with every replica at one end of its interval, a budget set aside."""
    profile = at_confidence(question.profile, CONFIDENCE_BY_END[end])
    return solve(replace(question, profile=profile).with_options(confidence=None, budget_per_h=None))
