"""A joint plan in sentences, and the cells of its tables."""

from __future__ import annotations

from melange.plan.joint.joint_plan import JointPlan, PoolUse, ServicePlan
from melange.plan.joint.next_unit import Exchange
from melange.plan.problem import ROUNDING
from melange.present.terminal.layout import usd
from melange.present.terminal.schedule_words import counted
from melange.units import count_of, percent, significant


def fleet_sentence(plan: JointPlan) -> str:
    """The cost of all services, and the cost of sharing."""
    count = len(plan.plans)
    services = count_of(count, "service")
    shown = {True: "each certified or simulated to meet its SLO", False: "not all shown to meet their SLOs"}
    how = shown.get(bool(plan.holds), "") if plan.holds is not None else "by closed form (nothing was simulated)"
    return f"{services}: {usd(plan.cost_per_h)}/h, {how}; {_sharing(plan)}."


def _sharing(plan: JointPlan) -> str:
    known = [one for one in plan.services if one.plan is not None and one.apart_per_h is not None]
    alone = sum(one.apart_per_h or 0.0 for one in known if one.served_fraction == 1)
    own = sum(one.plan.cost_per_h for one in known if one.plan and one.served_fraction == 1)
    if not plan.pools and plan.budget_per_h is None:
        return "no pools are shared"
    more = own - alone
    if more <= ROUNDING * max(own, 1.0):
        return "every service gets the same fleet as with separate pools"
    return f"the shared pools cost {usd(more)}/h more than if each service had them to itself"


def proof_sentence(plan: JointPlan) -> str:
    """What is proven about the joint plan."""
    if plan.bound_per_h is None:
        return "Lower bound: none for some of the services."
    bound = f"no plans of all services within the pools cost less than {usd(plan.bound_per_h)}/h"
    kind = " by closed form" if plan.holds is None else ", assuming that loads add up"
    return f"Lower bound: {bound}{kind} (gap {percent(plan.gap, 2)})."


def fleet_of(one: ServicePlan) -> str:
    """The instances of a service in words."""
    if one.plan is None:
        return "left out: the pools are used up"
    return counted({name: count for name, count in one.plan.instances_by_name.items() if count})


def held(one: ServicePlan) -> str:
    """The attainment that was shown for a service."""
    if one.plan is None:
        return "-"
    if one.plan.attainment is None:
        return "-"
    mark = "" if one.plan.holds else ", not shown"
    return f"{percent(one.plan.attainment, 2)}{mark}"


def price_of(pool: PoolUse) -> str:
    """The price of a pool for a cell, from the integer program of all services."""
    if pool.price_per_h is None:
        return "unavailable"
    return significant(pool.price_per_h, 3) if pool.price_per_h > 0 else "-"


def users_of(pool: PoolUse) -> str:
    """The number that each service takes from a pool."""
    return ", ".join(f"{name} {count}" for name, count in pool.taken.items() if count) or "none"


def exchange_sentences(plan: JointPlan) -> list[str]:
    """For each short pool: which service would take one more unit, and which would give one up."""
    said = []
    for pool in plan.pools:
        if not pool.price_per_h:
            continue
        if pool.next_unit is not None:
            one = pool.next_unit
            said.append(
                f"{pool.name}: {one.units:g} more would save {usd(-one.cost_per_h)}/h: {one.service} {_changes(one)}."
            )
        if pool.last_unit is not None:
            one = pool.last_unit
            said.append(
                f"{pool.name}: {-one.units:g} fewer would cost {usd(one.cost_per_h)}/h: {one.service} {_changes(one)}."
            )
    return said


def _changes(one: Exchange) -> str:
    """Instances returned and added."""
    back = {name: -n for name, n in one.changes.items() if n < 0}
    more = {name: n for name, n in one.changes.items() if n > 0}
    if back and more:
        return f"replaces {counted(back)} by {counted(more)}"
    return f"releases {counted(back)}" if back else f"adds {counted(more)}"
