"""The command that plans over time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from melange.cli.terminal import JsonFlag, OnOption, OutOption, SetOption, events, file_to_write, save_and_print
from melange.errors import InputError
from melange.processes import on_cluster


def schedule(
    source: Annotated[Path, typer.Argument(help="A service.yaml with workload: {trace: ..., over: week}.")],
    settings: SetOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Plan and back-test only; simulate no requests.")] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Also write the schedule as one HTML page with charts.", callback=file_to_write),
    ] = None,
    on: OnOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Plan over time: what to reserve, how to scale the rest."""
    from melange.present.terminal.schedule_page import schedule_page
    from melange.service.session import Session, is_service

    if out is not None and out == report:
        raise InputError(f"--out and --report both name {out}", hint="--out gets JSON, --report a page")
    if not is_service(source):
        raise InputError(f"{source}: a schedule needs a service.yaml", hint="melange init writes one")
    with on_cluster(on), events() as listener:
        session = Session(source, settings=settings or (), listener=listener)
        found = session.schedule(quick=quick)
    if report is not None:
        from melange.files import write_text
        from melange.present.pages.schedule_report import schedule_html

        write_text(report, schedule_html(found, session.name))
    save_and_print(found, out, as_json, schedule_page)
