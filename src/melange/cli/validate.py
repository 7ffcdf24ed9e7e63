"""The command of the validate stage."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import (
    JsonFlag,
    OnOption,
    OutOption,
    QuickFlag,
    SetOption,
    events,
    keep_text,
    parse_columns,
    parse_where,
)
from melange.errors import Caution, InputError, unknown
from melange.processes import on_cluster
from melange.service.events import task

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.service.session import Session
    from melange.validate.report import Report
    from melange.workload.arrivals import Arrivals

_ALL = "all"


@dataclass(frozen=True)
class _Flags:
    """The requests, and how they are simulated."""

    trace: Annotated[Path | None, typer.Option(help="Replay this request log at the planned rate.")] = None
    columns: Annotated[
        str | None, typer.Option(help="Names of the log's columns: arrival=ts,input=prompt,output=completion.")
    ] = None
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE", help="Only log rows with this value, for example model=llama."),
    ] = None
    requests: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=20_000_000,
            help="Requests per run; default: 10,000 or enough for the fleet to fill, or the whole log.",
        ),
    ] = None
    seeds: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Number of runs, each with different requests; default: 5, or 1 for a log."),
    ] = None
    scale: Annotated[float, typer.Option(help="Multiple of the planned rate.")] = 1.0
    arrivals: Annotated[
        str,
        typer.Option(
            help="Arrival times with a log: trace (as recorded, the default), poisson (sizes drawn from the log)."
        ),
    ] = ""
    burstiness: Annotated[
        float, typer.Option(help="Coefficient of variation of the times between arrivals; 1 is Poisson.")
    ] = 1.0
    policy: Annotated[str, typer.Option(help="Balancing policy; all: compare every policy on the same requests.")] = (
        "plan-least-work"
    )
    scenario: Annotated[str, typer.Option(help="Scenario: steady, ramp, double, lost-replica.")] = "steady"
    steps: Annotated[
        str, typer.Option(help="Step times: slow (10th percentile of measured speed), fast (90th) or as-planned.")
    ] = "as-planned"
    target: Annotated[
        float | None,
        typer.Option(help="Required share of requests that meet the SLO; default: the SLO's own, or 0.99."),
    ] = None
    report: Annotated[Path | None, typer.Option(help="Also write the report as one HTML page.")] = None
    processes: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Maximum parallel processes; default: automatic.")
    ] = None
    on: OnOption = None

    def check(self) -> None:
        """Reject unknown names and values out of range."""
        from melange.replica.policy import POLICIES
        from melange.validate.scenario import find_scenario
        from melange.validate.simulate import STEP_TIMES

        if self.policy != _ALL and self.policy not in POLICIES:
            raise unknown("policy", self.policy, (*POLICIES, _ALL))
        find_scenario(self.scenario)
        if self.steps not in STEP_TIMES:
            raise unknown("steps", self.steps, STEP_TIMES)
        if self.target is not None and not 0 < self.target <= 1:
            raise InputError(f"--target must be in (0, 1], got {self.target:g}", hint="99.5 % is 0.995")
        if self.arrivals not in {"", "poisson", "trace"}:
            raise unknown("arrivals", self.arrivals, ("poisson", "trace"))
        if not self.scale > 0:
            raise InputError(f"--scale must be > 0, got {self.scale:g}")
        if self.trace is None and (self.columns or self.where):
            raise InputError("--columns and --where need a log", hint="--trace requests.parquet")


# Rates that differ by less count as equal.
_SAME_RATE = 0.05
_NO_CLASS = "the log has no request classes: they are drawn from the plan's shares for each size"
# Most simulated replicas: each has its own state, and a million of them take 1 GB.
_MOST_REPLICAS = 1_000_000


@with_flags
def validate(
    source: Annotated[Path, typer.Argument(help="A plan.json (melange plan --out), or a service.yaml.")],
    flags: _Flags,
    settings: SetOption = None,
    quick: QuickFlag = False,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Simulate a plan, and report the share that met the SLO."""
    from melange.present.terminal import layout
    from melange.present.terminal.validation import validation_page

    flags.check()
    with on_cluster(flags.on):
        plan, session = _plan_of(source, settings or [], quick=quick)
        if (replicas := sum(plan.replicas.values())) > _MOST_REPLICAS:
            raise InputError(f"{source}: {replicas:,} replicas: at most {_MOST_REPLICAS:,} are simulated")
        with events() as listener, task(listener, "preparing the simulator") as tell:
            from melange.validate.simulate import prepare

            prepare(plan, tell)
        sets, said = _requests(plan, session, flags)
        first, *others = _reports(plan, sets, flags)
    first = replace(first, cautions=(*said, *first.cautions))
    if out is not None:
        first.save(out)
    if flags.report is not None:
        from melange.files import write_text
        from melange.present.pages.validation_page import validation_html

        write_text(flags.report, validation_html(first, others, plan, source.name))
    if as_json:
        content = json.loads(first.dumps())
        if others:
            content["policies"] = [one.to_json() for one in others]
        typer.echo(json.dumps(content))
        keep_text(lambda: [validation_page(first, plan, others)])
        return
    layout.console().print(validation_page(first, plan, others))
    for path in filter(None, (out, flags.report)):
        layout.console(stderr=True).print(f"saved to {path}")


def _plan_of(source: Path, settings: list[str], *, quick: bool) -> tuple[Plan, Session | None]:
    """The plan in a file, or a new plan as from ``melange plan``, with its service."""
    from melange.plan.plan import Plan
    from melange.service.session import is_service

    if not is_service(source):
        if settings:
            given = " ".join(f"--set {shlex.quote(one)}" for one in settings)
            raise InputError(
                f"--set changes a service, but {source} is a plan",
                hint=f"plan again: melange plan service.yaml {given} --out {shlex.quote(str(source))}",
            )
        if quick:
            raise InputError(f"--quick applies to planning a service, but {source} is a plan")
        return Plan.read(source), None
    from melange.service.session import Session

    with events() as listener:
        session = Session(source, settings=settings, listener=listener)
        return (session.plan() if quick else session.answer()), session


def _requests(plan: Plan, session: Session | None, flags: _Flags) -> tuple[list[Arrivals], tuple[Caution, ...]]:
    """The requests of each run, with cautions: drawn, a log as recorded, or drawn from a log's sizes.

    Without another log, the service's own log is simulated: the plan was certified on it.
    """
    from melange.validate.simulate import draw_for, planned_workload
    from melange.workload.arrivals import MOST_DRAWN
    from melange.workload.request_classes import with_classes

    burstiness = flags.burstiness
    carried, shown = planned_workload(plan), plan.certificate or plan.simulation
    # A plan that was simulated on a log at the log's own pace is made for that pace, not for a statistic of the log.
    own_pace = None if shown is None else shown.rate
    rate = flags.scale * (carried.total_rate if own_pace is None else own_pace)
    count, seeds, cautions = _runs(plan, rate, flags)
    if count * len(seeds) > MOST_DRAWN:
        raise InputError(
            f"{len(seeds)} runs of {count:,} requests: at most {MOST_DRAWN:,} requests in total",
            hint="--requests 100000",
        )
    observed = _observed(session, flags)
    if observed is None:
        if flags.arrivals == "trace":
            raise InputError("--arrivals trace needs a log", hint="--trace requests.parquet")
        scale = rate / carried.total_rate
        drawn = [draw_for(plan, count, seed=seed, burstiness=burstiness, scale=scale) for seed in seeds]
        return drawn, cautions
    context = max(engine.max_context for engine in plan.engines if engine)
    says_class = observed.class_of is not None or not plan.workload.buckets.classes
    observed = with_classes(observed, carried)
    found = _of_log(plan, observed, context, flags, rate)
    return found if says_class else (found[0], (*found[1], Caution("class", _NO_CLASS)))


def _runs(plan: Plan, rate: float, flags: _Flags) -> tuple[int, range, tuple[Caution, ...]]:
    """Requests of each run and the seeds of all of them, where requests are drawn at some rate [1/s].

    With a caution if runs end before the fleet has filled.
    """
    from melange.validate.evidence import REQUESTS, RUNS
    from melange.validate.run_lengths import enough
    from melange.validate.simulate import planned_workload

    workload = planned_workload(plan).at_rate(rate)
    count, needed = flags.requests or enough(workload, plan.slo, REQUESTS), enough(workload, plan.slo, 1)
    told = f"runs of {count:,} requests end before the fleet has filled, and may look better: {needed:,} are needed"
    return count, range(flags.seeds or RUNS), (Caution("short-runs", told),) if count < needed else ()


def _of_log(
    plan: Plan, observed: Arrivals, context: int, flags: _Flags, rate: float
) -> tuple[list[Arrivals], tuple[Caution, ...]]:
    """The requests of a log, replayed or drawn from its sizes."""
    from melange.validate.simulate import planned_workload, within_context
    from melange.workload.arrivals import draw

    carried, burstiness = planned_workload(plan), flags.burstiness
    whole = observed
    observed = within_context(observed.within(plan.workload.buckets, carried.request_rate > 0), context)
    if flags.arrivals == "poisson" or not observed.has_pace or (flags.trace is None and burstiness != 1):
        scaled, (count, seeds, cautions) = carried.at_rate(rate), _runs(plan, rate, flags)
        return [draw(scaled, count, seed=seed, burstiness=burstiness, observed=observed) for seed in seeds], cautions
    return _replayed(plan, observed, whole, flags, rate)


def _observed(session: Session | None, flags: _Flags) -> Arrivals | None:
    """The log of ``--trace``, read according to the flags or the service; or the service's own log; None: no log."""
    from melange.workload.arrivals import read_arrivals
    from melange.workload.layouts import Naming

    if flags.trace is None:
        return None if session is None else session.observed()
    naming = Naming(columns=parse_columns(flags.columns), where=parse_where(flags.where))
    if session is not None and session.service is not None and naming == Naming(columns=None, where=None):
        said = session.service.workload
        naming = Naming(columns=said.columns, trace_format=said.format, where=said.where)
    with events() as listener, task(listener, "reading the log") as tell:
        return read_arrivals(flags.trace, requests=None, progress=tell, **naming)


def _replayed(
    plan: Plan, log: Arrivals, whole: Arrivals, flags: _Flags, rate: float
) -> tuple[list[Arrivals], tuple[Caution, ...]]:
    """A log's requests as recorded: the part that the plan is made for, or all of it at a given rate [1/s].

    ``whole`` also has the requests that the plan leaves out.
    """
    from melange.validate.evidence import REQUESTS, RUNS
    from melange.validate.replay import planned_part, whole_log
    from melange.validate.simulate import planned_workload

    planned = planned_workload(plan).total_rate
    part_s, is_part = plan.workload.log_part_s, math.isclose(rate, flags.scale * planned, rel_tol=_SAME_RATE)
    if part_s is not None and is_part:
        log, own_rate = planned_part(log, part_s, planned, whole=whole)
        played, speed = log if flags.scale == 1 else log.at_rate(log.rate * flags.scale), flags.scale
    else:
        own_rate, played, speed = log.rate, log.at_rate(rate), rate / log.rate
    said = []
    if not math.isclose(own_rate * speed, rate, rel_tol=_SAME_RATE):
        wanted = rate / flags.scale
        told = f"the simulated requests arrive at {own_rate * speed:.3g}/s, but the plan is made for {wanted:.3g}/s"
        said.append(Caution("other-rate", told))
    if not math.isclose(speed, flags.scale, rel_tol=_SAME_RATE):
        told = f"the log's {own_rate:.3g} requests/s are replayed {speed:.3g} times as fast, at the plan's rate"
        said.append(Caution("other-speed", told))
    if flags.requests is None and flags.seeds is None:
        return [whole_log(played)], tuple(said)
    # Runs are consecutive parts of the log, as long as it has enough requests.
    count = flags.requests or REQUESTS
    starts = range(0, min(len(played), count * (flags.seeds or RUNS)), count)
    parts = [
        replace(part, source=f"{played.source}, {start + 1:,} to {start + len(part):,} of these")
        for start in starts
        if len(part := played.part(start, start + count)) >= min(count, len(played)) / 2
    ]
    return parts, tuple(said)


def _reports(plan: Plan, sets: list[Arrivals], flags: _Flags) -> list[Report]:
    """One report per policy, the plan's own first."""
    from melange.replica.policy import POLICIES
    from melange.validate.observe import report
    from melange.validate.pool import Job, run_all
    from melange.validate.scenario import find_scenario

    chosen = POLICIES if flags.policy == _ALL else (flags.policy,)
    course = find_scenario(flags.scenario)
    jobs = [
        Job(plan=plan, arrivals=one, policy=name, scenario=course, steps=flags.steps, seed=seed)
        for name in chosen
        for seed, one in enumerate(sets)
    ]
    with events() as listener, task(listener, "simulating") as tell:
        runs = run_all(jobs, processes=flags.processes, progress=tell)
    count = len(sets)
    return [report(runs[k * count : (k + 1) * count], target=flags.target) for k in range(len(chosen))]
