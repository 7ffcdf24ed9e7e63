"""The command that serves the HTTP API."""

from __future__ import annotations

import os

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


def serve(
    host: HostOption = "127.0.0.1",
    port: PortOption = 8090,
    token_env: TokenEnvOption = "MELANGE_API_TOKEN",
    parallel: JobsOption = 2,
    limit: LimitOption = "10m",
    memory_gib: MemoryOption = 8.0,
) -> None:
    """Serve plans and validations over HTTP (OpenAPI).

    Also what-ifs and manifests; the API documentation is at /docs.
    """
    from melange.cli.terminal import need_extra

    need_extra("serve", "serve", "fastapi", "uvicorn")
    import uvicorn

    from melange.serve.api import application
    from melange.serve.guard import check_reachable

    token = os.environ.get(token_env, "")
    hosts = check_reachable(host, token, token_env)
    limits = limits_of(limit, memory_gib)
    app = application(token=token, parallel=parallel, limits=limits, hosts=hosts)
    typer.echo(f"API documentation: http://{host}:{port}/docs  (Ctrl-C stops)", err=True)
    uvicorn.run(app, host=host, port=port, log_level="warning")
