"""A schedule as a page for the terminal."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from melange.plan.schedule.backtest import RunningCost
from melange.plan.schedule.deferred import Deferred
from melange.plan.schedule.schedule import PlayedStretch, Schedule
from melange.present.terminal.layout import cautions, spaced, table_of, titled
from melange.present.terminal.schedule_words import (
    committed_words,
    deferred_sentence,
    money,
    proof_sentence,
    rule_sentence,
    schedule_sentence,
    shortage_sentence,
)
from melange.units import H_PER_MONTH, H_PER_WEEK, S_PER_H, percent, significant
from melange.workload.cycle import WEEK


def schedule_page(schedule: Schedule) -> RenderableType:
    """The whole answer: cost, reservations, the scaling rule, the hours, and comparisons."""
    parts: list[RenderableType] = [
        Text(schedule_sentence(schedule), style="bold"),
        Text(_assumptions(schedule), style="dim"),
        _costs(schedule),
    ]
    if len(schedule.commitments) > 1:
        parts.append(_commitments(schedule))
    parts.append(titled("Scaling rule", Group(Text(rule_sentence(schedule)), Text(shortage_sentence(schedule)))))
    if schedule.deferred is not None:
        parts.append(_deferred(schedule, schedule.deferred))
    if len(schedule.frontier) > 1:
        parts.append(_frontier(schedule))
    parts += [_hours(schedule), _alternatives(schedule), Text(proof_sentence(schedule))]
    if schedule.played:
        parts.append(_played(schedule))
    if schedule.cautions:
        parts.append(cautions(schedule.cautions))
    return Group(*spaced(parts))


def _assumptions(schedule: Schedule) -> str:
    said = [schedule.model or "model not named", schedule.slo or "SLO not named", f"headroom {schedule.headroom:.0%}"]
    said.append(f"start-up {schedule.options.start_up_s:g} s")
    return " | ".join(said) + (f"\nTraffic: {schedule.source}" if schedule.source else "")


def _costs(schedule: Schedule) -> RenderableType:
    table = table_of("Part", "USD/week", "USD/month")
    for column in (1, 2):
        table.columns[column].justify = "right"
    run = schedule.running
    plan = [("savings plan", schedule.committed_per_h)] if schedule.savings_plan else []
    for name, cost in (
        ("reserved", schedule.reserved_cost_per_h),
        *plan,
        ("on-demand", run.on_demand_per_h),
        ("spot, and on-demand replacements", run.spot_per_h),
        ("total", run.cost_per_h),
    ):
        table.add_row(name, f"{cost * H_PER_WEEK:,.0f}", f"{cost * H_PER_MONTH:,.0f}")
    return titled("Cost of the rule over the whole history", table)


def _commitments(schedule: Schedule) -> RenderableType:
    """What each commitment would reserve and cost, and its risk."""
    table = table_of("Commitment", "USD/week", "Pays off from", "USD/week at -30%", "upfront USD")
    for column in (1, 2, 3, 4):
        table.columns[column].justify = "right"
    for one in schedule.commitments:
        table.add_row(
            one.name or "none",
            f"{one.cost_per_h * H_PER_WEEK:,.0f}",
            f"{one.break_even_fraction:.0%} in use" if one.reserved or one.committed_per_h else "-",
            f"{one.at_less_traffic_per_h * H_PER_WEEK:,.0f}",
            f"{one.upfront_usd:,.0f}" if one.upfront_usd else "-",
        )
    chosen = next((one for one in schedule.commitments if one.name and one.name == schedule.commitment_name), None)
    lines: list[RenderableType] = [table]
    if chosen is not None:
        more = chosen.at_less_traffic_per_h - chosen.uncommitted_at_less_per_h
        word = "more" if more > 0 else "less"
        lines.append(
            Text(
                f"If traffic dropped by 30%, the fleet would cost {money(abs(more) * H_PER_WEEK)} a week {word} "
                f"with {committed_words(chosen)} than with nothing reserved.",
                style="dim",
            )
        )
    return titled("Commitments (fleets planned hour by hour)", Group(*lines))


DEFERRED_COLUMNS = ("Class", "Deadline", "Requests/s", "Sent at", "Mean wait", "Late")


def deferred_rows(deferred: Deferred) -> list[tuple[str, ...]]:
    """One row for each class that may wait, under :data:`DEFERRED_COLUMNS`."""
    return [
        (
            one.name,
            f"{significant(one.deadline_s / S_PER_H)} h",
            significant(float(one.arrival_rate.mean()), 4),
            "-".join(significant(float(rate), 4) for rate in (one.sending_rate.min(), one.sending_rate.max())),
            f"{significant(round(one.mean_wait_s) / S_PER_H)} h",
            percent(one.late_fraction, 2),
        )
        for one in deferred.classes
    ]


def _deferred(schedule: Schedule, deferred: Deferred) -> RenderableType:
    table = table_of(*DEFERRED_COLUMNS)
    for column in range(1, len(DEFERRED_COLUMNS)):
        table.columns[column].justify = "right"
    for row in deferred_rows(deferred):
        table.add_row(*row)
    return titled("Deferred requests", Group(table, Text(deferred_sentence(schedule), style="dim")))


def _frontier(schedule: Schedule) -> RenderableType:
    table = table_of("USD/week", "Requests short", "Windows short", "Rule")
    for column in (0, 1, 2):
        table.columns[column].justify = "right"
    for point in schedule.frontier:
        table.add_row(*_cells(point.outcome), point.settings.words)
    return titled("Cost against shortage, in the last third of the history", table)


def _cells(outcome: RunningCost) -> tuple[str, str, str]:
    return (
        f"{outcome.cost_per_h * H_PER_WEEK:,.0f}",
        percent(outcome.short_fraction, 2),
        percent(outcome.short_windows_fraction),
    )


def _alternatives(schedule: Schedule) -> RenderableType:
    table = table_of("Alternative", "USD/week", "Requests short", "Windows short", "")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    table.add_row("this schedule", *_cells(schedule.running), "the whole history")
    table.add_row("", *_cells(schedule.unseen), "the last third")
    for one in schedule.alternatives:
        table.add_row(one.name, *_cells(one.outcome), one.note)
    return titled("Alternatives", table)


def _hours(schedule: Schedule) -> RenderableType:
    """Instances of each day: reserved ones, the fewest and most in addition, and those of each hour as a digit."""
    beside = (schedule.on_demand + schedule.spot).sum(axis=1).reshape(-1, 24)
    cost = schedule.hour_cost_per_h.reshape(-1, 24)
    table = table_of("", "00    06    12    18", "On top of reserved", "USD/h", "Peak rate [1/s]")
    for column in (2, 3, 4):
        table.columns[column].justify = "right"
    most = max(float(cost.max()), 1e-9)
    rates = schedule.request_rate.reshape(-1, 24)
    for day in range(len(beside)):
        label = schedule.labels[24 * day].rpartition(" ")[0] if schedule.over == WEEK else "a day"
        digits = "".join(str(min(9, int(10 * value / most))) for value in cost[day])
        table.add_row(
            label,
            digits,
            f"{int(beside[day].min())}-{int(beside[day].max())}",
            f"{cost[day].min():,.0f}-{cost[day].max():,.0f}"
            if most >= 10
            else f"{cost[day].min():.2f}-{cost[day].max():.2f}",
            f"{rates[day].max():.4g}",
        )
    note = "Each digit is an hour: its cost in tenths of the most expensive hour. Fleets of every hour: --json."
    return titled(
        f"Hours of a {schedule.over}, each planned for its own traffic", Group(table, Text(note, style="dim"))
    )


# Columns for requests that may wait, if windows were simulated with them.
DEFERRED_PLAYED = ("Alone", "May wait", "Of those met")


def deferred_played(one: PlayedStretch) -> tuple[str, str, str]:
    """The row of a window under :data:`DEFERRED_PLAYED`."""
    if one.deferred_attainment is None or one.attainment_alone is None:
        return ("-", "-", "-")
    return (percent(one.attainment_alone, 2), f"{one.deferred_requests:,}", percent(one.deferred_attainment, 2))


def _played(schedule: Schedule) -> RenderableType:
    has_waiting = schedule.deferred is not None
    more = DEFERRED_PLAYED if has_waiting else ()
    table = table_of("Window", "Load", "Met the SLO", *more, "Starts", "Drains", "What was simulated")
    for column in range(1, 5 + len(more)):
        table.columns[column].justify = "right"
    for one in schedule.played:
        table.add_row(
            one.label,
            f"{one.load:.2f}",
            percent(one.attainment, 2),
            *(deferred_played(one) if has_waiting else ()),
            f"{one.started}",
            f"{one.drained}",
            one.words,
        )
    drawn = [one for one in schedule.played if "drawn at random" in one.words]
    words = "Load: share of the fleet's planned capacity that is used; above 1 the window is short."
    if has_waiting:
        words += " Deferred requests count separately. Alone: the same window without them."
    if drawn:
        mean = float(np.average([one.attainment for one in drawn], weights=[one.requests for one in drawn]))
        words += f" Windows drawn at random: {percent(mean, 2)} of their requests met the SLO."
    return titled("Simulated, request by request", Group(table, Text(words, style="dim")))
