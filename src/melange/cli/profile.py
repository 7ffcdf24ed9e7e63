"""The command of the profile stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import JsonFlag, OnOption, OutOption, SetOption, WorkloadOption, events, save_and_print
from melange.errors import InputError
from melange.processes import on_cluster


@dataclass(frozen=True)
class _Flags:
    """Which measurements to use, and which to suggest."""

    anchors: Annotated[
        list[str] | None,
        typer.Option(
            "--anchor",
            help="Load-test results that correct the estimates: PATH, or NAME=PATH to name what was measured.",
        ),
    ] = None
    suggest: Annotated[
        int, typer.Option("--suggest-measurements", min=0, max=1000, help="Suggest the N most valuable measurements.")
    ] = 0


@with_flags
def profile(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help="A service.yaml, or another tool's profile (Mélange release, AIBrix). With --anchor, more results.",
        ),
    ],
    flags: _Flags,
    workload_file: WorkloadOption = None,
    settings: SetOption = None,
    on: OnOption = None,
    out: OutOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Estimate the request rate of one replica of each type."""
    from melange.present.terminal import inputs
    from melange.present.terminal.suggestions import suggestions_page
    from melange.service.session import Session, is_service

    source, results = _source_and_anchors(files, flags.anchors or [])
    if not is_service(source):
        if results or flags.suggest or settings:
            raise InputError(f"{source}: --anchor, --suggest-measurements and --set need a service.yaml")
        _print_file(source, workload_file, out, as_json)
        return
    with on_cluster(on), events() as listener:
        session = Session(source, workload=workload_file, settings=settings or (), anchors=results, listener=listener)
        found, suggestions = session.profile(), session.suggestions(flags.suggest) if flags.suggest else ()
    save_and_print(
        found,
        out,
        as_json,
        lambda noun: inputs.profile_page(noun, session.workload()),
        more={"suggested_measurements": [one.to_json() for one in suggestions]} if flags.suggest else None,
        more_page=suggestions_page(suggestions) if flags.suggest else None,
    )


def _print_file(source: Path, workload_file: Path | None, out: Path | None, as_json: bool) -> None:
    """Print a profile from another tool."""
    from melange.present.terminal import inputs
    from melange.profile.formats.profiles import read_profile
    from melange.workload.workload import Workload

    traffic = Workload.read(workload_file) if workload_file else None
    save_and_print(read_profile(source), out, as_json, lambda noun: inputs.profile_page(noun, traffic))


def _source_and_anchors(files: list[Path], anchors: list[str]) -> tuple[Path, list[str]]:
    """The service among the files; the other files are anchors if a shell expanded a pattern after ``--anchor``."""
    from melange.service.session import is_service

    if len(files) == 1:
        return files[0], anchors
    services = [file for file in files if is_service(file)]
    if len(services) != 1 or not anchors:
        listed = ", ".join(map(str, files))
        raise InputError(f"one service.yaml is needed, got {listed}", hint="name results after --anchor")
    return services[0], [*anchors, *(str(file) for file in files if file != services[0])]
