"""An answer as HTML: cost, fleet, attainment, routes, changes, and how to compute it elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from melange.errors import InfeasibleError, MelangeError
from melange.files import Json
from melange.present.figures.legend import COLORS, OTHER_COLOR, ink_on
from melange.present.pages.html import bullets, escape, folding_table, paragraph
from melange.present.terminal import plan_tables as tables
from melange.present.terminal import plan_words as words
from melange.present.terminal.layout import share_text, usd
from melange.units import H_PER_MONTH, count_of, percent, significant

if TYPE_CHECKING:
    from melange.plan.plan import Plan

_BADGES = {
    "certified": "Certified: every request simulated",
    "simulated": "Simulated once, as it is",
    "closed form": "Closed form: nothing is simulated yet",
}


# Color strength of the size with the fewest requests.
_PALEST = 0.3
# Background colors that are mixed in, for the page's two color schemes; the same as in its style.
_PAPER = {"light": "#ffffff", "dark": "#15181c"}
# Number of reasons shown before the rest is counted.
_MOST_REASONS = 12


def summary_of(plan: Plan) -> Json:
    """The values of a plan that comparisons need."""
    per_mtok = plan.cost_per_mtok
    return {
        "kind": plan.kind,
        "holds": plan.holds,
        "cost_per_h": plan.cost_per_h,
        "usd_per_mtok": per_mtok["total"] if per_mtok else None,
        "attainment": plan.attainment,
        "low": plan.low,
        "instances": {name: count for name, count in plan.instances_by_name.items() if count},
        "sentence": words.plan_sentence(plan),
        "reason": "",
    }


def answer_html(plan: Plan, pinned: Json | None) -> str:
    """The answer, compared with the summary of a pinned plan if there is one."""
    parts = [
        f'<p class="badge" data-kind="{escape(plan.kind)}">{escape(_badge(plan))}</p>',
        _figures(plan),
        "" if pinned is None else _changes(plan, pinned),
        _fleet(plan),
        _grid(plan),
        paragraph(words.proof(plan).replace("\n", " "), "dim"),
        _warnings(plan),
    ]
    return "".join(parts)


def _badge(plan: Plan) -> str:
    if plan.not_simulated:
        return f"Closed form: {plan.not_simulated}"
    return _BADGES[plan.kind] + (" - but the SLO is not shown to hold" if plan.holds is False else "")


def _figures(plan: Plan) -> str:
    """The main figures for a decision."""
    cost, per_mtok = plan.cost_per_h, plan.cost_per_mtok
    pairs = [("per hour", usd(cost)), ("per month", f"{cost * H_PER_MONTH:,.0f} USD")]
    if per_mtok:
        pairs.append(("per million tokens", usd(per_mtok["total"])))
        pairs.append(("per million output tokens", usd(per_mtok["output"])))
    pairs.append(_attained(plan))
    if plan.served_fraction < 1:
        pairs.append(("of the requests are served", percent(plan.served_fraction)))
    items = "".join(
        f'<div class="figure"><dd>{escape(value)}</dd><dt>{escape(name)}</dt></div>' for name, value in pairs
    )
    return f'<dl class="figures">{items}</dl>'


def _attained(plan: Plan) -> tuple[str, str]:
    """Label and value of the attainment, with the lower end of its interval."""
    target = "" if plan.target is None else f", target {share_text(plan.target)}"
    if plan.attainment is None or plan.low is None:
        return f"of requests within the SLO{target}", "not simulated"
    low = f"at least {percent(plan.low, 2)} (95% interval)"
    return f"of requests within the SLO, {low}{target}", percent(plan.attainment, 2)


def _changes(plan: Plan, pinned: Json) -> str:
    """Instances to add and to remove, and the change in cost."""
    before, after = pinned["instances"], plan.instances_by_name
    names = dict.fromkeys((*after, *before))
    changes = [(after.get(name, 0) - before.get(name, 0), name) for name in names]
    listed = ", ".join(f"{change:+d} x {name.rpartition('/')[2]}" for change, name in changes if change)
    if pinned["cost_per_h"] is None:
        return paragraph(f"Against {pinned['label']}: it has no plan.", "changes")
    more = plan.cost_per_h - pinned["cost_per_h"]
    share = more / pinned["cost_per_h"]
    said = f"Against {pinned['label']} ({pinned['kind']}): {listed or 'the same fleet'}"
    return paragraph(f"{said}; {more:+,.2f} USD/h ({share:+.1%}).", "changes")


def _color(place: int) -> str:
    return COLORS[place] if place < len(COLORS) else OTHER_COLOR


def _fleet(plan: Plan) -> str:
    rows, chips = [], []
    for k, (letter, r) in enumerate(zip(tables.letters(plan), words.used_types(plan), strict=False)):
        one, count = plan.replica_types[r], int(plan.instances[r])
        place, _, name = one.name.rpartition("/")
        offered = f"{one.offer.accelerators} x {one.offer.accelerator}, {one.offer.market}"
        rows.append(
            (
                f"{letter}  {name}",
                f"{offered}, {place}" if place else offered,
                f"{count}",
                f"{count * one.replicas_per_instance}",
                f"{count * one.cost_per_h:,.2f}",
                f"{plan.load[r]:.0%}",
                tables.serves(plan, r),
            )
        )
        chips.append(_color(k))
    head = ("Replica type", "Each instance", "Instances", "Replicas", "USD/h", "Load", "Serves")
    left_out = f"<h3>Left out</h3>{bullets(plan.unservable)}" if plan.unservable else ""
    caption = f"The fleet. {tables.word_on_pools(plan)}".strip()
    return f'<div class="fleet">{folding_table(head, rows, caption=caption, chips=chips)}</div>{left_out}'


def _grid(plan: Plan) -> str:
    """Where each request size goes: a cell with the letters and colors of its types."""
    workload, used, letters = plan.workload, words.used_types(plan), tables.letters(plan)
    rows = np.flatnonzero(workload.request_rate.sum(axis=1)).tolist()
    columns = np.flatnonzero(workload.request_rate.sum(axis=0)).tolist()
    edge = workload.buckets.edge_label
    head = "".join(f"<th scope=col>{edge('output', o)}</th>" for o in columns)
    body = []
    for i in rows:
        cells = "".join(_cell(plan, used, letters, i, o) for o in columns)
        body.append(f"<tr><th scope=row>{escape(edge('input', i))}</th>{cells}</tr>")
    about = (
        "Where each request size goes: letters of the fleet, a stronger color means more requests. "
        "Rows: input tokens up to; columns: output tokens up to."
    )
    return (
        f'<p class="dim" id="grid-about">{escape(about)}</p><div class="scroll" tabindex="0" role="group" '
        f'aria-labelledby="grid-about"><table class="grid" aria-labelledby="grid-about"><thead>'
        f"<tr><td></td>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(plan: Plan, used: Sequence[int], letters: Sequence[str], i: int, o: int) -> str:
    rate = plan.workload.request_rate
    if rate[i, o] == 0:
        return "<td></td>"
    found = sorted(
        ((float(plan.share[r, i, o]), place) for place, r in enumerate(used) if place < len(letters)), reverse=True
    )
    shown = [(share, place) for share, place in found if share > tables.SHOWN_SHARE]
    part = rate[i, o] / rate.sum()
    about = ", ".join(f"{share:.0%} to {letters[place]}" for share, place in shown) or "left out"
    title = f"{part:.2%} of requests: {about}"
    if not shown:
        return f'<td title="{escape(title)}">-</td>'
    color = _color(shown[0][1])
    strength = _PALEST + (1 - _PALEST) * float(part / (rate.max() / rate.sum())) ** 0.5
    inks = "".join(f"--on-{name}:{ink_on(_mixed(color, paper, strength))};" for name, paper in _PAPER.items())
    text = "".join(letters[place] for _, place in shown)
    return (
        f'<td class="route" style="--route:{color};{inks}--strength:{strength:.2f}" title="{escape(title)}">'
        f"<b>{escape(text)}</b> <small>{escape(significant(100 * part, 2))}%</small></td>"
    )


def _mixed(color: str, paper: str, strength: float) -> str:
    """A color mixed with the background, as in the page's style.

    >>> _mixed("#0072B2", "#ffffff", 0.5)
    '#80b8d8'
    """
    channels = ((int(color[k : k + 2], 16), int(paper[k : k + 2], 16)) for k in (1, 3, 5))
    return "#" + "".join(f"{round(strength * one + (1 - strength) * other):02x}" for one, other in channels)


def _warnings(plan: Plan) -> str:
    if not plan.cautions:
        return ""
    lines = bullets((str(caution) for caution in plan.cautions), "warnings")
    return f'<details class="more"><summary>{count_of(len(plan.cautions), "warning")}</summary>{lines}</details>'


def no_answer(error: MelangeError) -> Json:
    """An answer that says why there is no plan."""
    reasons = list(error.reasons) if isinstance(error, InfeasibleError) else []
    parts = [
        '<p class="badge" data-kind="none">No plan</p>',
        paragraph(str(error), "fault"),
        bullets(reasons[:_MOST_REASONS], "reasons"),
        paragraph(count_of(len(reasons) - _MOST_REASONS, "more reason")) if len(reasons) > _MOST_REASONS else "",
        paragraph(error.hint, "dim") if error.hint else "",
    ]
    first = str(error).partition("\n")[0]
    summary: dict[str, Any] = {"kind": "no plan", "holds": None, "cost_per_h": None, "usd_per_mtok": None}
    summary |= {"attainment": None, "low": None, "instances": {}, "sentence": f"No plan: {first}", "reason": first}
    return {"html": "".join(parts), "summary": summary}
