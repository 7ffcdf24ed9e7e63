"""The page of a schedule: its cost, the week, what to reserve, the rule, alternatives, and assumptions."""

from __future__ import annotations

from collections.abc import Sequence

from melange.plan.schedule.backtest import RunningCost
from melange.plan.schedule.schedule import Schedule
from melange.present.figures import by_hour
from melange.present.figures.picture import Picture, Variant
from melange.present.pages import html as html
from melange.present.terminal.schedule_page import DEFERRED_COLUMNS, DEFERRED_PLAYED, deferred_played, deferred_rows
from melange.present.terminal.schedule_words import (
    committed_words,
    counted,
    deferred_sentence,
    money,
    proof_sentence,
    rule_sentence,
    schedule_sentence,
    shortage_sentence,
)
from melange.units import H_PER_MONTH, H_PER_WEEK, count_of, percent


def schedule_pictures(schedule: Schedule) -> list[Picture]:
    """The week, and cost against shortage."""
    return [_week(schedule), _frontier(schedule)]


def schedule_html(schedule: Schedule, name: str) -> str:
    """The page as HTML; ``name`` is the file name of the service."""
    pictures = schedule_pictures(schedule)
    title = f"Melange: {name} over time"
    parts = [
        f'<header><p class="brand">{html.escape(title)}</p><h1>{html.escape(schedule_sentence(schedule))}</h1>',
        html.paragraph(
            f"{schedule.model or 'model not named'}; {schedule.slo or 'SLO not named'}; {schedule.source}", "dim"
        ),
        "</header>",
        "<main>",
        *schedule_sections(schedule, pictures),
        "</main>",
    ]
    return html.document(title, parts, pictures)


def schedule_sections(schedule: Schedule, pictures: Sequence[Picture]) -> list[str]:
    """The sections of the page below its header; ``pictures`` is the result of :func:`schedule_pictures`."""
    week, frontier = (html.figure(picture) for picture in pictures)
    return [
        html.section(f"The {schedule.over}", week, _costs(schedule)),
        html.section("What to reserve", _commitments(schedule)),
        html.section(
            "Scaling rule",
            html.paragraph(rule_sentence(schedule)),
            html.paragraph(shortage_sentence(schedule)),
            frontier,
        ),
        _deferred(schedule),
        html.section("Alternatives", _alternatives(schedule), html.paragraph(proof_sentence(schedule))),
        html.section("Simulated, request by request", _played(schedule)) if schedule.played else "",
        html.section("Warnings", html.bullets(map(str, schedule.cautions), "warnings")) if schedule.cautions else "",
        _assumptions(schedule),
    ]


def _week(schedule: Schedule) -> Picture:
    parts = by_hour.stacked(schedule)
    rows = tuple(
        (
            schedule.labels[hour],
            f"{schedule.request_rate[hour]:.4g}",
            f"{schedule.work_per_h[hour]:,.2f}",
            f"{schedule.hour_cost_per_h[hour]:,.2f}",
            *(f"{parts[market][hour]:,.2f}" for market in parts),
            "; ".join(f"{market}: {counted(found)}" for market, found in schedule.instances_at(hour).items() if found),
        )
        for hour in range(len(schedule.labels))
    )
    return Picture(
        name="week",
        about="The fleet of each hour under its load",
        caption=(
            "Each hour's own fleet, planned for its busiest windows: reserved instances run all the time, on-demand "
            "and spot instances beside them. Fleet and load are valued at on-demand prices, so that different types "
            "can be added up; reserved and spot instances cost less in fact. The gap between load and fleet comes "
            "from whole instances; where the base exceeds the load, it is idle."
        ),
        variants=(Variant(label="", figure=by_hour.figure_week(schedule)),),
        header=("Hour", "Requests/s", "Load [USD/h]", "Cost [USD/h]", *(f"{one} [USD/h]" for one in parts), "Fleet"),
        rows=rows,
        min_width=720,
    )


def _frontier(schedule: Schedule) -> Picture:
    return Picture(
        name="frontier",
        about="Cost against shortage",
        caption=(
            "Rules that no other rule beat in the first two thirds of the history, with their results in the last "
            "third. Requests short are those above the fleet's planned capacity (headroom kept free). The fleet for "
            "the peak and the fleets planned hour by hour ran over the whole history, autoscalers over the last third."
        ),
        variants=(Variant(label="", figure=by_hour.figure_frontier(schedule)),),
        header=("Rule", "USD/week", "Requests short", "Windows short"),
        rows=tuple((one.settings.words, *_cells(one.outcome)) for one in schedule.frontier),
    )


def _cells(outcome: RunningCost) -> tuple[str, str, str]:
    return (
        f"{outcome.cost_per_h * H_PER_WEEK:,.0f}",
        percent(outcome.short_fraction, 2),
        percent(outcome.short_windows_fraction),
    )


def _costs(schedule: Schedule) -> str:
    run = schedule.running
    parts = (
        ("Reserved", schedule.reserved_cost_per_h),
        *([("Savings plan", schedule.committed_per_h)] if schedule.savings_plan else []),
        ("On-demand", run.on_demand_per_h),
        ("Spot, and on-demand replacements", run.spot_per_h),
        ("In all", run.cost_per_h),
    )
    rows = [(name, f"{cost * H_PER_WEEK:,.0f}", f"{cost * H_PER_MONTH:,.0f}") for name, cost in parts]
    return html.folding_table(
        ("Part", "USD/week", "USD/month"), rows, caption="Cost of the rule over the whole history"
    )


def _commitments(schedule: Schedule) -> str:
    rows = [
        (
            one.name or "none",
            committed_words(one) if one.name else "-",
            f"{one.cost_per_h * H_PER_WEEK:,.0f}",
            f"{one.break_even_fraction:.0%}" if one.reserved or one.committed_per_h else "-",
            f"{one.at_less_traffic_per_h * H_PER_WEEK:,.0f}",
            f"{one.uncommitted_at_less_per_h * H_PER_WEEK:,.0f}",
            f"{one.upfront_usd:,.0f}" if one.upfront_usd else "-",
        )
        for one in schedule.commitments
    ]
    header = (
        "Commitment",
        "Reserved",
        "USD/week",
        "Pays off from",
        "At -30 %",
        "None reserved",
        "Upfront",
    )
    about = (
        "Pays off from: the share of time it must be in use. At -30 %: USD/week if traffic drops by 30 % "
        "and the commitment stays; none reserved: the same without reservations. Upfront: USD."
    )
    return html.folding_table(header, rows, caption="Each hour's own fleet, with each commitment") + html.paragraph(
        about, "dim"
    )


def _deferred(schedule: Schedule) -> str:
    if schedule.deferred is None:
        return ""
    table = html.folding_table(DEFERRED_COLUMNS, deferred_rows(schedule.deferred), caption="When each class is sent")
    return html.section("Deferred requests", table, html.paragraph(deferred_sentence(schedule)))


def _alternatives(schedule: Schedule) -> str:
    rows = [
        ("This schedule", *_cells(schedule.running), "the whole history"),
        ("This schedule", *_cells(schedule.unseen), "the last third"),
        *((one.name, *_cells(one.outcome), one.note) for one in schedule.alternatives),
    ]
    header = ("Alternative", "USD/week", "Requests short", "Windows short", "Note")
    return html.folding_table(header, rows, caption="Over the same traffic")


def _played(schedule: Schedule) -> str:
    has_waiting = schedule.deferred is not None
    rows = [
        (
            one.label,
            f"{one.load:.2f}",
            percent(one.attainment, 2),
            f"{one.requests:,}",
            *(deferred_played(one) if has_waiting else ()),
            f"{one.started}",
            f"{one.drained}",
            one.words,
        )
        for one in schedule.played
    ]
    header = (
        "Window",
        "Load",
        "Met the SLO",
        "Requests",
        *(DEFERRED_PLAYED if has_waiting else ()),
        "Starts",
        "Drains",
        "What was simulated",
    )
    caption = "Load: share of the planned capacity; above 1 the window is short"
    if has_waiting:
        caption += ". Deferred requests count separately. Alone: the same window without them"
    return html.folding_table(header, rows, caption=caption)


def _assumptions(schedule: Schedule) -> str:
    options = schedule.options
    spot = options.spot
    lines = [
        f"Headroom {percent(schedule.headroom)}; windows of {schedule.window_s:g} s; instances start within "
        f"{options.start_up_s:g} s and are paid from the order, and {options.drain_s:g} s longer when they drain",
        f"Target: at most {percent(options.short_fraction, 2)} of the requests short",
    ]
    if spot is not None:
        lost = (
            f"fleets carry their traffic even without {count_of(spot.spare_pools, 'pool')} of any type; "
            if spot.spare_pools
            else ""
        )
        lines.append(
            f"Spot carries at most {percent(spot.max_share)} of the load, {percent(spot.max_share_per_pool)} in one "
            f"pool, over {count_of(spot.zones, 'zone')}; {lost}each zone has no spot for "
            f"{percent(spot.unavailable_fraction)} of the time, independently and at random; "
            "on-demand instances replace it"
        )
    if schedule.commitment is not None:
        lines.append(
            f"Reserved: {schedule.commitment.name}; {money(schedule.reserved_cost_per_h * H_PER_MONTH)} a month, used "
            "or not"
        )
    if schedule.savings_plan is not None:
        lines.append(
            f"Committed: {schedule.savings_plan.name}; {money(schedule.committed_per_h * H_PER_MONTH)} a month, used "
            f"or not, for {money(schedule.allowance_per_h * H_PER_MONTH)} at on-demand prices"
        )
    return html.section("Assumptions", html.bullets(lines))
