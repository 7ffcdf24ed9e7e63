"""Options of servers in a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from melange.deploy.server_options import ServerOptions
from melange.deploy.target import option
from melange.errors import InputError
from melange.installed import version
from melange.records import shown

# Kubernetes counts replicas in 32 bits.
_MOST_REPLICAS = 2**31 - 1
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions(ServerOptions):
    """The options of every target that runs in Kubernetes.

    Parameters
    ----------
    namespace
        Where everything lives; None: where ``kubectl`` puts it.
    hf_secret
        Secret whose key ``HF_TOKEN`` the engines download with; it need not exist for open models.
    routing
        What sends requests to replica types: ``balancer``, Melange's own in front of them; ``gateway``, the cluster's
        by weights; ``none``.
    balancer_image, balancers
        Image of the balancer (the repository's Dockerfile) and how many of it run.
    keys_secret
        Secret whose key ``MELANGE_BALANCE_KEYS`` holds the keys that clients of the balancer must show; where it does
        not exist, none is asked for.
    gateway
        Gateway that the route hangs on (``routing=gateway``).
    cache_claim
        PersistentVolumeClaim that all replicas keep downloaded weights in; None: each downloads its own.
    aws_nodes
        Whose labels nodes on AWS have: Karpenter's, or those of managed node groups.
    """

    namespace: str | None = option(None, "Namespace; null: kubectl's own.")
    hf_secret: str = option("hf-token", "Secret with the key HF_TOKEN for downloads.")
    routing: Literal["balancer", "gateway", "none"] = option("balancer", "What routes requests to replica types.")
    balancer_image: str = option(f"melange:{version()}", "Image of the balancer (the repository's Dockerfile).")
    balancers: int = option(2, "Number of balancers.")
    keys_secret: str = option("melange-keys", "Secret with clients' API keys under MELANGE_BALANCE_KEYS, if any.")
    gateway: str = option("inference-gateway", "Gateway of the route.")
    cache_claim: str | None = option(None, "PersistentVolumeClaim for downloaded weights; null: none.")
    aws_nodes: Literal["karpenter", "managed"] = option(
        "karpenter", "Node labels on AWS: Karpenter's or managed node groups'."
    )

    def __post_init__(self) -> None:
        # super() of a dataclass with slots finds the class before it got them.
        ServerOptions.__post_init__(self)
        if self.namespace is not None:
            check_name("namespace", self.namespace, _LABEL)
        for what in ("hf_secret", "keys_secret", "gateway", "cache_claim"):
            if (name := getattr(self, what)) is not None:
                check_name(what, name, _SUBDOMAIN)
        if not 1 <= self.balancers <= _MOST_REPLICAS:
            raise InputError(f"balancers must be 1 to {_MOST_REPLICAS:,}, got {shown(self.balancers)}")


def check_name(what: str, name: str, form: re.Pattern[str] = _SUBDOMAIN) -> None:
    """Refuse what Kubernetes does not take for a name."""
    if not form.fullmatch(name):
        raise InputError(f"{what} must be lower-case letters, digits and dashes, got {name!r}")


def check_least(what: str, least: int | None) -> None:
    """Refuse what is no number of replicas."""
    if least is not None and not 0 <= least <= _MOST_REPLICAS:
        raise InputError(f"{what} must be 0 to {_MOST_REPLICAS:,}, got {shown(least)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingOptions(ClusterOptions):
    """Options of targets that scale replicas.

    Parameters
    ----------
    scaling
        ``fixed``, as many as planned, or ``keda``, by requests in flight.
    least_replicas
        Of each type, however little traffic there is; None: as many as planned.
    prometheus
        Where KEDA asks for the engines' metrics.
    """

    scaling: Literal["fixed", "keda"] = option("fixed", "Fixed as planned, or by requests in flight with KEDA.")
    least_replicas: int | None = option(None, "Minimum replicas per type; null: as planned.")
    prometheus: str = option("http://prometheus:9090", "Prometheus address for KEDA.")

    def __post_init__(self) -> None:
        ClusterOptions.__post_init__(self)
        check_least("least_replicas", self.least_replicas)
