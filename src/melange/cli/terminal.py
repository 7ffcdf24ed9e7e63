"""What all commands share: flags, progress, output."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melange.errors import InputError
from melange.installed import how_to_add
from melange.paths import check_names_a_file

if TYPE_CHECKING:
    from rich.console import RenderableType

    from melange.files import Json
    from melange.plan.disaggregated import DisaggregatedPlan
    from melange.plan.joint.joint_plan import JointPlan
    from melange.plan.plan import Plan
    from melange.plan.regions.regional_plan import RegionalPlan
    from melange.plan.schedule.schedule import Schedule
    from melange.profile.profile import Profile
    from melange.service.events import Listener, TaskEvent
    from melange.service.session import Session
    from melange.workload.demand import Demand
    from melange.workload.workload import Workload

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]

QuickFlag = Annotated[bool, typer.Option("--quick", help="Plan by closed form only: seconds, no simulation.")]


def file_to_write(path: Path | None) -> Path | None:
    """Refuse a folder before hours of work, not after."""
    if path is not None:
        check_names_a_file(path)
    return path


OutOption = Annotated[
    Path | None, typer.Option("--out", help="Also save to this file (replaced atomically).", callback=file_to_write)
]

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the service, for example workload.rate=32."),
]


WorkloadOption = Annotated[
    Path | None, typer.Option("--workload", help="A workload.json instead of the service's workload.")
]

ProfileOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--profile",
        metavar="FILE",
        help="A profile.json instead of the service's (repeatable, if their replica types differ).",
    ),
]


@dataclass(frozen=True)
class Inputs:
    """The input of a plan: a service, or files that replace it.

    Parameters
    ----------
    workload_file, profile_files
        Files that replace the service's own workload and profile.
    settings
        Values of ``--set``, ``key=value``.
    """

    source: Annotated[
        Path | None, typer.Argument(help="A service.yaml, or a configuration of the authors' release.")
    ] = None
    workload_file: WorkloadOption = None
    profile_files: ProfileOption = None
    settings: SetOption = None

    def session(
        self, listener: Listener, more: Sequence[str] = (), anchors: Sequence[str] = (), observed: Path | None = None
    ) -> Session:
        """Open the input, with settings in addition to those of the command line, and results of load tests."""
        from melange.service.session import Session

        return Session(
            self.source,
            workload=self.workload_file,
            profiles=self.profile_files or (),
            settings=[*(self.settings or ()), *more],
            anchors=anchors,
            factors=observed,
            listener=listener,
        )


OnOption = Annotated[
    str | None,
    typer.Option("--on", metavar="ADDRESS", help="Run long computations on a Ray cluster: ray://host:10001, or local."),
]


def save_and_print(
    result: Workload | Demand | Profile | Plan | Schedule | JointPlan | RegionalPlan | DisaggregatedPlan,
    out: Path | None,
    as_json: bool,
    page: Callable[[Any], RenderableType],
    *,
    more: Json | None = None,
    more_page: RenderableType | None = None,
) -> None:
    """Save, then print: the page with any extra parts, or everything as JSON and nothing else.

    The page is made first: if this fails, nothing may have been written.
    """
    from melange.present.terminal import layout

    shown = None if as_json else page(result)
    if out is not None:
        result.save(out)
    if as_json:
        typer.echo(result.dumps() if more is None else json.dumps(json.loads(result.dumps()) | more))
        keep_text(lambda: [page(result), *(() if more_page is None else ("\n", more_page))])
        return
    layout.console().print(shown)
    if out is not None:
        layout.console(stderr=True).print(f"\nsaved to {out}")
    if more_page is not None:
        layout.console().print("", more_page, sep="\n")


def keep_text(parts: Callable[[], Sequence[RenderableType]]) -> None:
    """If ``MELANGE_TEXT`` names a file, write the text there that ``--json`` omits: servers show both."""
    if not (file := os.environ.get("MELANGE_TEXT")):
        return
    from melange.files import write_text
    from melange.present.terminal import layout

    write_text(file, layout.as_text(parts()))


def need_plan(source: Path | None, then: str) -> None:
    """Reject a service where a plan is needed; ``then`` is the command for the plan."""
    from melange.service.session import is_service

    if source is not None and is_service(source):
        raise InputError(
            f"{source} is a service, not a plan", hint=f"melange plan {source} --out plan.json, then {then}"
        )


def need_live(command: str, *modules: str) -> None:
    """Reject a command that talks to servers when the packages it needs are not installed."""
    need_extra(command, "live", *modules)


def need_extra(command: str, extra: str, *modules: str) -> None:
    """Reject a command when the packages of an extra are not installed."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        raise InputError(f"melange {command} needs {absent[0]}, which is not installed", hint=how_to_add(extra))


@contextlib.contextmanager
def events(words: str = "") -> Iterator[Listener]:
    """A spinner on a terminal's stderr that shows what a session does; silent elsewhere.

    With ``MELANGE_PROGRESS=json``, each event is a line of JSON on stderr instead. ``words`` are shown at once, for
    work outside a session.
    """
    if os.environ.get("MELANGE_PROGRESS") == "json":
        yield _as_json
        return
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from melange.present.terminal import layout

    status = layout.console(stderr=True).status(words)

    def show(event: TaskEvent) -> None:
        status.update(f"{event.task}: {event.news}" if event.news else event.task)
        if event.is_done:
            status.stop()
        else:
            status.start()

    if words:
        status.start()
    try:
        yield show
    finally:
        status.stop()


def _as_json(event: TaskEvent) -> None:
    content = {"task": event.task, "news": event.news, "is_done": event.is_done}
    print(json.dumps(content), file=sys.stderr, flush=True)


def parse_columns(text: str | None) -> dict[str, str] | None:
    """``ROLE=NAME,...`` as a mapping."""
    return None if text is None else parse_pairs(text, "--columns", "arrival=ts,input=prompt,output=completion")


def parse_pairs(text: str, flag: str, example: str) -> dict[str, str]:
    """``KEY=VALUE,...`` as a mapping; the flag and an example are for the error."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(equals and name and value for name, equals, value in pairs):
        raise InputError(f"{flag} must be KEY=VALUE,..., got {text!r}", hint=example)
    return {name.strip(): value.strip() for name, _, value in pairs}


def parse_where(conditions: Sequence[str] | None) -> dict[str, Any] | None:
    """``FIELD=VALUE`` texts as a mapping; values are YAML; if a field is repeated, any of its values matches."""
    from melange.parsing import parse_yaml

    where: dict[str, list[Any]] = {}
    for condition in conditions or ():
        field, equals, value = condition.partition("=")
        try:
            parsed = parse_yaml(value, "--where")
        except InputError:
            parsed = value  # a field may have any value
        if not (equals and field.strip()) or isinstance(parsed, dict):
            raise InputError(f"--where must be FIELD=VALUE, got {condition!r}", hint="--where model=llama")
        where.setdefault(field.strip(), []).extend(parsed if isinstance(parsed, list) else [parsed])
    return {field: values[0] if len(values) == 1 else values for field, values in where.items()} or None
