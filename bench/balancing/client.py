"""Clients that request one completion after the other, and record the times of the responses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field

WORDS = "word " * 400  # 2 kB


@dataclass
class Tally:
    """Results of requests.

    Parameters
    ----------
    served
        Number of completed requests.
    unbegun
        Number of requests that failed before the first byte of a response.
    cut
        Number of requests that failed later.
    statuses
        Number of responses by status, except 200.
    first_s
        Times from sending to the first byte of the body [s].
    """

    served: int = 0
    unbegun: int = 0
    cut: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    first_s: list[float] = field(default_factory=list)
    waiting: int = 0


def request_of(prompt: str = WORDS, *, stream: bool = False, **fields: int) -> bytes:
    """The bytes of a request."""
    body = json.dumps({"model": "tiny", "prompt": prompt, "stream": stream} | fields).encode()
    lines = (
        "POST /v1/completions HTTP/1.1",
        "Host: bench",
        "Content-Type: application/json",
        "Authorization: Bearer bench",
        "User-Agent: bench",
        "Accept: */*",
        f"Content-Length: {len(body)}",
    )
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


class Client:
    """A client with one connection for all its requests.

    Parameters
    ----------
    port
        Port of the server on this machine.
    tally
        Results of the requests.
    """

    def __init__(self, port: int, tally: Tally) -> None:
        self.port, self.tally = port, tally
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> None:
        """Send a request and read its response to the end."""
        has_begun = False
        began_s = time.perf_counter()
        try:
            if self.writer is None:
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
            assert self.reader is not None
            self.writer.write(request)
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            has_begun = True
            await self._body(head, began_s)
            status = int(head[9:12])
            if status == 200:
                self.tally.served += 1
            else:
                self.tally.statuses[status] = self.tally.statuses.get(status, 0) + 1
            if b"connection: close" in head:
                self.close()
        except (OSError, asyncio.IncompleteReadError):
            if has_begun:
                self.tally.cut += 1
            else:
                self.tally.unbegun += 1
            self.close()

    async def _body(self, head: bytes, began_s: float) -> None:
        assert self.reader is not None
        if b"content-length:" in head:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            await self.reader.readexactly(length)
            self.tally.first_s.append(time.perf_counter() - began_s)
            return
        is_first = True
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            await self.reader.readexactly(size + 2)
            if is_first:
                self.tally.first_s.append(time.perf_counter() - began_s)
                is_first = False
            if not size:
                return

    def close(self) -> None:
        """Close the connection."""
        if self.writer is not None:
            with contextlib.suppress(OSError):
                self.writer.close()
        self.reader = self.writer = None


async def ask_all(port: int, requests: list[bytes], clients: int) -> Tally:
    """Send a list of requests from several clients."""
    tally, left = Tally(), iter(requests)

    async def run() -> None:
        client = Client(port, tally)
        for request in left:
            await client.ask(request)
        client.close()

    await asyncio.gather(*(run() for _ in range(clients)))
    return tally
