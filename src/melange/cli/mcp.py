"""The command that offers Melange's functions to assistants, over MCP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from melange.cli.server_options import (
    HostOption,
    JobsOption,
    LimitOption,
    MemoryOption,
    PortOption,
    TokenEnvOption,
    limits_of,
)


def mcp(
    folder: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Folder in which assistants may read files and write new ones; default: the current one. With --http: "
                "none."
            )
        ),
    ] = None,
    remote: Annotated[
        bool, typer.Option("--remote", help="Also read databases and object storage named in a service.")
    ] = False,
    http: Annotated[bool, typer.Option("--http", help="Serve over streamable HTTP at /mcp, without files.")] = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8092,
    token_env: TokenEnvOption = "MELANGE_API_TOKEN",
    parallel: JobsOption = 2,
    limit: LimitOption = "10m",
    memory_gib: MemoryOption = 8.0,
) -> None:
    """Offer planning to AI assistants (an MCP server).

    They can plan, validate, compare and deploy, over stdin and stdout or over HTTP.
    """
    from melange.cli.terminal import need_extra
    from melange.errors import InputError

    need_extra("mcp", "mcp", "mcp", "fastapi", "uvicorn")
    if http and folder is not None:
        raise InputError("--folder does not work with --http, which reads no files", hint="leave out one of them")
    if folder is not None and not folder.is_dir():
        raise InputError(f"--folder {folder}: is not a folder")
    from melange.serve.guard import check_reachable
    from melange.serve.mcp_server import Rights, mcp_server, serve_stdio

    limits = limits_of(limit, memory_gib)
    rights = Rights(folder=None if http else (folder or Path()).resolve(), is_remote=remote)
    server = mcp_server(rights=rights, parallel=parallel, limits=limits)
    if not http:
        serve_stdio(server)
        return
    import uvicorn

    from melange.serve.mcp_http import http_application

    token = os.environ.get(token_env, "")
    hosts = check_reachable(host, token, token_env)
    typer.echo(f"assistants connect to http://{host}:{port}/mcp", err=True)
    uvicorn.run(
        http_application(server, token=token, host=host, hosts=hosts), host=host, port=port, log_level="warning"
    )
