"""What every command shares with the terminal: flags, progress, output."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melange.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from melange.files import Json
    from melange.plan.plan import Plan
    from melange.profile.profile import Profile
    from melange.workload.workload import Workload

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]

OutOption = Annotated[Path | None, typer.Option("--out", help="Save to this file as well (replaced atomically).")]

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of the service, for example workload.rate=32."),
]


WorkloadOption = Annotated[Path | None, typer.Option("--workload", help="A workload.json, in place of the service's.")]

ProfileOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--profile",
        metavar="<path>",
        help="A profile.json, in place of the service's (repeatable: each with types of its own).",
    ),
]


def finish(
    result: Workload | Profile | Plan,
    out: Path | None,
    as_json: bool,
    page: Callable[[Any], RenderableType],
    *,
    more: Json | None = None,
    more_page: RenderableType | None = None,
) -> None:
    """Save, then print: the page and what was asked for besides, or both as JSON and nothing else."""
    from melange.present.terminal import layout

    if out is not None:
        result.save(out)
    if as_json:
        typer.echo(result.dumps() if more is None else json.dumps(json.loads(result.dumps()) | more))
        return
    layout.console().print(page(result))
    if out is not None:
        layout.console(stderr=True).print(f"\nsaved to {out}")
    if more_page is not None:
        layout.console().print("\n", more_page)


def need_live(command: str, *modules: str) -> None:
    """Refuse a command that talks to servers where what it needs for that is not installed."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if absent:
        raise InputError(
            f"melange {command} needs {absent[0]}, which is not installed", hint="pip install 'melange[live]'"
        )


@contextlib.contextmanager
def progress(words: str) -> Iterator[Callable[[float | str], None]]:
    """A spinner on a terminal's stderr that can be told how far things are; silence where nobody watches."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from melange.present.terminal import layout

    with layout.console(stderr=True).status(words) as status:
        yield lambda news: status.update(f"{words}: {news if isinstance(news, str) else f'{news:.0%}'}")
