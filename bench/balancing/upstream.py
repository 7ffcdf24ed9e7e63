"""A replica that needs very little CPU: it sends the same response to every request, at once or token by token.

    python -m balancing.upstream PORT [--gap-ms 2] [--tokens 64] [--first-ms 0]

A request with a field ``tokens`` gets that number of tokens. ``GET /count`` returns the number of completions begun.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from typing import cast

import uvloop


def text_of(tokens: int) -> bytes:
    """A completion that reports this number of tokens."""
    content = {
        "id": "cmpl-1",
        "object": "text_completion",
        "choices": [{"index": 0, "text": " word" * 64, "finish_reason": "length"}],
        "usage": {"completion_tokens": tokens},
    }
    return json.dumps(content).encode()


EVENT = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"tiny",'
    b'"choices":[{"index":0,"text":" word","logprobs":null,"finish_reason":null}]}\n\n'
)


def head(*fields: str) -> bytes:
    """The head of a response."""
    lines = ["HTTP/1.1 200 OK", "Date: Thu, 01 Jan 2026 00:00:00 GMT", "Server: upstream", *fields]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n" % len(data) + data + b"\r\n"


def whole(text: bytes) -> bytes:
    """A completion that is sent at once."""
    return head("Content-Type: application/json", f"Content-Length: {len(text)}") + text


WHOLE = whole(text_of(64))
STREAM = head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
TOKEN, END = chunk(EVENT), chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Replica(asyncio.Protocol):
    """A connection to a client."""

    count = 0
    given: argparse.Namespace

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport of a new connection."""
        self.transport, self.data = cast(asyncio.Transport, transport), b""
        self.task: asyncio.Task[None] | None = None

    def connection_lost(self, error: Exception | None) -> None:
        """Cancel the response if the client has disconnected."""
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer complete requests in the order of their arrival."""
        self.data += data
        while True:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return
            fields = self.data[:end].lower()
            place = fields.find(b"content-length:")
            length = int(fields[place + 15 :].split(b"\r\n")[0]) if place >= 0 else 0
            if len(self.data) < end + 4 + length:
                return
            body, self.data = self.data[end + 4 : end + 4 + length], self.data[end + 4 + length :]
            self.answer(fields, body)

    def answer(self, fields: bytes, body: bytes) -> None:
        """Answer one request."""
        if fields.startswith(b"get "):
            text = str(Replica.count).encode()
            self.transport.write(head(f"Content-Length: {len(text)}") + text)
            return
        Replica.count += 1
        if asked := re.search(rb'"tokens": (\d+)', body):
            self.transport.write(whole(text_of(int(asked[1]))))
        elif b'"stream": true' in body or self.given.first_ms:
            self.task = asyncio.ensure_future(self.later(b'"stream": true' in body))
        else:
            self.transport.write(WHOLE)

    async def later(self, is_stream: bool) -> None:
        """Send a response with delays."""
        if self.given.first_ms:
            await asyncio.sleep(self.given.first_ms / 1e3)
        if not is_stream:
            self.transport.write(WHOLE)
            return
        self.transport.write(STREAM)
        for _ in range(self.given.tokens):
            self.transport.write(TOKEN)
            await asyncio.sleep(self.given.gap_ms / 1e3)
        self.transport.write(END)


async def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--gap-ms", type=float, default=2.0)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--first-ms", type=float, default=0.0)
    Replica.given = parser.parse_args()
    server = await asyncio.get_running_loop().create_server(Replica, "127.0.0.1", Replica.given.port, backlog=16_384)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
