"""What people read: tables for the terminal.

The parts of a plan come in the order in which they are asked for: the answer, the mix, the alternatives with one
type only, the bound that proves it, and the warnings.
"""

from __future__ import annotations

import os
import string
from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from melange.catalog.catalog import Accelerator, Model, Offer
from melange.errors import Caution
from melange.plan.plan import Plan
from melange.profile.profile import PROVENANCES, Profile, ReplicaType
from melange.workload.workload import Array, Buckets, Workload

PIPE_WIDTH = 1000
MAX_ROWS = 8  # of a table that could list hundreds; --json lists all


def plan_page(plan: Plan) -> RenderableType:
    """The whole answer, in its order."""
    parts: list[RenderableType] = [
        Text(plan_sentence(plan), style="bold"),
        Text(assumptions(plan), style="dim"),
        _mix(plan),
        _routes(plan),
        _single_types(plan),
        Text(proof(plan)),
    ]
    if plan.unservable:
        parts.append(_list("Left out", plan.unservable))
    if plan.cautions:
        parts.append(cautions(plan.cautions))
    return Group(*_spaced(parts))


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
    if savings < 5e-4:
        return f"{sentence}; nothing cheaper than the cheapest single type ({single})."
    return f"{sentence}; {savings:.1%} less than the cheapest single type ({single})."


def _counted(replica_type: ReplicaType, instances: int) -> str:
    """So many instances of a type, with its accelerator where the name does not say it."""
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
    parts.append(f"headroom {plan.headroom:.0%}")
    parts.append("continuous shares" if plan.slices is None else f"{plan.slices} slices a bucket")
    return " | ".join(part for part in parts if part) + (f"\nTraffic: {workload.source}" if workload.source else "")


def _mix(plan: Plan) -> RenderableType:
    table = _table("Route", "Replica type", "Accelerators", "Replicas", "Instances", "USD/h", "Load", "Serves")
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
    return _titled("The mix", table)


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
    first = int(np.searchsorted(cumulated, 1e-3, side="right"))
    last = min(int(np.searchsorted(cumulated, 1 - 1e-3)), len(edges) - 1)
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
        table.add_column(_edge(workload.buckets, "output", int(o)), justify="center", header_style="dim")
    for i in rows:
        cells = []
        for o in columns:
            shares = sorted(
                ((plan.share[r, i, o], letter) for r, letter in zip(used, marks, strict=False)), reverse=True
            )
            cells.append(
                "".join(letter for share, letter in shares if share > 5e-3) or _empty(workload, int(i), int(o))
            )
        table.add_row(_edge(workload.buckets, "input", int(i)), *cells)
    return _titled("Where each size goes (rows: input tokens up to, columns: output tokens up to)", table)


def _empty(workload: Workload, i: int, o: int) -> str:
    return "-" if workload.request_rate[i, o] > 0 else "."


def _edge(buckets: Buckets, axis: str, index: int) -> str:
    edges = buckets.input_edges if axis == "input" else buckets.output_edges
    return f"#{index + 1}" if buckets.is_ordinal else f"{edges[index]:,}"


def _single_types(plan: Plan) -> RenderableType:
    able = sorted((b.cost_per_h, name, b) for name, b in plan.single_type.items() if b.cost_per_h is not None)
    table = _table("Replica type", "Instances", "USD/h", "Against the mix", "")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    for cost, name, baseline in able[:MAX_ROWS]:
        table.add_row(name, f"{baseline.instances}", f"{cost:,.2f}", f"{cost / plan.cost_per_h - 1:+.1%}")
    unable = [(name, b.reason) for name, b in plan.single_type.items() if b.cost_per_h is None]
    for name, reason in unable[: max(MAX_ROWS - len(able), 4)]:
        table.add_row(name, "-", "-", "-", reason)
    hidden = len(plan.single_type) - table.row_count
    if not hidden:
        return _titled("With one type only", table)
    dearer = max(len(able) - MAX_ROWS, 0)
    words = [f"{dearer} dearer"] * (dearer > 0) + [f"{hidden - dearer} that cannot"] * (hidden > dearer)
    more = Text(f"... and {' and '.join(words)} (--json lists all, with reasons)", style="dim")
    return _titled("With one type only", Group(table, more))


def proof(plan: Plan) -> str:
    """What is proven about the plan, in a sentence."""
    if plan.bound_per_h is None:
        return f"Proof: no plan within the budget carries more than {plan.gap:.2%} above this ({plan.status})."
    if plan.gap <= 1e-9:
        claim = "no cheaper plan exists"
    else:
        claim = f"no plan costs less than {usd(plan.bound_per_h)}/h, so at most {plan.gap:.2%} could be saved"
    late = "" if plan.status == "optimal" else f"; the search stopped at its {plan.status}"
    return f"Proof: {claim} under these assumptions (solved in {plan.solve_s:.2f} s{late})."


def cautions(items: Iterable[Caution]) -> RenderableType:
    """Warnings, a line each."""
    return Group(*(Text(f"warning: {caution}", style="yellow") for caution in items))


def workload_page(workload: Workload) -> RenderableType:
    """A workload as a table: share of requests by size, and its totals."""
    rows = np.flatnonzero(workload.request_rate.sum(axis=1))
    columns = np.flatnonzero(workload.request_rate.sum(axis=0))
    title = "Requests [%] by size (rows: input tokens up to, columns: output tokens up to)"
    table = _table("")
    for o in columns:
        table.add_column(_edge(workload.buckets, "output", int(o)), justify="right")
    table.columns[0].justify = "right"
    for i in rows:
        share = workload.request_rate[i, columns] / workload.total_rate
        cells = [f"{value:.2%}".rstrip("%") if value else "." for value in share]
        table.add_row(_edge(workload.buckets, "input", int(i)), *cells)
    total = f"{workload.total_rate:.4g} requests/s"
    if not workload.buckets.is_ordinal:
        total += f", {workload.input_token_rate:,.0f} tokens/s in, {workload.output_token_rate:,.0f} tokens/s out"
    if workload.burstiness is not None:
        total += f", burstiness {workload.burstiness:.2f} (1 is Poisson)"
    counted = f"{workload.requests:,} requests observed" if workload.requests else "no count of requests"
    failed = f", {workload.failed_requests:,} failed rows left out" if workload.failed_requests else ""
    source = Text(f"{workload.source} ({counted}{failed})")
    parts: list[RenderableType] = [Text(total, style="bold"), source, _titled(title, table)]
    return Group(*_spaced([*parts, *([cautions(workload.cautions)] if workload.cautions else [])]))


def profile_page(profile: Profile, workload: Workload | None) -> RenderableType:
    """A profile as a table: what each type carries of the workload's mix, and what it costs."""
    heading = " | ".join(part for part in (profile.model, str(profile.slo or ""), profile.source) if part)
    table = _table("Replica type", "Accelerators", "USD/h", "Sizes served")
    _column(table, "Mix [requests/s]", right=True)
    _column(table, "USD per 1,000 requests", right=True)
    table.add_column("How it is known / why it cannot")
    for column in (2, 3):
        table.columns[column].justify = "right"
    rows = sorted(_profile_row(profile, workload, r) for r in range(len(profile.replica_types)))
    shown = rows[: MAX_ROWS * 4]
    for _, cells in shown:
        table.add_row(*cells)
    parts: list[RenderableType] = [Text(heading, style="bold"), _titled("What one replica carries", table)]
    if len(rows) > len(shown):
        parts.append(
            Text(f"... and {len(rows) - len(shown)} dearer ones or ones that cannot (--json lists all)", style="dim")
        )
    return Group(*_spaced([*parts, *([cautions(profile.cautions)] if profile.cautions else [])]))


def _profile_row(profile: Profile, workload: Workload | None, r: int) -> tuple[float, list[str]]:
    replica_type, rates = profile.replica_types[r], profile.max_request_rate[r]
    weight = workload.request_rate / workload.total_rate if workload else np.full(rates.shape, 1 / rates.size)
    able = rates > 0
    needed = weight > 0
    per_instance = replica_type.replicas_per_instance
    cost_per_request = np.inf
    mix = "-"
    if able[needed].all():
        mix_rate = _mix_rate(weight[needed], rates[needed])
        cost_per_request = replica_type.cost_per_h / 3600 / (mix_rate * per_instance)
        mix = f"{mix_rate:.3g}"
        low, high = (_mix_rate(weight[needed], ends[r][needed]) for ends in (profile.low, profile.high))
        if high > low:
            mix += f" ({low:.3g}-{high:.3g})"
        kinds = {PROVENANCES[kind] for kind in profile.provenance[r][needed]}
        note = ", ".join(kind for kind in PROVENANCES if kind in kinds)
    else:
        reasons = profile.reason[r][needed & ~able]
        note = profile.reasons[int(np.bincount(reasons).argmax())] or "capacity 0 for some sizes"
    shards = f"{replica_type.tensor_parallel} x " if replica_type.tensor_parallel > 1 else ""
    cells = [
        replica_type.name,
        f"{per_instance} x ({shards}{replica_type.offer.accelerator})"
        if per_instance > 1
        else f"{shards}{replica_type.offer.accelerator}",
        f"{replica_type.cost_per_h:,.2f}",
        f"{(able & needed).sum()}/{needed.sum()}",
        mix,
        f"{cost_per_request * 1e3:.3f}" if np.isfinite(cost_per_request) else "-",
        note,
    ]
    return cost_per_request, cells


def _mix_rate(weight: Array, rates: Array) -> float:
    """The rate of a whole mix of sizes that one replica carries [1/s]; 0 where it cannot serve one of them."""
    return float(1 / (weight / rates).sum()) if (rates > 0).all() else 0.0


def accelerators_page(accelerators: Iterable[Accelerator]) -> RenderableType:
    """Accelerators as a table."""
    table = _table("Name", "Vendor", "Architecture")
    for heading in ("GiB", "GB/s", "bf16 TFLOPS", "fp8 TFLOPS"):
        _column(table, heading, right=True)
    table.add_column("Link")
    table.add_column("Source")
    for a in accelerators:
        half = a.flops_by_dtype.get("bf16") or a.flops_by_dtype.get("fp16")
        table.add_row(
            a.name,
            a.vendor,
            a.architecture,
            f"{a.memory_bytes / 2**30:.0f}",
            f"{a.bandwidth_bytes_per_s / 1e9:,.0f}",
            _tera(half),
            _tera(a.flops_by_dtype.get("fp8")),
            a.link,
            a.source,
        )
    return table


def offers_page(offers: Sequence[Offer]) -> RenderableType:
    """Offers as a table, cheapest accelerator-hour first."""
    table = _table("Provider", "Region", "Instance type", "Market", "Accelerators")
    for heading in ("USD/h", "USD/h each"):
        _column(table, heading, right=True)
    for heading in ("Link", "Seen", "Source"):
        _column(table, heading)
    for offer in sorted(offers, key=lambda o: o.cost_per_h / o.accelerators):
        table.add_row(
            offer.provider,
            offer.region,
            offer.instance_type,
            offer.market,
            f"{offer.accelerators} x {offer.accelerator}",
            f"{offer.cost_per_h:,.2f}",
            f"{offer.cost_per_h / offer.accelerators:,.2f}",
            offer.interconnect,
            offer.seen.isoformat() if offer.seen else "undated",
            offer.source,
        )
    return table


def models_page(models: Iterable[Model]) -> RenderableType:
    """Models as a table."""
    table = _table("Name")
    for heading in ("Parameters [10^9]", "Weights [GB]", "KV [kB/token]", "Context"):
        _column(table, heading, right=True)
    table.add_column("Weights as")
    for m in models:
        table.add_row(
            m.name,
            f"{m.parameters() / 1e9:.2f}",
            f"{m.weight_bytes() / 1e9:.1f}",
            f"{m.kv_bytes_per_token() / 1e3:.1f}",
            f"{m.max_context:,}",
            m.weight_dtype,
        )
    return table


def console(*, stderr: bool = False) -> Console:
    """A console as wide as its terminal; into a file or a pipe lines stay whole, unless COLUMNS says otherwise."""
    made = Console(stderr=stderr, highlight=False)
    if made.is_terminal or os.environ.get("COLUMNS"):
        return made
    return Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        _column(table, heading)
    return table


def _column(table: Table, heading: str, *, right: bool = False) -> None:
    """Add a column; its heading may hold a unit in [brackets], which are no markup."""
    table.add_column(Text(heading), justify="right" if right else "left")


def _titled(title: str, body: RenderableType) -> RenderableType:
    return Group(Text(title, style="bold"), body)


def _list(title: str, lines: Iterable[str]) -> RenderableType:
    return Group(Text(title, style="bold"), *(Padding(Text(line), (0, 0, 0, 2)) for line in lines))


def _spaced(parts: Iterable[RenderableType]) -> list[RenderableType]:
    spaced: list[RenderableType] = []
    for part in parts:
        spaced += [part, Text("")]
    return spaced[:-1]


def used_types(plan: Plan) -> list[int]:
    """Types that are rented, those that take most requests first."""
    taken = (plan.share * plan.workload.request_rate).sum(axis=(1, 2))
    return sorted(np.flatnonzero(plan.instances).tolist(), key=lambda r: -taken[r])


def letters(plan: Plan) -> list[str]:
    """The letters that stand for the used types, in their order."""
    return list((string.ascii_uppercase + string.ascii_lowercase)[: len(used_types(plan))])


def usd(amount: float) -> str:
    """An amount with as many digits as it deserves."""
    return f"{amount:,.2f} USD" if amount >= 0.1 else f"{amount:.2g} USD"


def _tera(flops: float | None) -> str:
    return f"{flops / 1e12:,.0f}" if flops else "-"
