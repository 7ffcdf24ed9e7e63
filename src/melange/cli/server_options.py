"""Options of the commands that run servers: ui, serve and mcp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from melange.serve.job import Limits

HostOption = Annotated[str, typer.Option(help="Address to listen on; other than loopback needs a token.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")]
TokenEnvOption = Annotated[
    str, typer.Option("--token-env", metavar="NAME", help="Environment variable with the token of clients.")
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, max=256, help="Maximum parallel jobs.")]
LimitOption = Annotated[str, typer.Option("--limit", help="Time limit of a job, for example 10m.")]
MemoryOption = Annotated[float, typer.Option("--memory", min=1, help="Memory limit of a job [GiB].")]


def limits_of(limit: str, memory_gib: float) -> Limits:
    """The limits of a job, from the options."""
    from melange.serve.job import Limits
    from melange.units import GIB
    from melange.workload.clock import parse_duration

    return Limits(time_s=parse_duration(limit, name="--limit"), memory_bytes=memory_gib * GIB)
