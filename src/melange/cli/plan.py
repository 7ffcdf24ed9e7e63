"""The command of the plan stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import Inputs, JsonFlag, OutOption, events, save_and_print
from melange.errors import InputError

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.service.session import Session


@dataclass(frozen=True)
class _Flags:
    """How to plan, and what to say of the plan."""

    drop_unservable: Annotated[
        bool, typer.Option("--drop-unservable", help="Plan for the rest when some sizes cannot be served.")
    ] = False
    incumbent: Annotated[
        Path | None,
        typer.Option(help="The plan.json in force: of equally cheap plans choose the one with the fewest changes."),
    ] = None
    explained: Annotated[bool, typer.Option("--explain", help="Say what would change the answer, and by how much.")] = (
        False
    )
    certified: Annotated[
        bool, typer.Option("--certify", help="Simulate, and buy exactly the headroom that the SLO needs.")
    ] = False
    burstiness: Annotated[
        float, typer.Option(help="With --certify: coefficient of variation of the times between arrivals.")
    ] = 1.0
    report: Annotated[
        Path | None, typer.Option("--report", help="Write the plan's own page, with pictures, as one HTML file.")
    ] = None

    def check(self) -> None:
        """Refuse flags that exclude each other."""
        if self.burstiness != 1.0 and not self.certified:
            raise InputError("--burstiness is of the requests that --certify simulates", hint="add --certify")
        if self.incumbent is not None and self.certified:
            raise InputError("--incumbent chooses among proven plans, and --certify searches by simulation")


@with_flags
def plan(
    flags: _Flags,
    inputs: Inputs,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the cheapest mix that carries the traffic within the SLO."""
    from melange.present.terminal import plan_tables
    from melange.present.terminal.explanation import explanation_page

    flags.check()
    if out is not None and out == flags.report:
        raise InputError(f"--out and --report both name {out}", hint="--out gets JSON, --report a page")
    with events() as listener:
        session = inputs.session(listener, ["plan.drop_unservable=true"] if flags.drop_unservable else [])
        in_force = _read(flags.incumbent)
        found = session.certified(burstiness=flags.burstiness) if flags.certified else session.plan(incumbent=in_force)
        reasons = session.explanation(found) if flags.explained else None
    if flags.report is not None:
        _write_report(flags.report, session, found)
    more = {} if reasons is None else {"explain": reasons.to_json()}
    if in_force is not None:
        more["changes"] = found.changes_from(in_force)
    save_and_print(
        found,
        out,
        as_json,
        lambda noun: plan_tables.plan_page(noun, in_force),
        more=more or None,
        more_page=None if reasons is None else explanation_page(reasons, found),
    )


def _read(file: Path | None) -> Plan | None:
    from melange.plan.plan import Plan

    return None if file is None else Plan.read(file)


def _write_report(path: Path, session: Session, found: Plan) -> None:
    """The plan's own page."""
    from datetime import UTC, datetime

    from melange.files import write_text
    from melange.present.pages.plan_page import report_page, report_pictures
    from melange.present.study import Study

    with events("drawing"):
        study = Study(exploration=session.explore(found), day=datetime.now(UTC).date())
        write_text(path, report_page(study, report_pictures(study), session.name))
