"""A report's page: the verdict, SLO attainment by size and type, times, queues, causes, and sources."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melange.plan.plan import Plan
from melange.present.figures import by_run
from melange.present.figures.picture import Picture, Variant
from melange.present.pages import html as html
from melange.present.terminal.class_table import (
    CLASS_COLUMNS,
    class_cells,
    limits_in_words,
    time_cells,
    time_columns,
)
from melange.present.terminal.layout import usd
from melange.present.terminal.validation import (
    TYPE_COLUMNS,
    next_step,
    served,
    setting,
    simulated,
    type_cells,
    verdict,
)
from melange.slo import METRICS
from melange.units import ms, percent, significant
from melange.validate.causes import CAUSES
from melange.validate.report import PERCENTILES, TIMES, Report
from melange.workload.request_classes import rate_by_class


def validation_pictures(report: Report, others: Sequence[Report], plan: Plan) -> list[Picture]:
    """The pictures of a plan's simulation; ``others`` are reports under other policies."""
    colors = by_run.colors_of(report, plan)
    pictures = [_times(report, colors), _utilization(report, colors), _queue(report, colors)]
    if report.slo is not None:
        pictures.insert(0, _attainment(report))
        if report.causes:
            pictures.append(_causes(report))
        if others:
            pictures.append(_policies([report, *others]))
    return pictures


def validation_html(report: Report, others: Sequence[Report], plan: Plan, name: str) -> str:
    """The page as HTML.

    Parameters
    ----------
    report
        Report of the plan's own policy.
    others
        Reports of other policies on the same requests.
    plan
        The simulated plan.
    name
        File name of the plan.
    """
    pictures = validation_pictures(report, others, plan)
    drawn = {picture.name: html.figure(picture) for picture in pictures}

    def of(*names: str) -> str:
        return "".join(drawn[one] for one in names if one in drawn)

    lines = [html.paragraph(line, "dim") for line in setting(report).split("\n")]
    parts = [
        f'<header><p class="brand">{html.escape(f"Melange: {name} in simulation")}</p>'
        f"<h1>{html.escape(verdict(report))}</h1>",
        html.paragraph(step) if (step := next_step(report, plan)) else "",
        f"{''.join(lines)}</header>",
        "<main>",
        html.section(
            "The fleet", _types_table(report, plan), html.paragraph(served(report)), of("utilization", "queue")
        ),
        html.section("What met the SLO", _classes_table(report, plan), of("attainment")) if report.slo else "",
        html.section("Why requests missed", of("causes")) if "causes" in drawn else "",
        html.section("Times", of("times")),
        html.section("Policies", of("policies")) if "policies" in drawn else "",
        html.section("Warnings", html.bullets(map(str, report.cautions), "warnings")) if report.cautions else "",
        _assumptions(report, plan),
        "</main>",
    ]
    return html.document(f"Melange: {name} in simulation", parts, pictures)


def _types_table(report: Report, plan: Plan) -> str:
    rows = [(*type_cells(report, one), one.step_times) for one in report.types]
    caption = (
        "Planned load: share of the capacity that the plan's traffic uses. Busy: share of the time in which a replica "
        "ran steps. Waiting: mean number of waiting requests per replica."
    )
    return html.folding_table(
        (*TYPE_COLUMNS, "Step times"), rows, caption=caption, chips=by_run.colors_of(report, plan)
    )


def _classes_table(report: Report, plan: Plan) -> str:
    if not report.classes or report.slo is None:
        return ""
    rates = rate_by_class(plan.workload)
    rows = [(*class_cells(one, report.slo, rates), *time_cells(one)) for one in report.classes]
    return html.folding_table((*CLASS_COLUMNS, *time_columns()), rows, caption="Classes of requests; times in ms.")


def _attainment(report: Report) -> Picture:
    rows = []
    for i, o in np.argwhere(report.bucket_requests > 0).tolist():
        tables = report.bucket_times
        times = (f"{ms(tables[metric][name][i, o]):,.1f}" for metric in METRICS for name in ("p50", "p99"))
        shares = (
            percent(float(report.bucket_requests[i, o]), 2),
            percent(float(report.bucket_attainment[i, o]), 2),
        )
        rows.append((report.buckets.label(i, o), *shares, *times))
    columns = (f"{_short(metric)} {name} [ms]" for metric in METRICS for name in ("p50", "p99"))
    return Picture(
        name="attainment",
        about="Requests that met the SLO, by size",
        caption="Each cell: the share of that size's requests that met every limit. Sizes with few "
        "requests vary by chance; the numbers below give each size's share of the requests.",
        variants=(Variant(label="", figure=by_run.figure_attainment(report)),),
        header=("Request size [tokens]", "Share of requests", "Met the SLO", *columns),
        rows=tuple(rows),
        min_width=62 * int((report.bucket_requests.sum(axis=0) > 0).sum()) + 110,
    )


def _times(report: Report, colors: Sequence[str]) -> Picture:
    limited = list(report.slo.limits) if report.slo else []
    order = [*limited, *(metric for metric in TIMES if metric not in limited)]
    shown = [metric for metric in order if report.times.get(metric)]
    rows = []
    for metric in shown:
        lines = [("all", report.times), *((one.name, one.times) for one in report.types if len(report.types) > 1)]
        for name, times in lines:
            values = times.get(metric) or {}
            cells = (f"{ms(values[one]):,.1f}" if one in values else "-" for one in PERCENTILES)
            rows.append((by_run.TIME_NAME_BY_METRIC[metric], name, *cells))
    return Picture(
        name="times",
        about="Times by percentile",
        caption="Over all counted requests that were served, and by type. The time to first token includes queueing. "
        "The first requests of each run, at least a tenth, meet empty replicas and are not counted; nor is the last "
        "tenth of steady traffic, in which fewer and fewer requests run.",
        variants=tuple(
            Variant(label=by_run.TIME_NAME_BY_METRIC[metric], figure=by_run.figure_times(report, metric, colors))
            for metric in shown
        ),
        choice="Time",
        header=("Time", "Of", *(f"{one} [ms]" for one in PERCENTILES)),
        rows=tuple(rows),
    )


def _utilization(report: Report, colors: Sequence[str]) -> Picture:
    return Picture(
        name="utilization",
        about="Planned and observed load",
        caption="Planned load is the sum of the loads of all request sizes. A replica is busy whenever it "
        "runs a step, even with few requests in it, so busy is far above load when requests are few.",
        variants=(Variant(label="", figure=by_run.figure_utilization(report, colors)),),
    )


def _queue(report: Report, colors: Sequence[str]) -> Picture:
    return Picture(
        name="queue",
        about="Waiting requests over time",
        caption="Sum over the replicas of a type, in the first run, sampled.",
        variants=(Variant(label="", figure=by_run.figure_queue(report, colors)),),
    )


def _causes(report: Report) -> Picture:
    return Picture(
        name="causes",
        about="Why requests missed the SLO",
        caption="For each request that missed: its largest delay, beyond the time it takes alone on an idle replica.",
        variants=(Variant(label="", figure=by_run.figure_causes(report)),),
        header=("Cause", "Share of all requests", "Meaning"),
        rows=tuple((name, f"{share:.3%}", CAUSES[name]) for name, share in report.causes.items()),
    )


def _policies(reports: Sequence[Report]) -> Picture:
    limited = list(reports[0].slo.limits) if reports[0].slo else []
    stats = [(m, name) for m in dict.fromkeys((*limited, "ttft", "latency")) for name in ("mean", "p99")]
    rows = []
    for one in sorted(reports, key=lambda each: -(each.attainment.value if each.attainment else 0.0)):
        held = one.attainment
        ends = (percent(held.value, 2), percent(held.low, 2), percent(held.high, 2)) if held else ("-", "-", "-")
        rows.append((one.policy, *ends, *(f"{ms(one.times[m].get(name, np.nan)):,.1f}" for m, name in stats)))
    columns = (f"{_short(m)} {name} [ms]" for m, name in stats)
    return Picture(
        name="policies",
        about="The same plan and requests under other policies",
        caption="Dots: share of the requests that met the SLO; bars: 95 % intervals. Black: the plan's own policy.",
        variants=(Variant(label="", figure=by_run.figure_policies(reports)),),
        header=("Policy", "Met the SLO", "At least", "At most", *columns),
        rows=tuple(rows),
    )


def _assumptions(report: Report, plan: Plan) -> str:
    kinds = sorted({one.step_times for one in report.types})
    each = f"; here each request by itself: {limits_in_words(report.slo)}" if report.slo else ""
    items = [
        f"Model: {plan.model or 'not named'}",
        f"SLO: {plan.slo or 'not named'}{each}",
        f"Requests: {significant(report.rate, 4)}/s; {report.source}",
        f"Simulated: {simulated(report)}",
        f"Fleet: {usd(report.cost_per_h)}/h; policy {report.policy}; scenario {report.scenario}",
        f"Step times: {' and '.join(kinds)}"
        + ("" if report.steps == "as-planned" else f", {report.steps}: the {report.steps}est tenth measured"),
        "Engine: continuous batching, chunked prompts where the engine chunks them, paged KV cache, preemption with "
        "recomputation, first come first served",
    ]
    return html.section("Assumptions", html.bullets(items))


def _short(metric: str) -> str:
    return "Latency" if metric == "latency" else metric.upper()
