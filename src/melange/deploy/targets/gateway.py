"""What every gateway's configuration is written from."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from string import Template

import numpy as np

from melange.deploy.pools import Pool, one_line
from melange.deploy.targets.routes import Route, Routes
from melange.errors import Caution, InputError
from melange.plan.plan import Plan
from melange.units import KIB

# Bodies that are read whole before they are sent on hold the longest prompt with room for escapes and for tools.
LEAST_BODY_BYTES = 64 * KIB
BODY_ROOM = 2.0
WIDTH = 116


class Text(Template):
    """A template whose places begin with @, which none of the gateways' languages uses much."""

    delimiter = "@"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A gateway before the replicas of a plan.

    Parameters
    ----------
    heading
        What the files say of the plan, in lines.
    host, port
        Where it listens.
    pools
        The replicas of each type in use (T).
    routes
        Which requests go to which of them.
    bytes_per_token, envelope_bytes
        A body counts as (bytes - envelope) / bytes per token prompt tokens.
    max_body_bytes
        Longer bodies are refused [bytes].
    """

    heading: tuple[str, ...]
    host: str
    port: int
    pools: tuple[Pool, ...]
    routes: Routes
    bytes_per_token: float
    envelope_bytes: int
    max_body_bytes: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bytes_per_token) and self.bytes_per_token > 0):
            raise InputError(f"bytes per token must be > 0, got {self.bytes_per_token:g}")
        if self.envelope_bytes < 0:
            raise InputError(f"envelope bytes must be >= 0, got {self.envelope_bytes}")
        if self.max_body_bytes < 1024:
            raise InputError(f"the longest body must be >= 1024 bytes, got {self.max_body_bytes}")

    @property
    def address(self) -> str:
        """Where it listens, as ``host:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def body_bytes(self, route: Route) -> int | None:
        """The longest body that counts as a route's [bytes]; None: any."""
        if route.input_tokens is None:
            return None
        return self.envelope_bytes + math.floor(route.input_tokens * self.bytes_per_token)

    def comments(self, about: str) -> str:
        """The lines at the top of a file: the plan, what the file does, and the routes as a table."""
        limit = f"Bodies of more than {self.max_body_bytes:,} bytes are refused with 413."
        paragraphs = [" ".join(text.split()) for text in f"{about.strip()} {limit}".split("\n\n")]
        words = [line for text in (*self.heading, *paragraphs) for line in ["", *_wrapped(text)]][1:]
        return "\n".join(f"# {line}".rstrip() for line in [*words, "", *self._table()])

    def _table(self) -> list[str]:
        """Which requests go where, in per cent."""
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
        widths[1] = -widths[1]  # words to the left, numbers to the right
        return [
            "  ".join(f"{text:{'<' if w < 0 else '>'}{abs(w)}}" for text, w in zip(row, widths, strict=True))
            for row in [titles, *rows]
        ]


def parse_listen(listen: str) -> tuple[str, int]:
    """``host:port`` as both; an IPv6 address has brackets.

    >>> parse_listen("[::1]:8080")
    ('::1', 8080)
    """
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]*)):(\d{1,5})", listen)
    if not found or not 1 <= int(found[3]) <= 65535:
        raise InputError(f"--listen must be an address and a port, got {listen!r}", hint="127.0.0.1:8080")
    return found[1] or found[2] or "0.0.0.0", int(found[3])


def body_limit(plan: Plan, bytes_per_token: float, envelope_bytes: int) -> int:
    """The longest body that is taken [bytes]: twice the longest prompt that the plan has, in powers of two."""
    longest = plan.workload.buckets.input_edges[np.flatnonzero(plan.workload.request_rate.sum(axis=1))[-1]]
    wanted = max(LEAST_BODY_BYTES, BODY_ROOM * (longest * bytes_per_token + envelope_bytes))
    return int(2 ** math.ceil(math.log2(wanted)))


def heading_of(plan: Plan, written: date, cautions: Iterable[Caution] = ()) -> tuple[str, ...]:
    """Which plan a file is from: its fingerprint, model, SLO, cost, replicas and traffic; and what is to be known."""
    replicas = ", ".join(f"{count} x {name}" for name, count in plan.replicas.items() if count)
    facts = [
        f"Written by melange deploy on {written.isoformat()} from the plan with the fingerprint {plan.fingerprint}.",
        f"Model {plan.model or 'not named'}; SLO {plan.slo or 'not named'}; {plan.workload.total_rate:g} requests/s; "
        f"{plan.cost_per_h:.2f} USD/h for {replicas}.",
        *(f"CAUTION: {caution}" for caution in cautions),
    ]
    return tuple(one_line(fact) for fact in facts)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False) or [""]
