"""A plan as a page for the terminal.

The parts are in order of importance: the answer, the mix, the alternatives with only one type, the proof, and the
warnings.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from melange.plan.plan import Plan
from melange.plan.switching import SwitchDecision
from melange.present.terminal.class_table import classes_part
from melange.present.terminal.engine_words import carbon_line, energy_line, engine_lines
from melange.present.terminal.layout import (
    MAX_ROWS,
    cautions,
    edge,
    listed,
    share_text,
    spaced,
    table_of,
    titled,
    usd,
    with_whole_names,
)
from melange.present.terminal.plan_words import changes_sentence, decision_sentence, plan_sentence, proof, used_types
from melange.present.terminal.suggestions import uncertainty_part
from melange.profile.profile import LONG_POOL
from melange.units import count_of, percent, significant
from melange.workload.request_classes import rate_by_class
from melange.workload.workload import Mask, Workload

# A smaller share of a size would be shown as 0 %; then the type gets no letter in the routes.
SHOWN_SHARE = 5e-3


def plan_page(plan: Plan, incumbent: Plan | None = None, decision: SwitchDecision | None = None) -> RenderableType:
    """The whole answer, in order; with the changes from the current plan, if there is one."""
    parts: list[RenderableType] = [
        Text(plan_sentence(plan), style="bold"),
        *([Text(changes_sentence(plan, incumbent))] if incumbent is not None else []),
        *([Text(decision_sentence(decision))] if decision is not None else []),
        Text(assumptions(plan), style="dim"),
        mix_part(plan),
        *classes_of(plan),
        routes_part(plan),
        _single_types(plan),
        Text(proof(plan)),
    ]
    if (uncertainty := uncertainty_part(plan)) is not None:
        parts.append(uncertainty)
    if plan.unservable:
        parts.append(listed("Left out", plan.unservable))
    if plan.cautions:
        parts.append(cautions(plan.cautions))
    return Group(*spaced(parts))


def classes_of(plan: Plan) -> list[RenderableType]:
    """Attainment of each class of requests; empty without classes or simulation."""
    if plan.certificate is None or not plan.certificate.classes or plan.slo is None:
        return []
    return [classes_part(plan.certificate.classes, plan.slo, rate_by_class(plan.workload))]


def assumptions(plan: Plan) -> str:
    """Model, SLO, traffic, settings of the plan, and settings of the engines, one line each."""
    workload = plan.workload
    parts = [plan.model or "model not named", str(plan.slo) if plan.slo else "SLO not named"]
    parts.append(f"{significant(workload.total_rate, 4)} requests/s")
    if not workload.buckets.is_ordinal:
        served = workload.request_rate.sum()
        mean_in, mean_out = workload.input_token_rate / served, workload.output_token_rate / served
        parts.append(f"mean {mean_in:,.0f} tokens in and {mean_out:,.0f} out")
    parts.append("headroom set by the simulation" if plan.certificate else f"headroom {plan.options.headroom:.0%}")
    parts.append(
        "fractional routing" if plan.options.slices is None else f"{count_of(plan.options.slices, 'slice')} per bucket"
    )
    parts += _spares(plan)
    told = [" | ".join(part for part in parts if part)]
    told += [f"Traffic: {workload.source}"] if workload.source else []
    return "\n".join([*told, *engine_lines(plan), *energy_line(plan), *carbon_line(plan)])


def _spares(plan: Plan) -> list[str]:
    """Spare replicas that the options ask for, in words."""
    each, total = plan.options.spare_replicas, plan.options.spare_total_replicas
    if isinstance(each, Mapping):
        said = [f"spare replicas: {', '.join(f'{count} x {name}' for name, count in each.items())}"] if each else []
    else:
        said = [f"{each} spare replica{'s' if each > 1 else ''} per type"] if each else []
    return said + ([f"{total} spare replica{'s' if total > 1 else ''} in total"] if total else [])


def mix_part(plan: Plan) -> RenderableType:
    """The fleet: replicas, instances, cost and served traffic of each used type."""
    table = table_of("Route", "Replica type", "Accelerators", "Replicas", "Instances", "USD/h", "Load", "Serves")
    for column in (3, 4, 5, 6):
        table.columns[column].justify = "right"
    for letter, r in zip(letters(plan), used_types(plan), strict=False):
        replica_type = plan.replica_types[r]
        instances = int(plan.instances[r])
        shards = replica_type.layout.accelerators
        per_replica = f"{shards} x " if shards > 1 else ""
        machines = f" x {replica_type.machines}" if replica_type.machines > 1 else ""
        table.add_row(
            letter,
            replica_type.name,
            f"{per_replica}{replica_type.offer.accelerator}",
            f"{instances * replica_type.replicas_per_instance}",
            f"{instances}{machines}",
            f"{instances * replica_type.cost_per_h:,.2f}",
            f"{plan.load[r]:.0%}",
            serves(plan, r),
        )
    word = word_on_pools(plan)
    return titled("The mix", Group(table, Text(word)) if word else table)


def word_on_pools(plan: Plan) -> str:
    """The purpose of a second pool of a type; empty if the plan has none."""
    if not any(plan.replica_types[r].pool == LONG_POOL for r in used_types(plan)):
        return ""
    return "long: a second pool of the same replica type, for long prompts, so that they do not delay short ones."


def serves(plan: Plan, r: int) -> str:
    """The share of all requests that a type takes, and the range of the sizes for which the routes name it."""
    taken = plan.share[r] * plan.workload.request_rate
    if taken.sum() == 0:
        return "spare capacity only"
    text = f"{taken.sum() / plan.workload.total_rate:.1%} of requests"
    if plan.workload.buckets.is_ordinal:
        return text
    buckets = plan.workload.buckets
    by_class = taken.sum(axis=1).reshape(-1, len(buckets.input_edges))
    if (
        0
        < len(mine := [name for name, part in zip(buckets.classes, by_class, strict=False) if part.any()])
        < len(buckets.classes)
    ):
        text = f"{text} ({', '.join(mine)})"
    routed = (taken > 0) & (plan.share[r] > SHOWN_SHARE)
    if not routed.any():
        return text
    inputs = _span(routed.reshape(len(by_class), -1, routed.shape[1]).any(axis=(0, 2)), buckets.input_edges)
    outputs = _span(routed.any(axis=0), buckets.output_edges)
    return f"{text}: {inputs} in, {outputs} out"


def _span(served: Mask, edges: Sequence[int]) -> str:
    """The range from the smallest to the largest served size."""
    places = np.flatnonzero(served)
    first, last = int(places[0]), int(places[-1])
    return f"{(edges[first - 1] if first else 0) + 1:,}-{edges[last]:,}"


def routes_part(plan: Plan) -> RenderableType:
    """The type that each request size goes to: a letter per cell, two if a bucket is split."""
    workload, marks = plan.workload, letters(plan)
    used = used_types(plan)
    rows = np.flatnonzero(workload.request_rate.sum(axis=1))
    columns = np.flatnonzero(workload.request_rate.sum(axis=0))
    table = Table(box=None, padding=(0, 1))
    longest = max((len(edge(workload.buckets, "input", int(i))) for i in rows), default=0)
    table.add_column(justify="right", style="dim", min_width=longest)
    for o in columns:
        heading = edge(workload.buckets, "output", int(o))
        table.add_column(heading, justify="center", header_style="dim", overflow="fold")
    for i in rows:
        cells = []
        for o in columns:
            shares = sorted(
                ((plan.share[r, i, o], letter) for r, letter in zip(used, marks, strict=False)), reverse=True
            )
            cells.append(
                "".join(letter for share, letter in shares if share > SHOWN_SHARE) or _empty(workload, int(i), int(o))
            )
        table.add_row(edge(workload.buckets, "input", int(i)), *cells)
    return titled("Where each size goes (rows: input tokens up to, columns: output tokens up to)", table)


def _empty(workload: Workload, i: int, o: int) -> str:
    return "-" if workload.request_rate[i, o] > 0 else "."


def mix_per_h(plan: Plan) -> float:
    """Cost of the mix by closed form [USD/h], for comparison with single types by closed form."""
    return plan.cost_per_h if plan.certificate is None else plan.certificate.cost_before_per_h


def singles_title(plan: Plan) -> str:
    """Title of the table of single types: how their costs were computed, and the cost that they are compared with."""
    if plan.certificate is None:
        return "With one type only (closed form)"
    kind = f"by closed form for {share_text(plan.certificate.target)} (not certified)"
    return f"With one type only, {kind}; the cheapest mix by closed form costs {usd(mix_per_h(plan))}/h"


def against(plan: Plan) -> str:
    """Heading of the column that compares single types with the mix of :func:`mix_per_h`."""
    return "Against the mix" if plan.certificate is None else "Against that mix"


def _single_types(plan: Plan) -> RenderableType:
    able = sorted((b.cost_per_h, name, b) for name, b in plan.single_type.items() if b.cost_per_h is not None)
    table = table_of("Replica type", "Instances", "USD/h", against(plan), "")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    for cost, name, baseline in able[:MAX_ROWS]:
        table.add_row(name, f"{baseline.instances}", f"{cost:,.2f}", f"{cost / mix_per_h(plan) - 1:+.1%}")
    unable = sorted(
        (-round(b.served_fraction, 2), b.rest_cost_per_h or np.inf, name, b)
        for name, b in plan.single_type.items()
        if b.cost_per_h is None
    )
    # Some infeasible types are always shown: their reasons explain what the SLO excludes.
    for _, rest, name, baseline in unable[: max(MAX_ROWS - len(able), MAX_ROWS // 2)]:
        part = f"serves {percent(baseline.served_fraction, 2)} for {usd(rest)}/h; " if np.isfinite(rest) else ""
        table.add_row(name, "-", "-", "-", f"{part}{baseline.reason}")
    hidden = len(plan.single_type) - table.row_count
    with_whole_names(table)
    title = singles_title(plan)
    if not hidden:
        return titled(title, table)
    costlier = max(len(able) - MAX_ROWS, 0)
    words = [f"{costlier} more expensive"] * (costlier > 0)
    words += [f"{hidden - costlier} infeasible"] * (hidden > costlier)
    last = hidden - costlier or costlier
    more = Text(
        f"{' and '.join(words)} {'type' if last == 1 else 'types'} not shown (--json lists all, with reasons)",
        style="dim",
    )
    return titled(title, Group(table, more))


def letters(plan: Plan) -> list[str]:
    """Letters for the used types, in order."""
    return list((string.ascii_uppercase + string.ascii_lowercase)[: len(used_types(plan))])
