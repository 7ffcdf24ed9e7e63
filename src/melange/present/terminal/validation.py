"""A report as a page for the terminal: attainment with its confidence, and why the other requests missed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from melange.plan.plan import Plan
from melange.present.terminal.class_table import classes_part, limits_in_words, met_by_class
from melange.present.terminal.layout import MAX_ROWS, cautions, listed, share_text, spaced, table_of, titled, usd
from melange.units import ms, percent, significant
from melange.validate.attainment import Interval
from melange.validate.causes import CAUSES
from melange.validate.report import PERCENTILES, TIMES, Report, TypeReport
from melange.workload.request_classes import rate_by_class

# Ratio of simulated to planned rate above which a run counts as overload, which is reported first. Chance alone changes
# the rate of 10,000 drawn requests by 1 %, and that of 400 by 5 %.
_FASTER = 1.05
# If more than this many times the allowed requests miss, the target is missed even where the interval reaches it: runs
# that differ much have a wide interval, and no number of them would prove the target. Chosen by judgment.
_FAR = 2.0
_ROUNDING = 1e-9
# Sizes with a smaller share of the misses are omitted as noise.
_MINOR = 0.01

TYPE_COLUMNS = (
    *(
        "Replica type",
        "Replicas",
        "Requests",
        "Met the SLO",
        "Planned load",
        "Time with requests",
        "KV cache",
        "KV peak",
    ),
    *("Waiting", "Preempted"),
)


def validation_page(report: Report, plan: Plan, others: Sequence[Report] = ()) -> RenderableType:
    """The whole report of a plan, most important parts first; ``others`` are for other policies."""
    step = next_step(report, plan)
    parts: list[RenderableType] = [
        Text(verdict(report), style="bold"),
        *([Text(step)] if step else []),
        Text(setting(report), style="dim"),
        *([_classes(report, plan)] if report.classes else []),
        titled("Replica types", _types(report)),
        titled("Times [ms]", _times(report)),
    ]
    if report.causes:
        lines = [f"{percent(share, 2)} {name}: {CAUSES[name]}" for name, share in report.causes.items()]
        parts.append(listed("Why requests missed", lines))
        parts.append(titled("Where they missed most", _worst_buckets(report)))
    if others:
        parts.append(titled("Policies, on the same requests (times in ms)", _policies_table([report, *others])))
    parts.append(Text(served(report)))
    if report.cautions:
        parts.append(cautions(report.cautions))
    return Group(*spaced(parts))


def verdict(report: Report) -> str:
    """The answer in a sentence."""
    held = report.attainment
    if report.slo is None or held is None:
        return "The plan has no SLO, so there is no attainment."
    counted = f"{report.counted:,} counted requests"
    if report.classes:
        shown = "every target is met" if report.holds else "some targets are not shown to be met"
        return f"{met_by_class(report.classes)} met the limits of their class, of {counted}: {shown}."
    met, least = percent(held.value, 2), percent(held.low, 2)
    said = f"{met} of the requests met {limits_in_words(report.slo)} ({least} at least, {counted})"
    if report.holds:
        return f"{said}: the target of {share_text(report.target)} is met."
    missed = "is not proven" if _is_open(held, report.target) else "is missed"
    return f"{said}: the target of {share_text(report.target)} {missed}."


def _is_open(held: Interval, target: float) -> bool:
    """Whether more requests may still prove the target."""
    return held.high >= target and 1 - held.value <= _FAR * (1 - target) + _ROUNDING


def next_step(report: Report, plan: Plan) -> str:
    """The next step if the target is not shown to hold; empty if it is."""
    if report.attainment is None or report.holds:
        return ""
    if _is_open(report.attainment, report.target) and report.is_drawn:
        return "Next: simulate more requests, --seeds 20."
    if report.scenario == "lost-replica":
        return f"Next: plan with a spare replica: {_planned_with('plan.spare_replicas=1')}"
    if report.scenario != "steady" or report.rate > _FASTER * plan.workload.total_rate:
        return f"Next: plan for the highest rate that must hold: {_planned_with('workload.rate=...')}"
    if report.steps == "slow":
        return f"Next: measure some steps, or plan for slower ones: {_planned_with('plan.confidence=0.9')}"
    if not report.is_drawn:
        return (
            "Next: plan for this log (workload: {trace: ...} in service.yaml): melange plan certifies on its requests "
            "as recorded."
        )
    if plan.certificate is not None and plan.holds is False:
        most = f"at most {percent(plan.certificate.reach, 2)} of the requests can meet the SLO on the offered types"
        return f"Next: {most}; loosen a limit, lower the target, or offer faster types."
    if plan.certificate is not None:
        others = f"the plan was certified on other requests ({plan.certificate.arrivals})"
        return f"Next: {others}; if arrivals are burstier, certify it with --burstiness."
    command = "melange plan" if plan.slo and plan.slo.is_on_requests else "melange plan --certify"
    return f"Next: {command} finds a plan that holds."


def _planned_with(setting: str) -> str:
    """The command that plans the service again with a setting: a plan.json takes none."""
    return f"melange plan service.yaml --set {setting} --out plan.json"


def setting(report: Report) -> str:
    """The simulated requests and fleet, in three lines."""
    parts = [f"{significant(report.rate, 4)} requests/s", f"policy {report.policy}"]
    if report.scenario != "steady":
        parts.append(f"scenario {report.scenario}")
    if report.steps != "as-planned":
        parts.append(f"steps {report.steps}")
    kinds = " and ".join(sorted({one.step_times for one in report.types}))
    parts.append(f"step times {kinds}")
    if report.slo and report.statistics:
        parts += [
            f"{report.slo.metric_statistic} {metric.upper()} {significant(ms(value), 4)} ms"
            for metric, value in report.statistics.items()
        ]
    return " | ".join(parts) + f"\nRequests: {report.source}\nSimulated: {simulated(report)}"


def simulated(report: Report) -> str:
    """How many requests were simulated, and how many of them count."""
    runs = f"{report.requests:,} requests"
    if report.seeds > 1:  # the last part of a log may be shorter
        runs = f"{report.seeds} runs of {'' if report.is_drawn else 'up to '}{runs}"
    end = " and the last tenth" if report.is_drawn and report.scenario == "steady" else ""
    each = " of each run" if report.seeds > 1 else ""
    return f"{runs}; {report.counted:,} count, without the warm-up{end}{each}"


def _classes(report: Report, plan: Plan) -> RenderableType:
    assert report.slo is not None
    return classes_part(report.classes, report.slo, rate_by_class(plan.workload))


def _types(report: Report) -> RenderableType:
    table = table_of(*TYPE_COLUMNS)
    for column in range(1, len(TYPE_COLUMNS)):
        table.columns[column].justify = "right"
    for one in report.types:
        table.add_row(*type_cells(report, one))
    return table


def type_cells(report: Report, one: TypeReport) -> tuple[str, ...]:
    """The row of a replica type under :data:`TYPE_COLUMNS`."""
    return (
        one.name,
        f"{one.replicas}",
        f"{one.requests:.1%}",
        percent(one.attainment, 2) if report.slo else "-",
        f"{one.planned_load:.0%}",
        f"{one.busy:.0%}",
        f"{one.kv:.0%}",
        f"{one.peak_kv:.0%}",
        f"{one.waiting:.2f}",
        f"{one.preemptions:,}",
    )


def _times(report: Report) -> RenderableType:
    table = table_of("", *PERCENTILES)
    for column in range(1, len(PERCENTILES) + 1):
        table.columns[column].justify = "right"
    for metric in TIMES:
        values = report.times.get(metric) or {}
        if values:
            name = "between tokens" if metric == "itl" else _named(metric)
            table.add_row(name, *(f"{ms(values[one]):,.1f}" if one in values else "-" for one in PERCENTILES))
    return table


def _worst_buckets(report: Report) -> RenderableType:
    table = table_of("Request size [tokens]", "Requests", "Met the SLO", "Share of misses")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    missed = np.nan_to_num((1 - report.bucket_attainment) * report.bucket_requests)
    total = missed.sum()
    for place in np.argsort(missed, axis=None)[::-1][:MAX_ROWS].tolist():
        i, o = divmod(place, report.buckets.shape[1])
        if missed[i, o] <= _MINOR * total:
            break
        table.add_row(
            report.buckets.label(i, o),
            percent(float(report.bucket_requests[i, o]), 2),
            f"{report.bucket_attainment[i, o]:.1%}",
            f"{missed[i, o] / total:.0%}",
        )
    return table


def _policies_table(reports: Sequence[Report]) -> RenderableType:
    """Comparison of policies, best first."""
    limited = list(reports[0].slo.limits) if reports[0].slo else []
    shown = [*limited, *(["latency"] if "latency" not in limited else [])]
    columns = [(metric, name) for metric in shown for name in ("mean", "p99")]
    table = table_of("Policy", "Met the SLO", "Lower bound", *(f"{_named(metric)} {name}" for metric, name in columns))
    table.columns[0].no_wrap = True
    table.columns[0].min_width = max(len(report.policy) for report in reports)
    for column in range(1, len(columns) + 3):
        table.columns[column].justify = "right"

    def rank(report: Report) -> float:
        return -report.attainment.value if report.attainment else report.times["latency"].get("mean", 0.0)

    for one in sorted(reports, key=rank):
        held, times = one.attainment, one.times
        table.add_row(
            one.policy,
            percent(held.value, 2) if held else "-",
            percent(held.low, 2) if held else "-",
            *(f"{ms(times[metric].get(name, 0)):,.1f}" for metric, name in columns),
        )
    return table


def _named(metric: str) -> str:
    return "latency" if metric == "latency" else metric.upper()


def served(report: Report) -> str:
    """Goodput, cost and failures, in a sentence."""
    parts = []
    if report.slo:
        parts.append(f"{significant(report.goodput, 4)} of {significant(report.rate, 4)} requests/s met the SLO")
    if report.cost_per_mtok:
        total, output = report.cost_per_mtok["total"], report.cost_per_mtok["output"]
        parts.append(f"{usd(total)} per million tokens served ({usd(output)} per million output tokens)")
    counts = {
        "preemptions": report.preemptions,
        "retried": report.retries,
        "refused": report.refused,
        "failed": report.failed,
    }
    parts += [f"{count:,} {name}" for name, count in counts.items() if count]
    return "; ".join(parts) + "."
