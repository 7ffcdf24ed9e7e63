"""A joint plan as a page for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from melange.plan.joint.joint_plan import JointPlan
from melange.present.terminal.fleet_words import (
    exchange_sentences,
    fleet_of,
    fleet_sentence,
    held,
    price_of,
    proof_sentence,
    users_of,
)
from melange.present.terminal.layout import cautions, listed, spaced, table_of, titled


def fleet_page(plan: JointPlan) -> RenderableType:
    """Services with their fleets, pools with their prices, and the value of one more unit of each pool."""
    parts: list[RenderableType] = [Text(fleet_sentence(plan), style="bold"), _services(plan)]
    if plan.pools:
        parts.append(_pools(plan))
    if sentences := exchange_sentences(plan):
        parts.append(listed("Effect of one more or one less", sentences))
    parts.append(Text(proof_sentence(plan)))
    said = [*plan.cautions, *dict.fromkeys(one for found in plan.plans.values() for one in found.cautions)]
    if said:
        parts.append(cautions(said))
    return Group(*spaced(parts))


def _services(plan: JointPlan) -> RenderableType:
    table = table_of("Service", "USD/h", "Alone", "Traffic", "SLO met", "Fleet")
    for column in (1, 2, 3, 4):
        table.columns[column].justify = "right"
    for one in plan.services:
        table.add_row(
            one.name,
            "-" if one.plan is None else f"{one.plan.cost_per_h:,.2f}",
            "-" if one.apart_per_h is None else f"{one.apart_per_h:,.2f}",
            f"{one.served_fraction:.0%}",
            held(one),
            fleet_of(one),
        )
    return titled("Services", table)


def _pools(plan: JointPlan) -> RenderableType:
    table = table_of("Pool", "Total", "Left", "Price [USD/h]", "Taken by")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    for pool in plan.pools:
        table.add_row(pool.name, f"{pool.most}", f"{pool.left}", price_of(pool), users_of(pool))
    return titled("Pools (price: the most that one more unit would save)", table)
