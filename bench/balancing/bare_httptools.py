"""A minimal proxy on uvloop and httptools, as a baseline: it forwards bytes unchanged.

python -m balancing.bare_httptools TARGET_PORT PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop


class Link(asyncio.Protocol):
    """A connection to the replica; its responses are parsed only to find their ends."""

    def __init__(self, client: Client) -> None:
        self.client: Client | None = client
        self.parser = httptools.HttpResponseParser(self)
        self.is_whole = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def on_message_complete(self) -> None:
        """Note the end of a response."""
        self.is_whole = True

    def data_received(self, data: bytes) -> None:
        """Forward a piece of a response."""
        self.is_whole = False
        self.parser.feed_data(data)
        client = self.client
        if client is not None:
            client.transport.write(data)
            if self.is_whole:
                self.client = None
                client.link = None
                Client.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Handle a connection that the replica has closed."""
        if self.client is not None:
            self.client.transport.close()
        elif self in Client.idle:
            Client.idle.remove(self)


class Client(asyncio.Protocol):
    """A client's connection."""

    target = 0
    idle: list[Link] = []  # noqa: RUF012  (all clients share it)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for requests."""
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)
        self.link: Link | None = None
        self.fields: list[bytes] = []
        self.body: list[bytes] = []
        self.path = b""

    def on_url(self, path: bytes) -> None:
        """Keep the path."""
        self.path = path

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field."""
        self.fields.append(b"%b: %b\r\n" % (name, value))

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self.body.append(body)

    def on_message_complete(self) -> None:
        """Forward the request."""
        first = b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.path)
        request = b"".join((first, *self.fields, b"\r\n", *self.body))
        self.fields, self.body = [], []
        if Client.idle:
            self.send(Client.idle.pop(), request)
        else:
            self.task = asyncio.ensure_future(self.connect(request))

    async def connect(self, request: bytes) -> None:
        """Send a request over a new connection."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: Link(self), "127.0.0.1", Client.target)
        self.send(link, request)

    def send(self, link: Link, request: bytes) -> None:
        """Send a request over a connection."""
        link.client, self.link = self, link
        link.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Parse bytes of a request."""
        self.parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Handle a connection that the client has closed."""
        if self.link is not None:
            self.link.client = None
            self.link.transport.abort()


async def main(target: int, port: int) -> None:
    """Forward all requests."""
    Client.target = target
    await (await asyncio.get_running_loop().create_server(Client, "127.0.0.1", port, backlog=4096)).serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
