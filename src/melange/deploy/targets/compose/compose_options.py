"""Options of servers under Docker Compose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melange.deploy.server_options import ServerOptions, check_port
from melange.deploy.target import option
from melange.deploy.targets.gateways.gateway_options import parse_listen
from melange.installed import version


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeOptions(ServerOptions):
    """The options of Docker Compose.

    Parameters
    ----------
    listen
        Address that the balancer listens on.
    balancer_image
        Image of the balancer, built from the repository's Dockerfile.
    replicas
        Addresses of replicas on other machines, as for gateways; None: placeholder names.
    """

    listen: str = option("127.0.0.1:8080", "Address that the balancer listens on.")
    balancer_image: str = option(f"melange:{version()}", "Image of the balancer (the repository's Dockerfile).")
    replicas: Mapping[str, Sequence[str]] | None = option(
        None, "Addresses of replicas on several machines (--replica); null: placeholders."
    )

    def __post_init__(self) -> None:
        ServerOptions.__post_init__(self)
        parse_listen(self.listen)
        # Replicas of a machine use consecutive ports.
        check_port("port", self.port + 64)
