"""The command of the plan stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import Inputs, JsonFlag, OnOption, OutOption, QuickFlag, events, file_to_write, save_and_print
from melange.errors import InfeasibleError, InputError
from melange.processes import on_cluster

if TYPE_CHECKING:
    from rich.console import RenderableType

    from melange.plan.disaggregated import DisaggregatedPlan
    from melange.plan.plan import Plan
    from melange.service.session import Session


_DOES_NOT_HOLD = 1  # a plan is written, but the SLO is not shown to hold; 2 is an error


@dataclass(frozen=True)
class _Flags:
    """How to plan, and what to print about the plan."""

    drop_unservable: Annotated[
        bool, typer.Option("--drop-unservable", help="Leave out request sizes that no type can serve.")
    ] = False
    incumbent: Annotated[
        Path | None,
        typer.Option(help="The current plan.json: among equally cheap plans, choose the one with the fewest changes."),
    ] = None
    explained: Annotated[
        bool, typer.Option("--explain", help="Show what would change the answer, and by how much.")
    ] = False
    quick: QuickFlag = False
    certified: Annotated[
        bool,
        typer.Option(
            "--certify",
            help="Certify by simulation, or fail; by default, plans are certified unless slo.statistic is set.",
        ),
    ] = False
    burstiness: Annotated[
        float | None,
        typer.Option(
            help="Coefficient of variation of the times between simulated arrivals; 1 is Poisson. Default: the "
            "service's log as recorded, or 1 without a log."
        ),
    ] = None
    anchors: Annotated[
        list[str] | None,
        typer.Option(
            "--anchor",
            help="Load-test results that correct the estimates: a folder such as results/, a file, or NAME=PATH "
            "(repeatable).",
        ),
    ] = None
    observed: Annotated[
        Path | None,
        typer.Option(help="Step times of live replicas (/factors.json of melange balance): correct the estimates."),
    ] = None
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Also write the plan as one HTML page with charts.", callback=file_to_write),
    ] = None

    def check(self) -> None:
        """Reject flags that exclude each other."""
        if self.quick and self.certified:
            raise InputError("--quick simulates nothing, but --certify simulates", hint="leave out one of them")
        if self.burstiness is not None and self.quick:
            raise InputError("--burstiness applies to simulated requests, but --quick simulates none")

    def check_for_pools(self, profiles: Sequence[Path]) -> None:
        """Reject flags that apply only to one fleet."""
        for flag, value in (
            ("--profile", profiles),
            ("--incumbent", self.incumbent),
            ("--explain", self.explained),
            ("--report", self.report),
        ):
            if value:
                raise InputError(
                    f"{flag} is for one fleet, but plan.disaggregate plans two pools",
                    hint="leave it out, or --set plan.disaggregate=false",
                )

    def check_for_one_fleet(self, why: str, hint: str) -> None:
        """Reject flags that apply only to a plan of one fleet."""
        for flag, value in (
            ("--incumbent", self.incumbent),
            ("--explain", self.explained),
            ("--certify", self.certified),
            ("--anchor", self.anchors),
            ("--observed", self.observed),
        ):
            if value:
                raise InputError(f"{flag} is for one fleet, {why}", hint=hint)

    def answer(self, session: Session, incumbent: Plan | None) -> Plan:
        """The plan as requested."""
        if self.quick:
            try:
                return session.plan(incumbent=incumbent)
            except InfeasibleError as error:
                if session.slo.is_on_requests and "--drop-unservable" in error.hint:
                    misses = 100 * (1 - session.slo.target)
                    error.hint += f"; or leave out --quick: in a certified plan, {misses:.6g}% of the requests may miss"
                raise
        if self.certified:
            return session.certified(incumbent=incumbent, burstiness=self.burstiness)
        return session.answer(incumbent=incumbent, burstiness=self.burstiness)


@with_flags
def plan(
    flags: _Flags,
    inputs: Inputs,
    on: OnOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the cheapest fleet that meets the SLO, and certify it.

    A simulation of every request certifies the plan. Exit code 1: the plan was saved, but the simulation does not
    show that it meets the SLO.
    A file with a list of services plans all of them on the pools that they share.
    """
    from melange.plan.disaggregated import DisaggregatedPlan
    from melange.present.terminal import plan_tables
    from melange.present.terminal.explanation import explanation_page
    from melange.service.disaggregation import in_pools, is_asked
    from melange.service.fleet_file import is_fleet
    from melange.service.given import check_incumbent
    from melange.service.reading import is_regional
    from melange.service.stay_or_switch import stay_or_switch

    flags.check()
    if out is not None and out == flags.report:
        raise InputError(f"--out and --report both name {out}", hint="--out gets JSON, --report a page")
    if inputs.source is not None and is_fleet(inputs.source):
        with on_cluster(on):
            plan_fleet(flags, inputs, out, as_json)
        return
    if inputs.source is not None and is_regional(inputs.source, inputs.settings or ()):
        with on_cluster(on):
            plan_regions(flags, inputs, out, as_json)
        return
    with on_cluster(on), events() as listener:
        session = inputs.session(
            listener,
            ["plan.drop_unservable=true"] if flags.drop_unservable else [],
            flags.anchors or (),
            flags.observed,
        )
        in_force = _read(flags.incumbent)
        if in_force is not None:
            check_incumbent(in_force, session.profile().model)
        if is_asked(session):
            flags.check_for_pools(inputs.profile_files or ())
            asked = partial(flags.answer, incumbent=None)
            pools = in_pools(session, asked, quick=flags.quick, burstiness=flags.burstiness)
        else:
            pools = flags.answer(session, in_force)
        if isinstance(pools, DisaggregatedPlan):
            _print_pools(pools, out, as_json)
            return
        found = pools
        decision = None
        if in_force is not None:
            found, decision = stay_or_switch(session, found, in_force, quick=flags.quick)
        reasons = session.explanation(found) if flags.explained else None
    if flags.report is not None:
        _write_report(flags.report, session, found)
    extra = {} if reasons is None else {"explain": reasons.to_json()}
    if in_force is not None:
        extra["changes"] = found.changes_from(in_force)
    if decision is not None:
        extra["decision"] = decision.to_json()
    save_and_print(
        found,
        out,
        as_json,
        lambda noun: plan_tables.plan_page(noun, in_force, decision),
        more=extra or None,
        more_page=_last_words(found, inputs.source, None if reasons is None else explanation_page(reasons, found)),
    )
    if found.holds is False:
        raise typer.Exit(_DOES_NOT_HOLD)


def _print_pools(pools: DisaggregatedPlan, out: Path | None, as_json: bool) -> None:
    """Print a plan in two pools; exit code 1 if they are not shown to meet the SLO."""
    from melange.present.terminal.disaggregated_page import disaggregated_page

    save_and_print(pools, out, as_json, disaggregated_page)
    if pools.holds is False:
        raise typer.Exit(_DOES_NOT_HOLD)


def _last_words(found: Plan, source: Path | None, explanation: RenderableType | None) -> RenderableType | None:
    """What would change the answer, if requested, and the load points to run before renting the plan."""
    from melange.present.terminal.suggestions import load_points_part
    from melange.service.session import is_service

    points = load_points_part(found, str(source)) if source is not None and is_service(source) else None
    if explanation is None or points is None:
        return explanation or points
    from rich.console import Group

    return Group(explanation, "", points)


def plan_fleet(flags: _Flags, inputs: Inputs, out: Path | None, as_json: bool) -> None:
    """Plan the services of a ``fleet.yaml``; each service's plan is written next to the joint file."""
    from melange.files import write_text
    from melange.present.pages.fleet_report import fleet_html
    from melange.present.terminal.fleet_page import fleet_page
    from melange.service.fleet_session import FleetSession

    flags.check_for_one_fleet("but this file lists several services", "plan the service's own file")
    if inputs.workload_file is not None or inputs.profile_files:
        raise InputError("--workload and --profile are for one service, but this file lists several")
    with events() as listener:
        session = FleetSession(
            inputs.source or Path(),
            settings=inputs.settings or (),
            drop_unservable=flags.drop_unservable,
            listener=listener,
        )
        found = session.plan() if flags.quick else session.answer(burstiness=flags.burstiness)
    if flags.report is not None:
        write_text(flags.report, fleet_html(found, session.name))
    if out is not None:
        for name, one in found.plans.items():
            one.save(out.with_name(f"{out.stem}-{name}.json"))
    save_and_print(found, out, as_json, fleet_page)
    if found.holds is False:
        raise typer.Exit(_DOES_NOT_HOLD)


def plan_regions(flags: _Flags, inputs: Inputs, out: Path | None, as_json: bool) -> None:
    """Plan a service with users in several places; each region's plan is written next to the joint file."""
    from melange.present.terminal.regions_page import regions_page
    from melange.service.regional_session import RegionalSession

    flags.check_for_one_fleet("but this service has several regions", "plan without regions:")
    if flags.report is not None:
        raise InputError("--report is for one region, but this service has several", hint="--out regions.json")
    if inputs.workload_file is not None or inputs.profile_files:
        raise InputError("--workload and --profile are for one region, but this service has several")
    more = ["plan.drop_unservable=true"] if flags.drop_unservable else []
    with events() as listener:
        session = RegionalSession(
            inputs.source or Path(), settings=[*(inputs.settings or ()), *more], listener=listener
        )
        found = session.plan() if flags.quick else session.answer(burstiness=flags.burstiness)
    if out is not None:
        for name, one in found.plans.items():
            one.save(out.with_name(f"{out.stem}-{name}.json"))
    save_and_print(found, out, as_json, regions_page)
    if found.holds is False:
        raise typer.Exit(_DOES_NOT_HOLD)


def _read(file: Path | None) -> Plan | None:
    from melange.plan.plan import Plan

    return None if file is None else Plan.read(file)


def _write_report(path: Path, session: Session, found: Plan) -> None:
    """Write the page of the plan."""
    from datetime import UTC, datetime

    from melange.files import write_text
    from melange.present.pages.plan_page import report_page, report_pictures
    from melange.present.study import Study, compared_types

    with events("drawing"):
        study = Study(exploration=session.explore(found, compared_types(found)), day=datetime.now(UTC).date())
        write_text(path, report_page(study, report_pictures(study), session.name))
