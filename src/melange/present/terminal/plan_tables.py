"""A plan as a page for the terminal.

The parts of a plan come in the order in which they are asked for: the answer, the mix, the alternatives with one
type only, the bound that proves it, and the warnings.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from melange.plan.certificate import Certificate
from melange.plan.plan import Plan
from melange.present.terminal.layout import LEAST_SHOWN, MAX_ROWS, cautions, edge, listed, spaced, table_of, titled, usd
from melange.present.terminal.suggestions import uncertainty_part
from melange.profile.profile import ReplicaType
from melange.workload.workload import Array, Workload

# A type that can serve this share of the requests is worth a word in the answer. A smaller share, and types would be
# named that are no alternative; a larger one would hide that savings rest on few requests. A judgment.
_NEARLY_ALL = 0.99
# A smaller share of a size reads 0 %, and its type no letter in the routes.
SHOWN_SHARE = 5e-3
# Share of a type's requests left out at either end of the range of sizes that it is said to serve: one rare size would
# stretch the range over all of them.
_RARE = 1e-3


def plan_page(plan: Plan, incumbent: Plan | None = None) -> RenderableType:
    """The whole answer, in its order; with what changes against the plan in force, where there is one."""
    parts: list[RenderableType] = [
        Text(plan_sentence(plan), style="bold"),
        *([Text(_changes_sentence(plan, incumbent))] if incumbent is not None else []),
        Text(assumptions(plan), style="dim"),
        _mix(plan),
        _routes(plan),
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


def plan_sentence(plan: Plan) -> str:
    """The answer in one sentence: mix, USD/h, USD per million tokens, savings."""
    mix = _and(_counted(plan.replica_types[r], int(plan.instances[r])) for r in used_types(plan))
    sentence = f"{mix}: {usd(plan.cost_per_h)}/h"
    per_mtok = plan.cost_per_mtok
    if per_mtok:
        sentence += f", {usd(per_mtok['total'])} per million tokens ({usd(per_mtok['output'])} per million generated)"
    if plan.served_fraction < 1:
        rate = plan.workload.total_rate * plan.served_fraction
        sentence += f", for {plan.served_fraction:.1%} of the requests ({rate:.3g}/s)"
    best, savings = plan.best_single, plan.savings
    if best is None or savings is None:
        return f"{sentence}; no single type can do it alone."
    name, baseline = best
    replica_type = next(candidate for candidate in plan.replica_types if candidate.name == name)
    single = f"{_counted(replica_type, baseline.instances)}, {usd(baseline.cost_per_h or 0)}/h"
    if savings < LEAST_SHOWN:
        sentence += f"; no less than the cheapest single type ({single})"
    else:
        sentence += f"; {savings:.1%} less than the cheapest single type ({single})"
    return f"{sentence}{_nearly_alone(plan, baseline.cost_per_h or 0.0)}."


def _changes_sentence(plan: Plan, incumbent: Plan) -> str:
    """What to rent and to give back against the plan in force."""
    changes = plan.changes_from(incumbent)
    before = f"the plan in force costs {usd(incumbent.cost_per_h)}/h"
    if not changes:
        return f"No change: it is the fleet in force ({before})."
    listed = ", ".join(f"{count:+d} x {name}" for name, count in changes.items())
    return f"Changes: {listed} ({before})."


def _nearly_alone(plan: Plan, single_cost_per_h: float) -> str:
    """A type that would be cheaper alone, were it not for a few requests that it cannot serve; empty where none is.

    Without it, savings that rest on a hundredth of a percent of the requests would look like more than they are.
    """
    nearly = [
        (baseline.rest_cost_per_h, name, baseline.served_fraction)
        for name, baseline in plan.single_type.items()
        if baseline.rest_cost_per_h is not None and baseline.served_fraction >= _NEARLY_ALL
    ]
    if not nearly or min(nearly)[0] >= single_cost_per_h:
        return ""
    cost, name, fraction = min(nearly)
    against = (
        f"{1 - plan.cost_per_h / cost:.1%} less" if cost > plan.cost_per_h else f"{usd(plan.cost_per_h - cost)}/h more"
    )
    return f", {against} than {name} alone ({usd(cost)}/h), which cannot serve {1 - fraction:.2%} of the requests"


def _counted(replica_type: ReplicaType, instances: int) -> str:
    """A number of instances of a type, with its accelerator where the name does not say it."""
    offer = replica_type.offer
    if offer.accelerator in replica_type.name:
        return f"{instances} x {replica_type.name}"
    each = f"{offer.accelerators} x " if offer.accelerators > 1 else ""
    return f"{instances} x {replica_type.name} ({each}{offer.accelerator})"


def _and(items: Iterable[str]) -> str:
    """Items as a list in words."""
    *first, last = [*items] or ["no replica"]
    return f"{', '.join(first)} and {last}" if first else last


def assumptions(plan: Plan) -> str:
    """Model, SLO, traffic and settings that the answer stands on, in two lines."""
    workload = plan.workload
    parts = [plan.model or "model not named", str(plan.slo) if plan.slo else "SLO not named"]
    parts.append(f"{workload.total_rate:.4g} requests/s")
    if not workload.buckets.is_ordinal:
        served = workload.request_rate.sum()
        mean_in, mean_out = workload.input_token_rate / served, workload.output_token_rate / served
        parts.append(f"mean {mean_in:,.0f} tokens in and {mean_out:,.0f} out")
    parts.append("headroom as certified" if plan.certificate else f"headroom {plan.options.headroom:.0%}")
    parts.append("continuous shares" if plan.options.slices is None else f"{plan.options.slices} slices a bucket")
    return " | ".join(part for part in parts if part) + (f"\nTraffic: {workload.source}" if workload.source else "")


def _mix(plan: Plan) -> RenderableType:
    table = table_of("Route", "Replica type", "Accelerators", "Replicas", "Instances", "USD/h", "Load", "Serves")
    for column in (3, 4, 5, 6):
        table.columns[column].justify = "right"
    for letter, r in zip(letters(plan), used_types(plan), strict=False):
        replica_type = plan.replica_types[r]
        instances = int(plan.instances[r])
        per_replica = f"{replica_type.tensor_parallel} x " if replica_type.tensor_parallel > 1 else ""
        table.add_row(
            letter,
            replica_type.name,
            f"{per_replica}{replica_type.offer.accelerator}",
            f"{instances * replica_type.replicas_per_instance}",
            f"{instances}",
            f"{instances * replica_type.cost_per_h:,.2f}",
            f"{plan.load[r]:.0%}",
            serves(plan, r),
        )
    return titled("The mix", table)


def serves(plan: Plan, r: int) -> str:
    """The share of all requests that a type takes, and the range of sizes that holds nearly all of them."""
    taken = plan.share[r] * plan.workload.request_rate
    if taken.sum() == 0:
        return "nothing: held as spare"
    text = f"{taken.sum() / plan.workload.total_rate:.1%} of requests"
    if plan.workload.buckets.is_ordinal:
        return text
    inputs = _span(taken.sum(axis=1), plan.workload.buckets.input_edges)
    outputs = _span(taken.sum(axis=0), plan.workload.buckets.output_edges)
    return f"{text}: {inputs} in, {outputs} out"


def _span(weight: Array, edges: Sequence[int]) -> str:
    """The range of sizes that holds all but a thousandth of the weight at either end."""
    cumulated = np.cumsum(weight) / weight.sum()
    first = int(np.searchsorted(cumulated, _RARE, side="right"))
    last = min(int(np.searchsorted(cumulated, 1 - _RARE)), len(edges) - 1)
    return f"{(edges[first - 1] if first else 0) + 1:,}-{edges[last]:,}"


def _routes(plan: Plan) -> RenderableType:
    """Which type each request size goes to: a letter a cell, two where a bucket is split."""
    workload, marks = plan.workload, letters(plan)
    used = used_types(plan)
    rows = np.flatnonzero(workload.request_rate.sum(axis=1))
    columns = np.flatnonzero(workload.request_rate.sum(axis=0))
    table = Table(box=None, padding=(0, 1))
    table.add_column(justify="right", style="dim")
    for o in columns:
        table.add_column(edge(workload.buckets, "output", int(o)), justify="center", header_style="dim")
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


def _single_types(plan: Plan) -> RenderableType:
    able = sorted((b.cost_per_h, name, b) for name, b in plan.single_type.items() if b.cost_per_h is not None)
    table = table_of("Replica type", "Instances", "USD/h", "Against the mix", "")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    for cost, name, baseline in able[:MAX_ROWS]:
        table.add_row(name, f"{baseline.instances}", f"{cost:,.2f}", f"{cost / plan.cost_per_h - 1:+.1%}")
    unable = sorted(
        (-round(b.served_fraction, 2), b.rest_cost_per_h or np.inf, name, b)
        for name, b in plan.single_type.items()
        if b.cost_per_h is None
    )
    # Some of those that cannot are shown even beside many that can: their reasons say what the SLO costs.
    for _, rest, name, baseline in unable[: max(MAX_ROWS - len(able), MAX_ROWS // 2)]:
        part = f"{usd(rest)}/h for the {baseline.served_fraction:.2%} that it can; " if np.isfinite(rest) else ""
        table.add_row(name, "-", "-", "-", f"{part}{baseline.reason}")
    hidden = len(plan.single_type) - table.row_count
    title = "With one type only (without a certificate)" if plan.certificate else "With one type only"
    if not hidden:
        return titled(title, table)
    costlier = max(len(able) - MAX_ROWS, 0)
    words = [f"{costlier} more expensive"] * (costlier > 0)
    words += [f"{hidden - costlier} that cannot"] * (hidden > costlier)
    more = Text(f"... and {' and '.join(words)} (--json lists all, with reasons)", style="dim")
    return titled(title, Group(table, more))


def proof(plan: Plan) -> str:
    """What is proven about the plan, in a sentence."""
    if plan.certificate is not None:
        return _certainty(plan, plan.certificate)
    if plan.bound_per_h is None:
        return f"Proof: no plan within the budget carries more than {plan.gap:.2%} above this ({plan.status})."
    if plan.gap == 0:
        claim = "no cheaper plan exists"
    else:
        claim = f"no plan costs less than {usd(plan.bound_per_h)}/h, so at most {plan.gap:.2%} could be saved"
    late = "" if plan.status == "optimal" else f"; the search stopped at its {plan.status}"
    return f"Proof: {claim} under these assumptions (solved in {plan.solve_s:.2f} s{late})."


def _certainty(plan: Plan, certificate: Certificate) -> str:
    """What a simulation has shown of a plan, and what that cost, in two sentences."""
    counted = f"{certificate.seeds} x {certificate.requests:,} simulated requests"
    held = f"Certified: {certificate.attainment:.2%} of {counted} met the SLO, {certificate.low:.2%} at least"
    price = certificate.price(plan.cost_per_h)
    if abs(price) < LEAST_SHOWN:
        cost = f"{certificate.target * 100:.6g}% costs nothing more than the plan without a certificate"
    else:
        cost = f"{price:+.1%} for {certificate.target * 100:.6g}%"
    before = f"without, {usd(certificate.cost_before_per_h)}/h and {certificate.attainment_before:.2%}"
    kept = ", ".join(f"{share:.0%} of {name}" for name, share in certificate.headroom.items())
    return f"{held}; {cost} ({before}). Kept free: {kept}. Found among {certificate.plans} simulated plans."


def used_types(plan: Plan) -> list[int]:
    """Types that are rented, those that take most requests first."""
    taken = (plan.share * plan.workload.request_rate).sum(axis=(1, 2))
    return sorted(np.flatnonzero(plan.instances).tolist(), key=lambda r: -taken[r])


def letters(plan: Plan) -> list[str]:
    """The letters that stand for the used types, in their order."""
    return list((string.ascii_uppercase + string.ascii_lowercase)[: len(used_types(plan))])
