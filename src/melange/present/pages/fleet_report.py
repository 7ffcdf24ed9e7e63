"""The page of a joint plan: services, pools, and the value of one more unit of each pool."""

from __future__ import annotations

from melange.plan.joint.joint_plan import JointPlan
from melange.present.pages import html as html
from melange.present.terminal.fleet_words import (
    exchange_sentences,
    fleet_of,
    fleet_sentence,
    held,
    price_of,
    proof_sentence,
    users_of,
)


def fleet_html(plan: JointPlan, name: str) -> str:
    """The page as HTML; ``name`` is the file name."""
    title = f"Melange: {name}"
    parts = [
        f'<header><p class="brand">{html.escape(title)}</p><h1>{html.escape(fleet_sentence(plan))}</h1></header>',
        "<main>",
        *fleet_sections(plan),
        "</main>",
    ]
    return html.document(title, parts, [])


def fleet_sections(plan: JointPlan) -> list[str]:
    """The sections of the page below its header."""
    services = [
        (
            one.name,
            "-" if one.plan is None else f"{one.plan.cost_per_h:,.2f}",
            "-" if one.apart_per_h is None else f"{one.apart_per_h:,.2f}",
            f"{one.served_fraction:.0%}",
            held(one),
            fleet_of(one),
        )
        for one in plan.services
    ]
    header = ("Service", "USD/h", "Alone [USD/h]", "Traffic", "SLO met", "Fleet")
    pools = [(pool.name, f"{pool.most:,}", f"{pool.left:,}", price_of(pool), users_of(pool)) for pool in plan.pools]
    warnings = [*plan.cautions, *dict.fromkeys(one for found in plan.plans.values() for one in found.cautions)]
    return [
        html.section(
            "Services",
            html.folding_table(header, services, caption="Each service's fleet, and what it would cost alone"),
            html.paragraph(proof_sentence(plan)),
        ),
        html.section(
            "Pools",
            html.folding_table(
                ("Pool", "Total", "Left", "Price [USD/h]", "Taken by"),
                pools,
                caption="Shared pools; price: the most that one more would save",
            ),
            html.bullets(exchange_sentences(plan)),
        )
        if pools
        else "",
        html.section("Warnings", html.bullets(map(str, warnings), "warnings")) if warnings else "",
    ]
