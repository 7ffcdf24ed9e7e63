"""Plans that hold with a requested chance, by simulation.

A plan is certified on steps that are slower than estimated by the same number of standard deviations on every type. Its
chance to hold comes from drawn step times (:mod:`melange.validate.certify.margin`). Moving all types together is
cautious: errors of different accelerators partly cancel, and whole instances leave slack. So if the chance is larger
than requested, fewer deviations are tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from melange.plan.confidence import at_quantile, quantile_of, with_rates
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.profile.profile import Profile
from melange.replica.step_errors import factor_at
from melange.validate.certify.headroom import as_asked
from melange.validate.certify.judge import Judge
from melange.validate.certify.margin import with_margin

# Accepted difference between the chance of a plan and the requested one: chances are known only to this.
_KNOWN_TO = 0.02
# Most searches for a plan, including the first. More find chances nearer to the requested one; in small fleets whole
# instances limit this either way. Chosen by judgment.
_MOST_SEARCHES = 3
# Least and largest change of the number of deviations from one search to the next. Chosen by judgment.
_LEAST, _LARGEST = 0.25, 2.0


def at_chance(asked: Question, search: Callable[[Question], tuple[Plan, Judge]]) -> Plan:
    """The cheapest plan found that holds with the question's confidence.

    Parameters
    ----------
    asked
        A question with a confidence.
    search
        Certifies a question on the steps of its profile.

    Raises
    ------
    InfeasibleError
        The search found no plan on steps as slow as the confidence requires.
    """
    confidence = asked.options.confidence
    assert confidence is not None
    wanted = quantile_of(confidence)
    deviations, tried = wanted, []
    for _ in range(_MOST_SEARCHES):
        plan = plan_at(asked, deviations, search)
        tried.append((plan, deviations))
        chance = _chance(plan)
        if wanted <= 0 or abs(chance - confidence) <= _KNOWN_TO:
            break
        deviations = _next(wanted, [(d, quantile_of(np.clip(_chance(p), 0.01, 0.99))) for p, d in tried])
        if any(abs(deviations - d) < 1e-3 for _, d in tried):
            break
    held = [plan for plan, _ in tried if _chance(plan) >= confidence - _KNOWN_TO]
    return min(held, key=lambda one: one.cost_per_h) if held else max((one for one, _ in tried), key=_chance)


def _next(wanted: float, known: list[tuple[float, float]]) -> float:
    """Deviations to plan for next, from pairs of deviations planned for and deviations that the plan survived."""
    below = [d for d, held in known if held < wanted]
    above = [d for d, held in known if held >= wanted]
    if below and above:
        return (max(below) + min(above)) / 2
    last, held = known[-1]
    ratio = wanted / held if held > 0 else _LARGEST
    return last * min(max(ratio, _LEAST), _LARGEST)


def plan_at(asked: Question, deviations: float, search: Callable[[Question], tuple[Plan, Judge]]) -> Plan:
    """The plan certified on slower steps, as the answer to the question, with its margin."""
    slower = replace(asked, profile=_slowed(asked.profile, deviations)).with_options(confidence=None)
    found, judge = search(slower)
    restated = as_asked(found, _with_found_rates(_same_types(asked, found), found))
    engines = [(one.name, engine) for one, engine in zip(restated.replica_types, restated.engines, strict=True)]
    by_name = {name: round(float(factor_at(engine, deviations)), 4) for name, engine in engines if engine}
    assert found.certificate is not None
    return with_margin(replace(restated, certificate=replace(found.certificate, slowed_by=by_name)), judge)


def _slowed(profile: Profile, deviations: float) -> Profile:
    """The profile with steps slower by this many deviations, and rates at that quantile of their intervals."""
    rates = at_quantile(profile, np.full(len(profile.replica_types), deviations))
    engines = tuple(one and one.scaled(float(factor_at(one, deviations))) for one in profile.engines)
    why = "too uncertain at this confidence; measure it"
    return replace(with_rates(profile, rates, why), engines=engines)


def _same_types(asked: Question, found: Plan) -> Question:
    """The question with the second pools of the plan that was found."""
    from melange.validate.certify.second_pools import with_pools

    names = [one.name for one in asked.profile.replica_types]
    pools = [one for one in found.replica_types if one.name not in names]
    return with_pools(asked, [(names.index(one.type_name), one.pool) for one in pools]) if pools else asked


def _with_found_rates(asked: Question, found: Plan) -> Question:
    """The question with the rates of a plan for sizes that are too slow or too uncertain for the types that serve them.

    Some sizes may miss (:mod:`~melange.validate.certify.tolerance`), and with fewer deviations some rates are above 0
    that are 0 at the confidence itself.
    """
    profile = asked.profile
    is_patched = (found.share > 0) & (asked.at_confidence().profile.max_request_rate <= 0)
    if not is_patched.any():
        return asked
    mid, low, high = (
        np.where(is_patched, found.max_request_rate, rates)
        for rates in (profile.max_request_rate, profile.low, profile.high)
    )
    return replace(asked, profile=replace(profile, max_request_rate=mid, low=low, high=high))


def _chance(plan: Plan) -> float:
    assert plan.certificate is not None
    assert plan.certificate.chance is not None
    return plan.certificate.chance
