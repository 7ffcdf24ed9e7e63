"""The command that routes live traffic according to a plan."""

from __future__ import annotations

import logging
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import need_live, need_plan
from melange.errors import InputError
from melange.units import MIB

if TYPE_CHECKING:
    from melange.deploy.addresses import Address
    from melange.deploy.live.settings import BalancerSettings
    from melange.plan.plan import Plan


@dataclass(frozen=True)
class _Flags:
    """Addresses of the replicas, and settings of the balancer."""

    replica: Annotated[
        list[str] | None,
        typer.Option(
            "--replica",
            metavar="NAME=URL",
            help="A running replica: its type (or accelerator) and http://host:port (repeatable).",
        ),
    ] = None
    replicas: Annotated[Path | None, typer.Option(help="File of NAME=URL lines instead; reloaded when it changes.")] = (
        None
    )
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free port.")] = 8080
    processes: Annotated[int, typer.Option(min=1, max=256, help="Worker processes that share the port.")] = 1
    balancers: Annotated[
        int,
        typer.Option(min=1, max=256, help="Number of balancers that share the traffic, this one included."),
    ] = 1
    policy: Annotated[str, typer.Option(help="Balancing policy.")] = "plan-least-work"
    bytes_per_token: Annotated[float, typer.Option(help="Prompt bytes per token.")] = 4.0
    tokenizer: Annotated[
        bool, typer.Option("--tokenizer", help="Count prompt tokens with the replicas' /tokenize instead.")
    ] = False
    max_fill: Annotated[
        float, typer.Option(help="Reject (429) when every replica holds this multiple of the load its SLO allows.")
    ] = 3.0
    max_connections: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Maximum connections per process; further ones get 503.")
    ] = 20_000
    max_body_mib: Annotated[float, typer.Option(help="Largest request body [MiB].")] = 8.0
    retry_after: Annotated[int, typer.Option(min=1, max=86_400, help="Retry-After of rejected requests [s].")] = 1
    health_path: Annotated[str, typer.Option(help="Path of the replicas' health check.")] = "/health"
    health_every: Annotated[float, typer.Option(help="Health check interval [s].")] = 2.0
    health_timeout: Annotated[float, typer.Option(help="Health check timeout [s].")] = 2.0
    max_failures: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Consecutive failed requests that eject a replica.")
    ] = 3
    connect_timeout: Annotated[float, typer.Option(help="Timeout for connecting to a replica [s].")] = 2.0
    answer_timeout: Annotated[float, typer.Option(help="Timeout for a replica that sends nothing [s].")] = 600.0
    idle_timeout: Annotated[float, typer.Option(help="Timeout for a request's head, and for idle clients [s].")] = 30.0
    body_timeout: Annotated[float, typer.Option(help="Timeout for a request's body [s].")] = 30.0
    write_timeout: Annotated[float, typer.Option(help="Timeout for a client that stops reading [s].")] = 60.0
    drain: Annotated[float, typer.Option(help="Time for open streams to finish after SIGTERM [s].")] = 30.0
    window: Annotated[float, typer.Option(help="Window over which live traffic is measured [s].")] = 900.0
    replan_every: Annotated[float, typer.Option(min=0, help="How often to look for a cheaper plan [s]; 0: never.")] = (
        300.0
    )
    drift: Annotated[float, typer.Option(min=0, max=1, help="Report a new plan when it saves at least this share.")] = (
        0.05
    )
    profile_files: Annotated[
        list[Path] | None,
        typer.Option(
            "--profile",
            metavar="FILE",
            help="A profile.json of all types that may be rented, for re-planning (repeatable).",
        ),
    ] = None
    api_keys: Annotated[
        Path | None,
        typer.Option(help="File of API keys that clients must send, one per line (or MELANGE_BALANCE_KEYS)."),
    ] = None
    tenants: Annotated[
        Path | None,
        typer.Option(help="YAML file of tenants: their keys, limits and priorities; reloaded when it changes."),
    ] = None
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM): serve HTTPS.")] = None
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None

    def settings(self) -> BalancerSettings:
        """Convert to the balancer's settings."""
        from melange.deploy.live.access import read_keys, upstream_key
        from melange.deploy.live.settings import BalancerSettings
        from melange.deploy.live.tenants import read_tenants

        if not 0 < self.max_body_mib < math.inf:
            raise InputError(f"--max-body-mib must be > 0 and finite, got {self.max_body_mib:g}")
        if self.tenants is not None:
            read_tenants(self.tenants)
        return BalancerSettings(
            host=self.host,
            port=self.port,
            processes=self.processes,
            balancers=self.balancers,
            policy=self.policy,
            bytes_per_token=self.bytes_per_token,
            tokenizer=self.tokenizer,
            most_fill=self.max_fill,
            most_connections=self.max_connections,
            most_body_bytes=int(self.max_body_mib * MIB),
            retry_after_s=self.retry_after,
            health_path=self.health_path,
            health_every_s=self.health_every,
            health_timeout_s=self.health_timeout,
            most_failures=self.max_failures,
            connect_timeout_s=self.connect_timeout,
            answer_timeout_s=self.answer_timeout,
            idle_timeout_s=self.idle_timeout,
            body_timeout_s=self.body_timeout,
            write_timeout_s=self.write_timeout,
            drain_s=self.drain,
            window_s=self.window,
            replan_every_s=self.replan_every,
            drift=self.drift,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            keys=read_keys(self.api_keys),
            tenants_file=self.tenants,
            upstream_key=upstream_key(),
        )

    def addresses(self, plan: Plan) -> tuple[Address, ...]:
        """The named replicas."""
        from melange.deploy.addresses import addresses_of, read_addresses

        if (self.replica is None) == (self.replicas is None):
            raise InputError(
                "give replicas on the command line or in a file",
                hint="--replica NAME=http://host:port, or --replicas FILE",
            )
        if self.replicas is not None:
            return read_addresses(self.replicas, plan)
        return addresses_of((("--replica", text) for text in self.replica or ()), plan)


@with_flags
def balance(
    plan_file: Annotated[
        Path, typer.Argument(metavar="PLAN", help="A plan.json (melange plan --out); reloaded when it changes.")
    ],
    flags: _Flags,
) -> None:
    """Route live traffic by a plan: an OpenAI-compatible proxy."""
    if sys.platform == "win32":
        raise InputError("melange balance runs on Linux and macOS", hint="run it in a container or in WSL")
    need_live("balance", "httptools", "aiohappyeyeballs", "uvloop")
    from melange.deploy.live.serve import serve
    from melange.deploy.one_pool import refuse_pools
    from melange.plan.plan import Plan
    from melange.profile.join import read_joined

    need_plan(plan_file, "melange balance plan.json")
    plan = Plan.read(plan_file)
    refuse_pools(plan, "melange balance")
    addresses, settings = flags.addresses(plan), flags.settings()
    profile = read_joined(flags.profile_files) if flags.profile_files else None
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    raise typer.Exit(
        serve(plan, addresses, settings, replicas_file=flags.replicas, profile=profile, plan_file=plan_file)
    )
