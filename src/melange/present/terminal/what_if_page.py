"""A service and its variants side by side, and what would save a share of its cost, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from melange.present.terminal.layout import LEAST_SHOWN, table_of, titled
from melange.service.what_if import attainment_of, fleet_of
from melange.units import percent

if TYPE_CHECKING:
    from melange.service.relax import Relaxation
    from melange.service.what_if import Answer


def side_by_side(answers: Sequence[Answer], kind: str) -> RenderableType:
    """Cost, change, attainment and fleet of each; the first is what the others are compared with."""
    base = answers[0].cost_per_h
    table = table_of("", "USD/h", "Change", "Met SLO", "Fleet")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    for place, one in enumerate(answers):
        table.add_row(one.variant.label, *_figures(one, base if place else None), _fleet(one))
    return titled(f"What if ({kind})", table)


def relaxed(found: Sequence[Relaxation], wanted: float, kind: str) -> RenderableType:
    """The changes that save enough, each the smallest of its kind; then what the others save at most."""
    parts: list[RenderableType] = []
    enough = [one for one in found if one.is_enough]
    others = [one for one in found if not one.is_enough and one.saved_fraction >= LEAST_SHOWN]
    nothing = [one.answer.variant.label for one in found if not one.is_enough and one.saved_fraction < LEAST_SHOWN]
    title = f"What would save {percent(wanted, 0)} ({kind})"
    if enough:
        parts.append(titled(f"{title}: any one of these", _changes(enough)))
    else:
        parts.append(titled(title, Text("No change that was tried does by itself.")))
    if others:
        parts += [Text(""), titled("Not enough by itself", _changes(others))]
    if nothing:
        parts += [Text(""), Text(f"These save nothing: {'; '.join(nothing)}.")]
    return Group(*parts)


def _changes(found: Sequence[Relaxation]) -> RenderableType:
    table = table_of("Change", "USD/h", "Saves", "Met SLO", "Fleet")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    for one in found:
        cost, _, held = _figures(one.answer, None)
        saved = percent(one.saved_fraction) if one.saved_fraction >= 0 else f"-{percent(-one.saved_fraction)}"
        table.add_row(one.answer.variant.label, cost, saved, held, _fleet(one.answer))
    return table


def _figures(one: Answer, base: float | None) -> tuple[str, str, str]:
    if one.plan is None or one.cost_per_h is None:
        return "-", "-", "-"
    change = "" if base is None or base == 0 else f"{one.cost_per_h / base - 1:+.1%}"
    held = attainment_of(one.plan)
    return f"{one.cost_per_h:,.2f}", change, "-" if held is None else percent(held, 2)


def _fleet(one: Answer) -> str:
    if one.plan is None:
        return one.reason
    return ", ".join(f"{count} x {name.rpartition('/')[2]}" for name, count in fleet_of(one.plan).items())
