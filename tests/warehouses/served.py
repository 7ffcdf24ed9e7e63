"""What the tests of databases and their servers share."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass

ROWS = int(os.environ.get("MELANGE_WAREHOUSE_ROWS", "100000"))
PASSWORD = f"pw-{secrets.token_hex(4)}/@:%"


@dataclass(frozen=True)
class Served:
    """A database, its log, and what must not be shown."""

    url: str
    table: str
    password: str


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
