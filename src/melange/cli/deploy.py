"""The command of the deploy stage."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import JsonFlag
from melange.errors import InputError


@dataclass(frozen=True)
class _Flags:
    """Which gateway, and how it reads requests."""

    to: Annotated[str, typer.Option(help="The gateway: haproxy, envoy, nginx.")]
    replica: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL",
            help="Where a replica answers: its type or accelerator, and http://host:port; once for each replica.",
        ),
    ] = None
    listen: Annotated[str, typer.Option(help="Where the gateway listens.")] = "127.0.0.1:8080"
    bytes_per_token: Annotated[float, typer.Option(help="Bytes of a body that count as one prompt token.")] = 4.0
    envelope_bytes: Annotated[int, typer.Option(help="Bytes of a body that are not its prompt.")] = 100
    max_body_bytes: Annotated[
        int | None, typer.Option(help="Refuse longer bodies; default: twice the plan's longest prompt.")
    ] = None


@with_flags
def deploy(
    source: Annotated[Path, typer.Argument(help="A plan.json (melange plan --out).")],
    flags: _Flags,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the files to this folder; default: print them.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the configuration of a gateway that splits each request size by the plan's shares."""
    from melange.deploy.pools import parse_replicas
    from melange.deploy.render import render
    from melange.plan.plan import Plan
    from melange.present.terminal import layout

    if out is not None and out.is_file():
        raise InputError(f"--out {out}: must be a folder, and is a file")
    manifest = render(
        Plan.read(source),
        flags.to,
        replicas=parse_replicas(flags.replica) if flags.replica else None,
        listen=flags.listen,
        bytes_per_token=flags.bytes_per_token,
        envelope_bytes=flags.envelope_bytes,
        max_body_bytes=flags.max_body_bytes,
    )
    terminal = layout.console(stderr=True)
    written = manifest.write(out) if out is not None else ()
    if as_json:
        typer.echo(json.dumps(manifest.to_json()))
    elif out is None:
        typer.echo(str(manifest), nl=False)
    if manifest.cautions and not as_json:
        terminal.print(layout.cautions(manifest.cautions))
    for path in written:
        terminal.print(f"saved to {path}")
