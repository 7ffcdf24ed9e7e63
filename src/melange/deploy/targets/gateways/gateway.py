"""The common input of all gateway configurations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from string import Template

import numpy as np

from melange.deploy.heading import Block, comments, heading_of, paragraphs
from melange.deploy.manifest import Manifest
from melange.deploy.pools import Pool, pools_of
from melange.deploy.target import Target
from melange.deploy.targets.gateways.gateway_options import GatewayOptions, parse_listen
from melange.deploy.targets.gateways.routes import Route, Routes, routes_of
from melange.errors import Caution, InputError
from melange.plan.plan import Plan
from melange.plan.without_classes import routed_by_class, without_classes
from melange.units import KIB

# Bodies are buffered as a whole; the limit fits the longest prompt, with room for escapes and tools. Less room rejects
# planned requests; more lets strangers occupy memory with each request. Below the least limit [bytes], requests with
# tools and little text would be rejected.
_LEAST_BODY_BYTES = 64 * KIB
_BODY_ROOM = 2.0


class Text(Template):
    """A template whose placeholders start with @, which is rare in the gateways' languages."""

    delimiter = "@"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A gateway in front of a plan's replicas.

    Parameters
    ----------
    heading
        Information about the plan for the files.
    host, port
        Address to listen on.
    pools
        The replicas of each used type (T).
    routes
        Routes of requests to types.
    bytes_per_token, envelope_bytes
        A body counts as (bytes - envelope) / bytes per token prompt tokens.
    max_body_bytes
        Longer bodies are rejected [bytes].
    """

    heading: tuple[Block, ...]
    host: str
    port: int
    pools: tuple[Pool, ...]
    routes: Routes
    bytes_per_token: float
    envelope_bytes: int
    max_body_bytes: int

    @property
    def address(self) -> str:
        """The listen address, as ``host:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def body_bytes(self, route: Route) -> int | None:
        """The longest body of a route [bytes]; None: any."""
        if route.input_tokens is None:
            return None
        return self.envelope_bytes + math.floor(route.input_tokens * self.bytes_per_token)

    def comments(self, about: str) -> str:
        """The lines at the top of a file: the plan, the file's purpose, and the routes as a table."""
        limit = f"Bodies of more than {self.max_body_bytes:,} bytes are rejected with 413."
        return comments([*self.heading, *paragraphs(f"{about.strip()} {limit}"), self._table()])

    def _table(self) -> tuple[str, ...]:
        """The routing table, in percent."""
        titles = ["route", "requests", "prompts", *(pool.name for pool in self.pools)]
        rows = [
            [
                str(number),
                route.label,
                f"{route.traffic:.1%}" if route.max_tokens is None else "",
                *(f"{part / 100:.2f}%" for part in route.parts),
            ]
            for number, route in enumerate(self.routes.routes, 1)
        ]
        widths = [max(len(row[k]) for row in [titles, *rows]) for k in range(len(titles))]
        widths[1] = -widths[1]  # text left-aligned, numbers right-aligned
        return tuple(
            "  ".join(f"{text:{'<' if w < 0 else '>'}{abs(w)}}" for text, w in zip(row, widths, strict=True))
            for row in [titles, *rows]
        )


def gateway_target(name: str, about: str, files: Callable[[Gateway], dict[str, str]]) -> Target[GatewayOptions]:
    """A target of this family; ``files`` writes the gateway's language."""

    def render(plan: Plan, options: GatewayOptions, written: date) -> Manifest:
        gateway, cautions = _gateway_of(plan, options, written)
        return Manifest(target=name, files=files(gateway), cautions=cautions)

    return Target(name=name, about=about, options=GatewayOptions, render=render)


def _gateway_of(plan: Plan, options: GatewayOptions, written: date) -> tuple[Gateway, tuple[Caution, ...]]:
    """The gateway in front of a plan's replicas, with cautions.

    Raises
    ------
    InputError
        A plan without replicas or with numbered buckets, or replicas that do not match the plan.
    """
    if found := routed_by_class(plan):
        raise InputError(
            f"the plan routes requests of one size by their class ({found[0]}), but a gateway sees only sizes",
            hint="melange balance knows classes by their priority; or plan each class as a separate service",
        )
    plan = without_classes(plan)
    host, port = parse_listen(options.listen)
    pools, cautions = pools_of(plan, options.replicas)
    gateway = Gateway(
        heading=heading_of(plan, written, cautions),
        host=host,
        port=port,
        pools=pools,
        routes=routes_of(plan),
        bytes_per_token=options.bytes_per_token,
        envelope_bytes=options.envelope_bytes,
        max_body_bytes=options.max_body_bytes or _body_limit(plan, options),
    )
    return gateway, cautions


def _body_limit(plan: Plan, options: GatewayOptions) -> int:
    """The limit on bodies [bytes]: twice the plan's longest prompt, rounded up to a power of two."""
    longest = plan.workload.buckets.input_edges[np.flatnonzero(plan.workload.request_rate.sum(axis=1))[-1]]
    wanted = max(_LEAST_BODY_BYTES, _BODY_ROOM * (longest * options.bytes_per_token + options.envelope_bytes))
    return int(2 ** math.ceil(math.log2(wanted)))
