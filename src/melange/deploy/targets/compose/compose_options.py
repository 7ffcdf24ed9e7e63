"""What can be chosen of servers under Docker Compose."""

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
        Where the balancer listens on its machine.
    balancer_image
        Its image, built from the repository's Dockerfile.
    replicas
        Where replicas on other machines answer, as for gateways; None: made-up names.
    """

    listen: str = option("127.0.0.1:8080", "Address that the balancer listens on.")
    balancer_image: str = option(f"melange:{version()}", "Image of the balancer (the repository's Dockerfile).")
    replicas: Mapping[str, Sequence[str]] | None = option(
        None, "Addresses of replicas on several machines (--replica); null: placeholders."
    )

    def __post_init__(self) -> None:
        ServerOptions.__post_init__(self)
        parse_listen(self.listen)
        # Replicas of a machine listen on ports in a row.
        check_port("port", self.port + 64)
