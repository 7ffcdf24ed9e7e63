"""The command that serves the HTTP API."""

from __future__ import annotations

import os
from typing import Annotated

import typer


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; other than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8090,
    token_env: Annotated[
        str, typer.Option("--token-env", metavar="NAME", help="Environment variable with the token of clients.")
    ] = "MELANGE_API_TOKEN",
    parallel: Annotated[int, typer.Option("--jobs", min=1, max=256, help="Maximum parallel jobs.")] = 2,
    limit: Annotated[str, typer.Option("--limit", help="Time limit of a job, for example 10m.")] = "10m",
    memory_gib: Annotated[float, typer.Option("--memory", min=1, help="Memory limit of a job [GiB].")] = 8.0,
) -> None:
    """Serve plans, validations, what-ifs and manifests over HTTP, with OpenAPI at /docs."""
    from melange.cli.terminal import need_extra
    from melange.units import GIB
    from melange.workload.clock import parse_duration

    need_extra("serve", "serve", "fastapi", "uvicorn")
    import uvicorn

    from melange.serve.api import application
    from melange.serve.guard import check_reachable
    from melange.serve.job import Limits

    token = os.environ.get(token_env, "")
    hosts = check_reachable(host, token, token_env)
    limits = Limits(time_s=parse_duration(limit, name="--limit"), memory_bytes=memory_gib * GIB)
    app = application(token=token, parallel=parallel, limits=limits, hosts=hosts)
    typer.echo(f"http://{host}:{port}/docs describes the API", err=True)
    uvicorn.run(app, host=host, port=port, log_level="warning")
