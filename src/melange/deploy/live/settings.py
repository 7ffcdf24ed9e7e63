"""Settings of a balancer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from melange.errors import InputError, unknown
from melange.replica.policy import POLICIES
from melange.units import MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerSettings:
    """How a balancer listens, sizes, limits and checks.

    Parameters
    ----------
    host, port
        Where it listens; port 0 takes a free one.
    processes
        How many share the port; each knows what it has sent itself, and has its part of every limit.
    balancers
        How many balancers share the traffic, this one included, and know nothing of each other.
    policy
        One of :data:`melange.replica.policy.POLICIES`.
    bytes_per_token
        Prompt bytes that count as a token [bytes].
    tokenizer
        Whether the replicas' ``/tokenize`` counts prompts instead.
    most_fill
        A replica whose requests occupy more than this many times what it runs within the SLO takes no more.
    most_connections
        Clients connected to one process; more are turned away.
    most_body_bytes
        Largest request body [bytes].
    retry_after_s
        Retry-After of rejected requests [s].
    health_path, health_every_s, health_timeout_s
        Path, interval and timeout of health checks [s].
    most_failures
        This many failures in a row eject a replica that still accepts connections.
    connect_timeout_s
        How long a connection to a replica may take [s].
    answer_timeout_s
        How long a replica may be silent [s].
    idle_timeout_s
        How long a client may take to send the head of a request, or keep an idle connection [s].
    body_timeout_s
        How long a client may take to send a body [s].
    write_timeout_s
        How long a client may read nothing of what waits for it [s].
    drain_s
        How long streams may go on after SIGTERM [s].
    window_s
        Length of the window whose traffic is the live workload [s].
    replan_every_s
        Time between two looks at whether a new plan would be cheaper [s]; 0: never.
    drift
        Part of its cost by which a new plan must be cheaper to be spoken of, 0-1.
    tls_cert, tls_key
        PEM files; None: plain HTTP.
    keys
        SHA-256 digests of the keys that clients may show; empty: none is asked for.
    tenants_file
        Tenants with keys and limits, read again when it changes; None: there are none.
    upstream_key
        The key shown to replicas, in place of the client's; empty: the client's own header goes through.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    processes: int = 1
    balancers: int = 1
    policy: str = POLICIES[0]
    bytes_per_token: float = 4.0
    tokenizer: bool = False
    most_fill: float = 3.0
    most_connections: int = 20_000
    most_body_bytes: int = 8 * MIB
    retry_after_s: int = 1
    health_path: str = "/health"
    health_every_s: float = 2.0
    health_timeout_s: float = 2.0
    most_failures: int = 3
    connect_timeout_s: float = 2.0
    answer_timeout_s: float = 600.0
    idle_timeout_s: float = 30.0
    body_timeout_s: float = 30.0
    write_timeout_s: float = 60.0
    drain_s: float = 30.0
    window_s: float = 900.0
    replan_every_s: float = 300.0
    drift: float = 0.05
    tls_cert: Path | None = None
    tls_key: Path | None = None
    keys: tuple[bytes, ...] = ()
    tenants_file: Path | None = None
    upstream_key: str = ""

    @property
    def has_keys(self) -> bool:
        """Whether clients must show a key."""
        return bool(self.keys) or self.tenants_file is not None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise unknown("policy", self.policy, POLICIES)
        for name in ("processes", "balancers", "most_connections", "most_body_bytes", "most_failures", "retry_after_s"):
            if getattr(self, name) < 1:
                raise InputError(f"{name.replace('_', ' ')} must be >= 1, got {getattr(self, name)}")
        for name in _SECONDS:
            if not getattr(self, name) > 0:
                words = name.removesuffix("_s").replace("_", " ")
                raise InputError(f"{words} must be > 0 seconds, got {getattr(self, name):g}")
        if not 0 <= self.port < 2**16:
            raise InputError(f"port must be from 0 to 65535, got {self.port}")
        if not self.bytes_per_token > 0 or not self.most_fill > 0:
            raise InputError("bytes per token and most fill must be > 0")
        if not self.health_path.startswith("/"):
            raise InputError(f"the health path must start with /, got {self.health_path!r}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("TLS needs a certificate and its key", hint="--tls-cert cert.pem --tls-key key.pem")


# Settings that are times, all of which must be positive.
_SECONDS = (
    "health_every_s",
    "health_timeout_s",
    "connect_timeout_s",
    "answer_timeout_s",
    "idle_timeout_s",
    "body_timeout_s",
    "write_timeout_s",
    "drain_s",
    "window_s",
)
