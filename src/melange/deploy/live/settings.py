"""Settings of a balancer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from melange.errors import InputError, unknown
from melange.replica.policy import POLICIES
from melange.units import MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerSettings:
    """How a balancer listens, estimates sizes, limits and checks.

    Parameters
    ----------
    host, port
        Address to listen on; port 0 takes a free port.
    processes
        Number of processes that share the port; each knows only its own requests, and has its part of every limit.
    balancers
        Number of balancers that share the traffic, including this one; they do not communicate.
    policy
        One of :data:`melange.replica.policy.POLICIES`.
    bytes_per_token
        Number of prompt bytes that count as one token [bytes].
    tokenizer
        Whether replicas count prompts with their ``/tokenize`` instead.
    most_fill
        A replica gets no more requests if its requests occupy more than this multiple of its capacity within the SLO.
    most_connections
        Most clients connected to one process; more are rejected.
    most_body_bytes
        Largest request body [bytes].
    retry_after_s
        Retry-After of rejected requests [s].
    health_path, health_every_s, health_timeout_s
        Path, interval and timeout of health checks [s].
    most_failures
        This many consecutive failures eject a replica that still accepts connections.
    connect_timeout_s
        Time limit for connecting to a replica [s].
    answer_timeout_s
        How long a replica may send nothing [s].
    idle_timeout_s
        Time limit for the head of a request, and for an idle connection [s].
    body_timeout_s
        Time limit for a body [s].
    write_timeout_s
        How long a client may read nothing while bytes wait for it [s].
    drain_s
        Time limit for open streams after SIGTERM [s].
    window_s
        Length of the window whose traffic is the live workload [s].
    replan_every_s
        Interval for checking whether a new plan would be cheaper [s]; 0: never.
    drift
        A new plan is reported if it saves more than this share of the current cost, 0-1.
    tls_cert, tls_key
        PEM files; None: plain HTTP.
    keys
        SHA-256 digests of the clients' keys; empty: no key is required.
    tenants_file
        File of tenants with keys and limits; read again when it changes; None: there are no tenants.
    upstream_key
        Key that is sent to replicas instead of the client's; empty: the client's own header is forwarded.
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
                raise InputError(f"{flag_of(name)} must be >= 1, got {getattr(self, name)}")
        for name in (*_SECONDS, "bytes_per_token", "most_fill"):
            if not 0 < getattr(self, name) < math.inf:
                unit = " seconds" if name in _SECONDS else ""
                raise InputError(f"{flag_of(name)} must be > 0{unit} and finite, got {getattr(self, name):g}")
        if not 0 <= self.replan_every_s < math.inf:
            raise InputError(f"--replan-every must be >= 0 seconds and finite, got {self.replan_every_s:g}")
        if not 0 <= self.drift <= 1:
            raise InputError(f"--drift must be 0 to 1, got {self.drift:g}")
        if not 0 <= self.port < 2**16:
            raise InputError(f"--port must be 0 to 65535, got {self.port}")
        if not self.health_path.startswith("/"):
            raise InputError(f"the health path must start with /, got {self.health_path!r}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("TLS needs a certificate and its key", hint="--tls-cert cert.pem --tls-key key.pem")


def flag_of(setting: str) -> str:
    """The flag of ``melange balance`` for a setting, for error messages.

    >>> flag_of("most_fill"), flag_of("health_every_s")
    ('--max-fill', '--health-every')
    """
    words = setting.removesuffix("_s").replace("most_body_bytes", "max_body_mib").replace("most_", "max_")
    return f"--{words.replace('_', '-')}"


# Settings that are times; all of them must be positive.
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
