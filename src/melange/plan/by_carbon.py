"""Plans of the least emissions: the search for the cheapest plan, with emissions in place of prices.

Each instance counts with its emissions at the load that headroom leaves, as with a carbon price: the loads of the plan
are known only once it is found. Among fleets with equal emissions, the cheapest is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from melange.catalog.offer import Offer
from melange.errors import InfeasibleError
from melange.plan.energy import emissions_of
from melange.plan.least_carbon import LeastCarbon
from melange.plan.options import COST
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.search_clock import now_s

if TYPE_CHECKING:
    from melange.profile.profile import ReplicaType

Found = TypeVar("Found")

# Weight of a USD/h beside emissions [kg CO2e]: a hundredth of a gram, which only breaks ties between fleets with equal
# emissions. A tenth of it would be lost in the search's rounding.
_TIE_KG_PER_USD = 1e-5
# Relative gap of the search: smaller than the weight that breaks ties.
_GAP = 1e-7


def least_carbon(asked: Question, search: Callable[[Question], Plan]) -> Plan:
    """The plan of least emissions, and its extra cost over the cheapest plan.

    Parameters
    ----------
    asked
        A question whose objective is carbon.
    search
        Finds the cheapest plan of a question.

    Raises
    ------
    InputError
        Accelerators whose power is not known.
    InfeasibleError
        The search found no plan.
    """
    emitted = emissions_of([one.offer for one in asked.profile.replica_types], asked.options)
    # Both searches share the time: what the first one leaves of its half is the second one's.
    began, limit_s = now_s(), asked.options.time_limit_s
    cheapest = search(asked.with_options(objective=COST, time_limit_s=limit_s / 2))
    left_s = max(limit_s / 2, limit_s - (now_s() - began))
    try:
        found = search(_weighed(asked, emitted).with_options(time_limit_s=left_s))
    except InfeasibleError as error:
        reasons = [in_kg(one) for one in error.reasons]
        raise InfeasibleError(in_kg(str(error)), reasons=reasons, hint=error.hint) from error
    return _stated(found, asked, emitted, cheapest)


def in_kg(words: str) -> str:
    """A message of a search whose prices are emissions, with the right unit.

    >>> in_kg("plan 3: 1.25 USD/h")
    'plan 3: 1.25 kg CO2e/h'
    """
    return words.replace("USD/h", "kg CO2e/h")


def rent_of(asked: Question) -> Callable[[Plan], float]:
    """What the instances of a plan cost at the prices of a question [USD/h]."""

    @cache
    def prices() -> dict[str, float]:
        return {one.name: one.cost_per_h for one in asked.profile.replica_types}

    def rent(plan: Plan) -> float:
        used = zip(plan.replica_types, plan.instances, strict=True)
        return sum(float(count) * _of_type(prices(), one) for one, count in used if count)

    return rent


def _of_type(known: Mapping[str, Found], one: ReplicaType) -> Found:
    """The entry of a type by its own name, or by the name of its first pool."""
    return known[one.name] if one.name in known else known[one.type_name]


def _weighed(asked: Question, emitted: dict[Offer, float]) -> Question:
    """The question with emissions in place of prices."""

    def weighed(one: ReplicaType) -> ReplicaType:
        kg = emitted[one.offer] + _TIE_KG_PER_USD * one.offer.cost_per_h
        return replace(one, offer=replace(one.offer, cost_per_h=kg))

    profile = replace(asked.profile, replica_types=tuple(map(weighed, asked.profile.replica_types)))
    options = replace(asked.options, objective=COST, gap=min(asked.options.gap, _GAP))
    return replace(asked, profile=profile, options=options)


def _stated(found: Plan, asked: Question, emitted: dict[Offer, float], cheapest: Plan) -> Plan:
    """The plan that was found as the answer to the original question, at prices in USD."""
    price = {one.name: one.offer for one in asked.profile.replica_types}
    types = tuple(replace(one, offer=_of_type(price, one)) for one in found.replica_types)
    own = asked.options
    options = replace(found.options, objective=own.objective, gap=own.gap, time_limit_s=own.time_limit_s)
    question = replace(found.question, profile=replace(found.question.profile, replica_types=types), options=options)

    def emits(plan: Plan) -> float:
        used = zip(plan.replica_types, plan.instances, strict=True)
        return sum(float(count) * one.machines * emitted[_of_type(price, one)] for one, count in used if count)

    beside = LeastCarbon(
        emitted_kg_per_h=emits(found),
        bound_kg_per_h=found.bound_per_h,
        cheapest_per_h=cheapest.cost_per_h,
        cheapest_kg_per_h=emits(cheapest),
    )
    if beside.bound_kg_per_h is not None:  # it includes the weights for ties: never more than the plan's own emissions
        beside = replace(beside, bound_kg_per_h=min(beside.bound_kg_per_h, beside.emitted_kg_per_h))
    return replace(
        found,
        question=question,
        cost_per_h=rent_of(asked)(found),
        bound_per_h=None,
        single_type=cheapest.single_type,
        solve_s=found.solve_s + cheapest.solve_s,
        least_carbon=beside,
    )
