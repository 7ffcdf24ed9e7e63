"""A service and its variants side by side, and changes that would save a share of its cost, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from melange.present.terminal.layout import LEAST_SHOWN, table_of, titled
from melange.units import percent, significant

if TYPE_CHECKING:
    from melange.service.relax import Relaxation
    from melange.service.what_if import Answer

# Longest label that stays on one line [characters]: longer ones leave too little space for reasons. Chosen by judgment.
_WHOLE_LABEL = 24


def side_by_side(answers: Sequence[Answer], kind: str) -> RenderableType:
    """Cost, change, served requests, attainment and fleet of each; all are compared with the first."""
    base = answers[0].cost_per_h
    table = _table("", "USD/h", "Change", answers)
    for place, one in enumerate(answers):
        cost, change = _cost(one), _change(one, base) if place else ""
        table.add_row(one.variant.label, cost, change, *_held(one, answers), _fleet(one, answers))
    table.columns[0].no_wrap = max(len(one.variant.label) for one in answers) <= _WHOLE_LABEL
    return titled(f"What if ({kind})", table)


def relaxed(found: Sequence[Relaxation], wanted: float, kind: str) -> RenderableType:
    """The changes that save enough, each the smallest of its kind; then the largest savings of the other kinds."""
    parts: list[RenderableType] = []
    enough = [one for one in found if one.is_enough]
    others = [one for one in found if not one.is_enough and one.saved_fraction >= LEAST_SHOWN]
    nothing = [one.answer.variant.label for one in found if not one.is_enough and one.saved_fraction < LEAST_SHOWN]
    title = f"What would save {percent(wanted, 0)} ({kind})"
    if enough:
        parts.append(titled(f"{title}: any one of these", _changes(enough, found)))
    else:
        parts.append(titled(title, Text("No single change that was tried does.")))
    if others:
        parts += [Text(""), titled("Too small on its own", _changes(others, found))]
    if nothing:
        parts += [Text(""), Text(f"No saving: {'; '.join(nothing)}.")]
    return Group(*parts)


def _changes(found: Sequence[Relaxation], every: Sequence[Relaxation]) -> RenderableType:
    answers, compared = [one.answer for one in found], [one.answer for one in every]
    table = _table("Change", "USD/h", "Saves", answers)
    for one in found:
        cost, saved = _cost(one.answer), percent(one.saved_fraction)
        table.add_row(one.answer.variant.label, cost, saved, *_held(one.answer, answers), _fleet(one.answer, compared))
    return table


def _table(first: str, second: str, third: str, answers: Sequence[Answer]) -> Table:
    """Columns: what is served if a budget leaves requests out, attainment of simulations, and minimal emissions."""
    shown = ["Served"] * _is_in_part(answers) + ["Met SLO"] * _is_simulated(answers)
    shown += ["kg CO2e/h"] * _is_by_carbon(answers)
    table = table_of(first, second, third, *shown, "Fleet")
    for column in range(1, 3 + len(shown)):
        table.columns[column].justify = "right"
    return table


def _is_in_part(answers: Sequence[Answer]) -> bool:
    return any(one.served_fraction is not None and one.served_fraction < 1 for one in answers)


def _is_simulated(answers: Sequence[Answer]) -> bool:
    return any(one.plan is not None and one.plan.attainment is not None for one in answers)


def _is_by_carbon(answers: Sequence[Answer]) -> bool:
    return any(one.plan is not None and one.plan.least_carbon is not None for one in answers)


def _held(one: Answer, answers: Sequence[Answer]) -> tuple[str, ...]:
    cells: tuple[str, ...] = ()
    if _is_in_part(answers):
        cells = ("-" if one.served_fraction is None else percent(one.served_fraction),)
    held = None if one.plan is None else one.plan.attainment
    if _is_simulated(answers):
        cells = (*cells, "-" if held is None else percent(held, 2))
    if not _is_by_carbon(answers):
        return cells
    return (*cells, "-" if one.carbon_kg_per_h is None else significant(one.carbon_kg_per_h, 3))


def _cost(one: Answer) -> str:
    return "-" if one.cost_per_h is None else f"{one.cost_per_h:,.2f}"


def _change(one: Answer, base: float | None) -> str:
    return "-" if one.cost_per_h is None or not base else f"{one.cost_per_h / base - 1:+.1%}"


def _fleet(one: Answer, answers: Sequence[Answer]) -> str:
    """The instances; with provider and region if not all compared fleets are in the same place."""
    if one.plan is None:
        return one.reason
    places = {name.rpartition("/")[0] for answer in answers for name in answer.fleet}
    names = {name: name if len(places) > 1 else name.rpartition("/")[2] for name in one.fleet}
    return ", ".join(f"{count} x {names[name]}" for name, count in one.fleet.items())
