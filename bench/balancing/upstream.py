"""A replica that costs next to nothing: the same answer to every request, whole or token by token.

    python -m balancing.upstream PORT [--gap-ms 2] [--tokens 64] [--first-ms 0]

A request with a field ``tokens`` gets that many. ``GET /count`` says how many completions it has begun.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re

import uvloop


def text_of(tokens: int) -> bytes:
    """A completion with a stated number of tokens."""
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
    """Of a response."""
    lines = ["HTTP/1.1 200 OK", "Date: Thu, 01 Jan 2026 00:00:00 GMT", "Server: upstream", *fields]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def chunk(data: bytes) -> bytes:
    """Of a chunked body."""
    return b"%x\r\n" % len(data) + data + b"\r\n"


def whole(text: bytes) -> bytes:
    """A completion that comes at once."""
    return head("Content-Type: application/json", f"Content-Length: {len(text)}") + text


WHOLE = whole(text_of(64))
STREAM = head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
TOKEN, END = chunk(EVENT), chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Replica(asyncio.Protocol):
    """One connection."""

    count = 0
    given: argparse.Namespace

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        self.transport, self.data, self.task = transport, b"", None

    def connection_lost(self, error: Exception | None) -> None:
        """It has gone."""
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        """Whole requests are answered in the order they come."""
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
        """One request."""
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
        """An answer that takes its time."""
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
