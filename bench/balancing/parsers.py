"""Compare ways to parse a request's head and a chunk of a stream: python -m balancing.parsers."""

from __future__ import annotations

import re
import time
import timeit
from collections.abc import Callable

import httptools

HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAuthorization: Bearer bench\r\n"
    b"User-Agent: bench\r\nAccept: */*\r\nContent-Length: 2070\r\n\r\n"
)
EVENT = b'data: {"choices":[{"index":0,"text":" word","logprobs":null,"finish_reason":null}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
FIT = bytes([9, 10, 13, *range(0x20, 0x7F), *range(0x80, 0x100)])
TOKEN = bytes(c for c in range(128) if chr(c).isalnum() or chr(c) in "!#$%&'*+-.^_`|~")
FIELD = re.compile(rb"\r\n([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\x00-\x08\x0b-\x1f\x7f]*)")
SIZES = {b"%x" % size: size for size in range(1, 4096)}


class Listener:
    """Keeps header fields."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field."""
        self.fields.append((name.lower(), value))

    def on_body(self, piece: bytes) -> None:
        """Ignore a piece of a body."""


def llhttp() -> None:
    """Parse with httptools, which calls back for each field."""
    httptools.HttpRequestParser(Listener()).feed_data(HEAD)


def by_hand() -> list[tuple[bytes, bytes]]:
    """Check lines and names one by one."""
    if HEAD.translate(None, FIT) or not HEAD.count(b"\n") == HEAD.count(b"\r") == HEAD.count(b"\r\n"):
        raise ValueError("bare line ends")
    fields = []
    for line in HEAD[:-4].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if not name or name.translate(None, TOKEN):
            raise ValueError("no name")
        fields.append((name.lower(), value.strip(b" \t")))
    return fields


def by_expression() -> list[tuple[bytes, bytes]]:
    """Parse with a regular expression, which skips everything that is not a field."""
    return FIELD.findall(HEAD)


def chunk_by_hand() -> bytes:
    """Return the content of a piece that is exactly one chunk, by its size."""
    at = CHUNK.find(b"\r\n", 0, 10)
    size = SIZES.get(CHUNK[:at])
    if size is None or len(CHUNK) != at + 4 + size or CHUNK[-2:] != b"\r\n":
        raise ValueError("no whole chunk")
    return CHUNK[at + 2 : -2]


def cpu_us(do: Callable[[], object]) -> float:
    """The minimum of many rounds [us]."""
    return min(timeit.repeat(do, number=2000, repeat=25, timer=time.process_time)) / 2000 * 1e6


def main() -> None:
    """Print a line for each way."""
    stream = httptools.HttpResponseParser(Listener())
    stream.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    ways: dict[str, Callable[[], object]] = {
        "head, llhttp": llhttp,
        "head, by hand": by_hand,
        "head, by a regular expression": by_expression,
        "chunk, llhttp": lambda: stream.feed_data(CHUNK),
        "chunk, by hand": chunk_by_hand,
    }
    for name, do in ways.items():
        print(f"{name:32}{cpu_us(do):8.2f} us")


if __name__ == "__main__":
    main()
