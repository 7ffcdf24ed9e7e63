"""Parts of the page's tabs: variants side by side, and pinned plans side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from melange.files import Json
from melange.present.pages.html import folding_table, paragraph
from melange.units import H_PER_MONTH, percent

_OF_SAVINGS = ("Change", "USD/h", "Saves", "Enough", "Met the SLO", "Fleet")
# Smaller savings would be shown as 0 %.
_LEAST_SAVED = 5e-4


def what_if_html(found: Json) -> str:
    """Variants beside the unchanged service, and changes that would save the wanted share."""
    answers, kind = found["answers"], "simulated" if found["is_simulated"] else "by closed form"
    base = answers[0]["cost_per_h"]
    is_in_part = any((one["served_fraction"] or 1) < 1 for one in answers)
    rows = [
        (
            one["label"],
            _cost(one),
            "" if one is answers[0] else _change(one, base),
            *((percent(one["served_fraction"] or 0),) if is_in_part else ()),
            _held(one),
            _fleet(one),
        )
        for one in answers
    ]
    head = ("Assumption", "USD/h", "Change", *(("Served",) if is_in_part else ()), "Met the SLO", "Fleet")
    parts = [folding_table(head, rows, caption=f"The service and its variants, {kind}")]
    relaxed = found["relaxations"]
    if relaxed:
        savings = [
            (
                one["label"],
                _cost(one),
                percent(one["saved_fraction"]) if one["saved_fraction"] >= _LEAST_SAVED else "nothing",
                "yes" if one["is_enough"] else "no",
                _held(one),
                _fleet(one),
            )
            for one in relaxed
        ]
        caption = (
            f"What would save this much, {kind}: the smallest sufficient change of each kind, or the largest tried"
        )
        parts.append(folding_table(_OF_SAVINGS, savings, caption=caption))
    return "".join(parts)


def pinned_html(summaries: Sequence[tuple[str, Mapping[str, object]]]) -> str:
    """Pinned plans and the current plan as columns, each with its label."""
    if len(summaries) < 2:
        return paragraph("Pin a plan to compare it with others; up to four can be pinned.", "dim")
    rows = [
        ("USD per hour", [_number(one["cost_per_h"]) for _, one in summaries]),
        ("USD per month", [_number(one["cost_per_h"], H_PER_MONTH, 0) for _, one in summaries]),
        ("USD per million tokens", [_number(one["usd_per_mtok"], digits=3) for _, one in summaries]),
        ("Met the SLO", [_held(one) for _, one in summaries]),
        ("Basis", [str(one["kind"]) for _, one in summaries]),
        ("Fleet", [_fleet(one) for _, one in summaries]),
    ]
    head = ("", *(label for label, _ in summaries))
    return folding_table(head, [(name, *cells) for name, cells in rows], caption="Pinned plans side by side")


def label_of(query: Sequence[tuple[str, str]]) -> str:
    """The choices of a state, in a few words."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in query) or "as in the file"


def _number(value: object, factor: float = 1.0, digits: int = 2) -> str:
    return f"{value * factor:,.{digits}f}" if isinstance(value, int | float) else "-"


def _cost(one: Json) -> str:
    return _number(one["cost_per_h"])


def _change(one: Json, base: float | None) -> str:
    return "-" if one["cost_per_h"] is None or not base else f"{one['cost_per_h'] / base - 1:+.1%}"


def _held(one: Mapping[str, object]) -> str:
    held = one.get("attainment")
    return percent(held, 2) if isinstance(held, float) else "-"


def _fleet(one: Mapping[str, object]) -> str:
    counts = one.get("instances")
    if not counts or not isinstance(counts, Mapping):
        return str(one.get("reason") or "-")
    return ", ".join(f"{count} x {name.rpartition('/')[2]}" for name, count in counts.items())
