"""The command that serves the page for choosing a fleet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from melange.cli.server_options import HostOption, MemoryOption, PortOption, limits_of
from melange.cli.terminal import SetOption


def ui(
    source: Annotated[Path, typer.Argument(help="A service.yaml, or a fleet.yaml with services on shared pools.")],
    settings: SetOption = None,
    logs: Annotated[
        list[Path] | None, typer.Option("--log", metavar="PATH", help="A log that the page offers (repeatable).")
    ] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8091,
    token_env: Annotated[
        str, typer.Option("--token-env", metavar="NAME", help="Environment variable with the token to log in with.")
    ] = "MELANGE_UI_TOKEN",
    parallel: Annotated[int, typer.Option("--jobs", min=1, max=256, help="Maximum parallel certifications.")] = 2,
    limit: Annotated[str, typer.Option("--limit", help="Time limit of a certification, for example 10m.")] = "10m",
    memory_gib: MemoryOption = 8.0,
) -> None:
    """Choose a fleet on a local web page.

    Results update as you drag, and the choice is then certified. The page shows the cost by traffic, SLO, offers and
    redundancy. It needs no internet.
    """
    from melange.cli.terminal import need_extra

    need_extra("ui", "ui", "fastapi", "uvicorn")
    import uvicorn

    from melange.serve.guard import check_reachable
    from melange.ui.opened import opened
    from melange.ui.page_server import page_application

    token = os.environ.get(token_env, "")
    hosts = check_reachable(host, token, token_env)
    limits = limits_of(limit, memory_gib)
    found = opened(source, settings or (), logs or ())
    app = page_application(found, token=token, hosts=hosts, parallel=parallel, limits=limits)
    typer.echo(f"Page: http://{host}:{port}/  (Ctrl-C stops)", err=True)
    uvicorn.run(app, host=host, port=port, log_level="warning")
