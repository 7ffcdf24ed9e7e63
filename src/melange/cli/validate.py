"""The command of the validate stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melange.cli.stages import is_service, parse_columns, plan_inputs
from melange.cli.terminal import JsonFlag, OutOption, SetOption, progress
from melange.errors import InputError, unknown

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.validate.report import Report
    from melange.workload.arrivals import Arrivals

ALL = "all"


def validate(
    source: Annotated[Path, typer.Argument(help="A plan.json (melange plan --out), or a service.yaml.")],
    trace: Annotated[
        Path | None, typer.Option(help="Replay this request log, its time stretched to the planned rate.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Names of the log's columns: arrival=ts,input=prompt,output=completion.")
    ] = None,
    requests: Annotated[int, typer.Option(min=2, help="Requests of one run.")] = 10_000,
    seeds: Annotated[int, typer.Option(min=1, help="Runs, each with requests of its own.")] = 5,
    scale: Annotated[float, typer.Option(help="Times the planned rate.")] = 1.0,
    arrivals: Annotated[
        str,
        typer.Option(
            help="When the log's requests come: trace (its own times, the default), poisson (sizes drawn from it)."
        ),
    ] = "",
    burstiness: Annotated[
        float, typer.Option(help="Coefficient of variation of the times between arrivals; 1 is Poisson.")
    ] = 1.0,
    policy: Annotated[
        str, typer.Option(help="How requests are balanced; all: every policy on the same requests.")
    ] = "plan-least-work",
    scenario: Annotated[
        str, typer.Option(help="What happens meanwhile: steady, ramp, double, lost-replica.")
    ] = "steady",
    steps: Annotated[
        str, typer.Option(help="Step times: as-planned; slow, fast: as a tenth of measured ones were.")
    ] = "as-planned",
    target: Annotated[
        float | None, typer.Option(help="Share of requests that must meet the SLO; default: the SLO's, or 0.995.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report as one HTML page.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="At most so many at once; default: as it is worth.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="Run on a Ray cluster: ray://host:10001.")] = None,
    settings: SetOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Play a plan out, request by request, and say what share of them met the SLO."""
    from melange.present.terminal import layout
    from melange.present.terminal.validation import validation_page

    if target is not None and not 0 < target <= 1:
        raise InputError(f"--target must be in (0, 1], got {target:g}", hint="99.5 % is 0.995")
    plan = _plan_of(source, settings or [])
    with progress("compiling the simulator (once)") as tell:
        from melange.validate.simulate import prepare

        prepare(plan, tell)
    sets = _requests(plan, trace, columns, requests, seeds, scale, arrivals, burstiness)
    reports = _reports(plan, sets, policy, scenario, steps, target, processes, on)
    first, *others = reports
    if out is not None:
        first.save(out)
    if report is not None:
        from melange.files import write_text
        from melange.present.pages.validation_page import validation_html

        write_text(report, validation_html(first, others, plan, source.name))
    if as_json:
        content = json.loads(first.dumps())
        if others:
            content["policies"] = [one.to_json() for one in others]
        typer.echo(json.dumps(content))
        return
    layout.console().print(validation_page(first, plan, others))
    for path in filter(None, (out, report)):
        layout.console(stderr=True).print(f"saved to {path}")


def _plan_of(source: Path, settings: list[str]) -> Plan:
    """The plan of a file, or of a service that is planned now."""
    from melange.plan.plan import Plan

    if not is_service(source):
        if settings:
            raise InputError(f"--set changes a service, and {source} is a plan", hint="give the service.yaml instead")
        return Plan.read(source)
    from melange.plan.solve import solve

    traffic, capacities, options = plan_inputs(source, None, None, settings)
    with progress("solving for the cheapest mix") as tell:
        return solve(traffic, capacities, options, progress=tell)


def _requests(
    plan: Plan,
    trace: Path | None,
    columns: str | None,
    requests: int,
    seeds: int,
    scale: float,
    process: str,
    burstiness: float,
) -> list[Arrivals]:
    """The requests of each run: drawn, or a log as it was, or drawn from a log's sizes."""
    from melange.validate.simulate import draw_for, planned_workload
    from melange.workload.arrivals import draw, read_arrivals

    if process not in {"", "poisson", "trace"}:
        raise unknown("arrivals", process, ("poisson", "trace"))
    if not scale > 0:
        raise InputError(f"--scale must be > 0, got {scale:g}")
    if trace is None:
        if process == "trace" or columns:
            raise InputError("--arrivals trace and --columns need a log", hint="--trace requests.parquet")
        return [draw_for(plan, requests, seed=seed, burstiness=burstiness, scale=scale) for seed in range(seeds)]
    with progress("reading the log") as tell:
        observed = read_arrivals(trace, columns=parse_columns(columns), requests=None, progress=tell)
    carried = planned_workload(plan)
    observed = observed.within(plan.workload.buckets, carried.request_rate > 0)
    rate = carried.total_rate * scale
    if process == "poisson":
        return [
            draw(carried.at_rate(rate), requests, seed=seed, burstiness=burstiness, observed=observed)
            for seed in range(seeds)
        ]
    # A log is replayed once: runs are its stretches, one after the other, as far as it goes.
    stretched = observed.at_rate(rate)
    starts = range(0, min(len(stretched), requests * seeds), requests)
    parts = [stretched.part(start, start + requests) for start in starts]
    return [part for part in parts if len(part) >= min(requests, len(stretched)) / 2]


def _reports(
    plan: Plan,
    sets: list[Arrivals],
    policy: str,
    scenario: str,
    steps: str,
    target: float | None,
    processes: int | None,
    on: str | None,
) -> list[Report]:
    """One report a policy, the plan's own first."""
    from melange.replica.policy import POLICIES
    from melange.validate.observe import report
    from melange.validate.pool import Job, run_all
    from melange.validate.scenario import find_scenario

    if policy != ALL and policy not in POLICIES:
        raise unknown("policy", policy, (*POLICIES, ALL))
    chosen = POLICIES if policy == ALL else (policy,)
    course = find_scenario(scenario)
    jobs = [
        Job(plan=plan, arrivals=one, policy=name, scenario=course, steps=steps, seed=seed)
        for name in chosen
        for seed, one in enumerate(sets)
    ]
    with progress("simulating") as tell:
        runs = run_all(jobs, processes=processes, on=on, progress=tell)
    return [report(runs[k * len(sets) : (k + 1) * len(sets)], target=target) for k in range(len(chosen))]
