"""Which of the plans found is proven: the cheapest, unless a single type that costs less can be proven."""

from __future__ import annotations

import math

from melange.errors import InfeasibleError
from melange.plan.problem import ROUNDING
from melange.validate.certify.effort import is_late
from melange.validate.certify.headroom import Search
from melange.validate.certify.plan_trial import Trial
from melange.validate.certify.single_types import cheaper_single_type
from melange.validate.certify.small_fleets import cheaper_fleet, nearly_held
from melange.workload.workload import Array

# Part of a search's effort after which no further small fleet is looked for: the rest is for proofs, and for two pools
# of a type, which may save far more than another small step. Chosen by judgment.
_SMALL_STEPS = 0.6


def cheapest_proven(search: Search, factor: Array) -> Trial:
    """The cheapest plan that is proven, including plans that nearly seemed to hold."""
    try:
        best = cheaper_single_type(search, _proven(search, factor))
    except InfeasibleError:
        found = search.second_chance(None)
        if found is None:
            raise
        return found
    best = search.second_chance(best) or best
    for tried in nearly_held(search, best):
        if tried.plan.cost_per_h < best.plan.cost_per_h - ROUNDING and search.judge.may_hold(tried):
            proof = search.proof(tried, best)
            if search.judge.is_proven(proof):
                return proof
    return best


def look_for_cheaper(search: Search, factor: Array) -> None:
    """Try small fleets until no cheaper one is found, or too much effort is spent.

    The fleets that are tried are close to the best one, so there may be many small steps.
    """
    while (best := search.best) is not None and not is_late(search.judge, _SMALL_STEPS):
        if cheaper_fleet(search, best, factor).plan.cost_per_h >= best.plan.cost_per_h - ROUNDING:
            return


def _proven(search: Search, factor: Array) -> Trial:
    """The cheapest plan that is proven; if failed proofs made a plan more expensive, plans below it are tried too."""
    best: Trial | None = None
    while True:
        looked_at = math.inf if search.best is None else search.best.plan.cost_per_h
        try:
            found = search.proven()
        except InfeasibleError:
            if best is None:
                raise
            return best
        if best is not None and found.plan.cost_per_h >= best.plan.cost_per_h - ROUNDING:
            return best
        best = found
        if found.plan.cost_per_h <= looked_at + ROUNDING:
            return best
        look_for_cheaper(search, factor)
