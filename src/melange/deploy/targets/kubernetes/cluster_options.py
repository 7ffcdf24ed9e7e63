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
MOST_REPLICAS = 2**31 - 1
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions(ServerOptions):
    """The options of every target that runs in Kubernetes.

    Parameters
    ----------
    namespace
        Namespace of all objects; None: the default of ``kubectl``.
    hf_secret
        Secret with the key ``HF_TOKEN``, for downloads by the engines; it need not exist for open models.
    routing
        How requests reach replica types: ``balancer``, Melange's balancer in front of them; ``gateway``, the cluster's
        gateway, by weights; ``none``.
    balancer_image, balancers
        Image of the balancer (from the repository's Dockerfile), and the number of balancers.
    keys_secret
        Secret with the key ``MELANGE_BALANCE_KEYS``, which holds the keys that clients of the balancer must send; if it
        does not exist, no key is required.
    gateway
        Gateway that the route is attached to (``routing=gateway``).
    cache_claim
        PersistentVolumeClaim for downloaded weights, shared by all replicas; None: each downloads its own.
    aws_nodes
        Labels of nodes on AWS: Karpenter's, or those of managed node groups.
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
        # super() in a dataclass with slots finds the class before slots were added.
        ServerOptions.__post_init__(self)
        if self.namespace is not None:
            check_name("namespace", self.namespace, LABEL)
        for what in ("hf_secret", "keys_secret", "gateway", "cache_claim"):
            if (name := getattr(self, what)) is not None:
                check_name(what, name, _SUBDOMAIN)
        if not 1 <= self.balancers <= MOST_REPLICAS:
            raise InputError(f"balancers must be 1 to {MOST_REPLICAS:,}, got {shown(self.balancers)}")


def check_name(what: str, name: str, form: re.Pattern[str] = _SUBDOMAIN) -> None:
    """Reject names that are invalid in Kubernetes."""
    if not form.fullmatch(name):
        raise InputError(f"{what} must be lower-case letters, digits and dashes, got {name!r}")


def check_least(what: str, least: int | None) -> None:
    """Reject invalid numbers of replicas."""
    if least is not None and not 0 <= least <= MOST_REPLICAS:
        raise InputError(f"{what} must be 0 to {MOST_REPLICAS:,}, got {shown(least)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingOptions(ClusterOptions):
    """Options of targets that scale replicas.

    Parameters
    ----------
    scaling
        ``fixed``, the planned number, or ``keda``, by requests in flight.
    least_replicas
        Minimum of each type, however little traffic there is; None: the planned number.
    prometheus
        Address where KEDA queries the engines' metrics.
    """

    scaling: Literal["fixed", "keda"] = option("fixed", "Fixed as planned, or by requests in flight with KEDA.")
    least_replicas: int | None = option(None, "Minimum replicas per type; null: as planned.")
    prometheus: str = option("http://prometheus:9090", "Prometheus address for KEDA.")

    def __post_init__(self) -> None:
        ClusterOptions.__post_init__(self)
        check_least("least_replicas", self.least_replicas)
