"""A plan's page: the answer, its tables and pictures, and its sources."""

from __future__ import annotations

import re

import numpy as np

from melange.plan.plan import Plan
from melange.present.figures.picture import Picture
from melange.present.figures.pictures import (
    picture_of_cost_by_limit,
    picture_of_routes,
    picture_of_winners,
    pictures_by_rate,
)
from melange.present.pages import html as html
from melange.present.study import Study
from melange.present.terminal import plan_tables as tables
from melange.present.terminal import plan_words as words
from melange.present.terminal.layout import usd
from melange.units import count_of, significant


def report_pictures(study: Study) -> list[Picture]:
    """The pictures of a plan, in the order of its page."""
    sweeps = study.exploration.by_limit
    return [
        picture_of_routes(study),
        picture_of_winners(study),
        *pictures_by_rate(study, study.exploration.by_rate),
        *([picture_of_cost_by_limit(study, sweeps)] if sweeps else []),
    ]


def report_page(study: Study, pictures: list[Picture], name: str) -> str:
    """The page as HTML.

    Parameters
    ----------
    study
        The plan and its inputs.
    pictures
        The result of :func:`report_pictures`.
    name
        File name of the service.
    """
    plan = study.plan
    drawn = {picture.name: html.figure(picture) for picture in pictures}
    by_limit = drawn.get("cost-by-slo", no_sweeps(study))
    parts = [
        header(study, f"Melange: the plan for {name}"),
        "<main>",
        html.section("The mix", _mix_table(study), drawn["routes"], _routing_grid(plan)),
        html.section("With one type only", _singles_table(plan), drawn["savings"]),
        html.section("Proof", html.paragraph(words.proof(plan))),
        warnings_section(plan),
        html.section("Why these types", types_table(study), drawn["winners-by-size"]),
        html.section("At other rates and limits", drawn["cost-by-rate"], by_limit),
        assumptions_section(study),
        "</main>",
    ]
    return html.document(f"Melange plan: {name}", parts, pictures)


def header(study: Study, brand: str) -> str:
    """The answer, with the inputs it is based on."""
    plan = study.plan
    lines = tables.assumptions(plan).split("\n")
    day = f" | {study.day}" if study.day else ""
    return (
        f'<header><p class="brand">{html.escape(brand)}{day}</p>'
        f"<h1>{html.escape(words.plan_sentence(plan))}</h1>"
        + "".join(html.paragraph(line, "dim") for line in lines)
        + "</header>"
    )


def _mix_table(study: Study) -> str:
    """What is rented, and what it serves."""
    plan = study.plan
    rows, chips = [], []
    for letter, r in zip(tables.letters(plan), words.used_types(plan), strict=False):
        replica_type, count = plan.replica_types[r], int(plan.instances[r])
        rows.append(
            (
                f"{letter}  {replica_type.name}",
                f"{replica_type.accelerators} x {replica_type.offer.accelerator}",
                f"{count}",
                f"{count * replica_type.replicas_per_instance}",
                f"{count * replica_type.cost_per_h:,.2f}",
                f"{plan.load[r]:.0%}",
                tables.serves(plan, r),
            )
        )
        entry = study.legend.find(r)
        chips.append(entry.color if entry else "")
    head = ("Replica type", "Accelerators per instance", "Instances", "Replicas", "USD/h", "Load", "Serves")
    caption = "What to rent. Load: share of the replicas' capacity that the traffic uses."
    left_out = html.bullets(plan.unservable)
    caption = f"{caption} {tables.word_on_pools(plan)}".strip()
    return html.folding_table(head, rows, caption=caption, chips=chips) + (
        f"<h3>Left out</h3>{left_out}" if plan.unservable else ""
    )


def _routing_grid(plan: Plan) -> str:
    """Where each size goes, as letters, with percentages if a size is split."""
    workload = plan.workload
    rows = np.flatnonzero(workload.request_rate.sum(axis=1)).tolist()
    columns = np.flatnonzero(workload.request_rate.sum(axis=0)).tolist()
    edge = workload.buckets.edge_label
    head = ["Input up to \\ output up to", *(edge("output", o) for o in columns)]
    grid = [[edge("input", i), *(_route(plan, i, o) for o in columns)] for i in rows]
    caption = "Where each request size goes: the letters of the mix; a dot where there is no traffic."
    content = html.folding_table(head, grid, caption=caption)
    return f'<details class="routes"><summary>The routing grid as a table</summary>{content}</details>'


def _route(plan: Plan, i: int, o: int) -> str:
    if plan.workload.request_rate[i, o] == 0:
        return "."
    shares = [
        (float(plan.share[r, i, o]), letter)
        for r, letter in zip(words.used_types(plan), tables.letters(plan), strict=False)
        if plan.share[r, i, o] > tables.SHOWN_SHARE
    ]
    if len(shares) == 1 and shares[0][0] > 1 - tables.SHOWN_SHARE:
        return shares[0][1]
    return " ".join(f"{letter} {share:.0%}" for share, letter in sorted(shares, reverse=True)) or "left out"


def _singles_table(plan: Plan) -> str:
    """Cost of each type alone, or why it is infeasible; all types."""
    able = sorted((b.cost_per_h, name, b) for name, b in plan.single_type.items() if b.cost_per_h is not None)
    rows = [
        (name, f"{b.instances}", f"{cost:,.2f}", f"{cost / tables.mix_per_h(plan) - 1:+.1%}", "")
        for cost, name, b in able
    ]
    rows += [(name, "-", "-", "-", b.reason) for name, b in plan.single_type.items() if b.cost_per_h is None]
    head = ("Replica type", "Instances", "USD/h", tables.against(plan), "Why infeasible")
    mix = (
        f", compared with the cheapest mix by closed form ({usd(tables.mix_per_h(plan))}/h)" if plan.certificate else ""
    )
    return html.folding_table(
        head, rows, caption=f"The cheapest fleet of each type alone by closed form, under the same settings{mix}."
    )


def types_table(study: Study) -> str:
    """The types with a color, with price, source and date; and a note on the others."""
    rows = []
    for entry in study.legend.entries:
        replica_type = study.profile.replica_types[entry.r]
        offer = replica_type.offer
        rows.append(
            (
                f"{entry.letter}  {entry.label}",
                f"{replica_type.replicas_per_instance} x ({replica_type.layout.accelerators} x {offer.accelerator})",
                f"{replica_type.cost_per_h:,.3f}",
                f"{replica_type.cost_per_h / replica_type.replicas_per_instance:,.3f}",
                f"{offer.market}, {offer.seen.isoformat() if offer.seen else 'undated'}",
                offer.source or "not named",
            )
        )
    head = ("Replica type", "Replicas per instance", "USD/h", "USD/h per replica", "Price seen", "Source")
    place = f" of {study.legend.place}" if study.legend.place else ""
    caption = f"Each type{place} keeps its letter and color on the whole page."
    chips = [entry.color for entry in study.legend.entries]
    return html.folding_table(head, rows, caption=caption, chips=chips) + html.paragraph(_selection(study), "dim")


def _selection(study: Study) -> str:
    compared, total = len(study.legend.compared), sum(not one.pool for one in study.profile.replica_types)
    uncolored = compared - len(study.legend.of_compared)
    text = f"The plan chose among {total} replica types."
    if study.legend.left_out:
        text += (
            f" The pictures by request size compare {compared} of them: the others are excluded, serve nothing within "
            "the SLO, or are too expensive: one instance costs more than the whole mix, or the same accelerator is "
            "offered for no more per replica."
        )
    if study.options.confidence is not None:
        text += (
            f" The plan uses rates that hold with {study.options.confidence:.0%} confidence; pictures by request "
            "size show the middle of the estimates."
        )
    if uncolored > 0:
        text += f" {uncolored} of these {'is' if uncolored == 1 else 'are'} drawn in gray, marked *."
    return text


def warnings_section(plan: Plan) -> str:
    """Cautions, one line each."""
    if not plan.cautions:
        return ""
    return html.section("Warnings", html.bullets((str(caution) for caution in plan.cautions), "warnings"))


def no_sweeps(study: Study) -> str:
    """Why there are no pictures of other limits."""
    slo = study.profile.slo
    if slo is not None and not slo.has_closed_form:
        why = f"rates under a {slo.statistic} are simulated, so a dozen limits would take minutes"
    elif slo is None:
        why = "the profile was given, not estimated, and it names no SLO"
    else:
        why = "the profile was given, not estimated, and it is valid for one SLO only"
    return html.paragraph(f"Other limits on latency are left out: {why}.", "dim")


def assumptions_section(study: Study) -> str:
    """What the answer is based on, with sources and dates."""
    plan, profile, workload = study.plan, study.profile, study.workload
    dates = sorted(t.offer.seen for t in profile.replica_types if t.offer.seen)
    span = " to ".join(dict.fromkeys(day.isoformat() for day in (dates[0], dates[-1]))) if dates else ""
    seen = f"seen {span}" if dates else "without dates"
    sources = sorted({_site(t.offer.source) for t in profile.replica_types if t.offer.source})
    counted = count_of(workload.requests, "request") if workload.requests else ""
    counted = f"; {counted} observed" if counted and counted not in workload.source else ""
    failed = f"; {count_of(workload.failed_requests, 'failed row')} left out" if workload.failed_requests else ""
    types = count_of(len(profile.replica_types), "replica type")
    shares = (
        "fractional routing" if plan.options.slices is None else f"{count_of(plan.options.slices, 'slice')} per bucket"
    )
    items = [
        f"Model: {plan.model or 'not named'}",
        f"SLO: {plan.slo or 'not named'}",
        f"Traffic: {significant(workload.total_rate, 4)} requests/s; "
        f"{workload.source or 'source not named'}{counted}{failed}",
        f"Capacities: {profile.source or 'source not named'}",
        f"Prices: {types}, {seen}; {', '.join(sources) or 'source not named'}",
        f"Plan: {_proven(plan, shares)}",
        "A type's load is the sum of the loads of its request sizes (Mélange, arXiv 2404.14527, section 5.4)",
    ]
    return html.section("Assumptions", html.bullets(items))


def _proven(plan: Plan, shares: str) -> str:
    """Settings of the plan, and the proof of its cost."""
    if plan.certificate is not None:
        return f"headroom set by the simulation, {shares}; pictures at other rates and limits are not certified"
    return f"headroom {plan.options.headroom:.0%}, {shares}, status {plan.status}, gap {plan.gap:.2%}"


def _site(source: str) -> str:
    """The host of a URL; other sources unchanged."""
    found = re.match(r"https?://([^/]+)", source)
    return found[1] if found else source
