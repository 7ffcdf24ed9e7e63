"""The command of the deploy stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import JsonFlag, keep_text, need_plan
from melange.errors import Caution, InputError, some_of

if TYPE_CHECKING:
    from melange.deploy.manifest import Manifest
    from melange.deploy.target import Declared


@dataclass(frozen=True)
class _Flags:
    """Options of targets: gateways' options have their own flags, and ``--option`` sets any option of any target."""

    replica: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL",
            help="Address of a replica: its type or accelerator, and http://host:port; once per replica.",
        ),
    ] = None
    listen: Annotated[str | None, typer.Option(help="Address a gateway listens on (127.0.0.1:8080).")] = None
    bytes_per_token: Annotated[float | None, typer.Option(help="Body bytes per prompt token (4).")] = None
    envelope_bytes: Annotated[
        int | None, typer.Option(min=0, max=1 << 30, help="Body bytes that are not prompt (100).")
    ] = None
    max_body_bytes: Annotated[
        int | None,
        typer.Option(min=1, max=1 << 40, help="Reject longer bodies; default: twice the plan's longest prompt."),
    ] = None
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option of the target; --list shows them (repeatable)."),
    ] = None

    def options(self, target: Declared[Any]) -> dict[str, Any]:
        """Options of a target from flags and from ``--option``."""
        from melange.deploy.pools import parse_replicas

        flags = {
            "replicas": parse_replicas(self.replica) if self.replica else None,
            "listen": self.listen,
            "bytes_per_token": self.bytes_per_token,
            "envelope_bytes": self.envelope_bytes,
            "max_body_bytes": self.max_body_bytes,
        }
        said = {name: value for name, value in flags.items() if value is not None}
        given = target.read(self.option or [])
        if twice := sorted(set(said) & set(given)):
            raise InputError(f"--option {twice[0]} is also given by its own flag")
        return said | given


@with_flags
def deploy(
    flags: _Flags,
    source: Annotated[
        Path | None,
        typer.Argument(help="A plan.json (melange plan --out), or a schedule.json (melange schedule --out)."),
    ] = None,
    to: Annotated[str, typer.Option(help="The target, for example kubernetes or haproxy; --list shows all.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the files to this folder; default: print them.")
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option("--diff", metavar="PLAN", help="Print the differences from another plan's files."),
    ] = None,
    is_list: Annotated[
        bool, typer.Option("--list", help="List all targets with their options, or the one named by --to.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write manifests or a gateway's configuration for a plan."""
    if is_list:
        _print_targets(to, as_json)
        return
    if source is None or not to:
        raise InputError(
            "a plan.json and a target are needed",
            hint="melange deploy plan.json --to kubernetes; melange deploy --list shows all targets",
        )
    if out is not None and out.is_file():
        raise InputError(f"--out {out}: is a file; a folder is needed")
    if before is not None and (out is not None or as_json):
        raise InputError("--diff prints differences and writes no files", hint="leave out --out and --json")
    for file in (source, before):
        need_plan(file, f"melange deploy plan.json --to {to}")
    if is_schedule(source):
        if before is not None:
            raise InputError("--diff is for plans, but this is a schedule")
        _finish(_rule_of(source, to, flags), out, as_json)
        return
    from melange.deploy.render import TARGETS, render, target_of
    from melange.deploy.scaling_rule import SCHEDULE_TARGETS
    from melange.plan.plan import Plan

    if to in SCHEDULE_TARGETS and to not in TARGETS:
        raise InputError(f"{to} is a target of schedules", hint="melange schedule service.yaml --out schedule.json")
    options = flags.options(target_of(to))
    manifest = render(Plan.read(source), to, **options)
    if before is None:
        _finish(manifest, out, as_json)
    else:
        _print_difference(render(Plan.read(before), to, **options), manifest)


def is_schedule(source: Path) -> bool:
    """Whether a file contains a schedule."""
    from melange.files import read_json

    return str(read_json(source).get("melange", "")).startswith("schedule/")


def _rule_of(source: Path, to: str, flags: _Flags) -> Manifest:
    """The files of a schedule's rule."""
    from melange.deploy.scaling_rule import render_rule, schedule_target_of
    from melange.plan.schedule.schedule import Schedule

    target = schedule_target_of(to)
    return render_rule(Schedule.read(source), to, flags.options(target))


def _print_difference(before: Manifest, manifest: Manifest) -> None:
    """A unified diff on stdout; cautions about the new files on stderr, and a note when nothing differs."""
    from melange.deploy.difference import difference
    from melange.present.terminal import layout

    terminal = layout.console(stderr=True)
    text = difference(before, manifest)
    typer.echo(text, nl=False)
    if not text:
        terminal.print("no differences")
    if manifest.cautions:
        terminal.print(layout.cautions(manifest.cautions))


def _finish(manifest: Manifest, out: Path | None, as_json: bool) -> None:
    """Save or print the files, with their cautions."""
    from melange.present.terminal import layout

    terminal = layout.console(stderr=True)
    written = manifest.write(out) if out is not None else ()
    cautions = (*manifest.cautions, *_other_files(written, out))
    if as_json:
        typer.echo(json.dumps(manifest.to_json() | {"warnings": [one.to_json() for one in cautions]}))
        keep_text(lambda: [str(manifest), layout.cautions(cautions)])
    elif out is None:
        typer.echo(str(manifest), nl=False)
    if cautions and not as_json:
        terminal.print(layout.cautions(cautions))
    for path in written:
        terminal.print(f"saved to {path}")


def _other_files(written: Sequence[Path], out: Path | None) -> list[Caution]:
    """A caution about files of the same kind in the manifest's own folders, such as those of an earlier plan.

    ``kubectl apply -f manifests/`` would start what they describe. The top folder may be the user's, and is left alone.
    """
    own = {path.parent: path.suffix for path in written if path.parent != out}
    others = [
        str(path) for folder, suffix in own.items() for path in sorted(folder.glob(f"*{suffix}")) if path not in written
    ]
    if not others:
        return []
    are, them = ("are", "them") if len(others) > 1 else ("is", "it")
    told = f"{some_of(others)} {are} not part of this plan; delete {them} if an earlier plan wrote {them}"
    return [Caution("other-files", told)]


def _print_targets(to: str, as_json: bool) -> None:
    from melange.deploy.render import TARGETS, target_of
    from melange.deploy.scaling_rule import SCHEDULE_TARGETS
    from melange.present.terminal import layout, targets

    listed: list[Declared[Any]] = [*TARGETS.values(), *SCHEDULE_TARGETS.values()]
    if to:
        listed = [one for one in listed if one.name == to] or [target_of(to)]
    if as_json:
        typer.echo(json.dumps({"targets": [one.to_json() for one in listed]}))
        return
    layout.console().print(targets.targets_page(listed))
