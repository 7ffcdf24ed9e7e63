"""Keep a file of replicas up to date from DNS: ``python -m melange.deploy.live.discover``.

A balancer reads ``replicas.txt`` again whenever it changes. Where an orchestrator starts and stops replicas, the names
of their services resolve to all that are ready; this process, beside the balancer, writes down which.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from melange.errors import InputError
from melange.files import write_text
from melange.parsing import named_value


def resolved(given: Iterable[str]) -> list[str]:
    """``NAME=http://address:port`` for every address of the hosts in ``NAME=http://host:port``, sorted.

    A host that cannot be resolved has no address: its replicas have not started yet, or are gone.

    Raises
    ------
    InputError
        A text in another format.
    """
    lines: set[str] = set()
    for pair in given:
        name, equals, url = named_value(pair)
        parts = urlsplit(url)
        if not (equals and name and parts.scheme in {"http", "https"} and parts.hostname):
            raise InputError(f"must be NAME=http://host:port, got {pair!r}")
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        try:
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except socket.gaierror:
            continue
        for address in {str(one[4][0]) for one in found}:
            host = f"[{address}]" if ":" in address else address
            lines.add(f"{name}={parts.scheme}://{host}:{port}")
    return sorted(lines)


def follow(given: Sequence[str], out: Path, *, every_s: float, is_once: bool) -> None:
    """Write the file whenever the addresses change; until there are some, and then for good unless ``is_once``.

    If there are no addresses, the file is kept: DNS may be down, and a balancer checks replicas itself.
    """
    written: list[str] = []
    while True:
        found = resolved(given)
        if found and found != written:
            write_text(out, "\n".join([*found, ""]))
            written = found
        if written and is_once:
            return
        time.sleep(every_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m melange.deploy.live.discover", description=__doc__)
    parser.add_argument("replicas", nargs="+", metavar="NAME=URL", help="a replica type and the address of its service")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--every", type=float, default=2.0, help="DNS polling interval [s]")
    parser.add_argument("--once", action="store_true", help="exit when the first replicas are found")
    chosen = parser.parse_args(arguments)
    try:
        follow(chosen.replicas, chosen.out, every_s=chosen.every, is_once=chosen.once)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
