"""The least that a proxy on uvloop and httptools can be: bytes go through as they come. A baseline.

python -m balancing.bare_httptools TARGET_PORT PORT
"""

from __future__ import annotations

import asyncio
import sys

import httptools
import uvloop


class Link(asyncio.Protocol):
    """A connection to the replica, which is parsed for the end of its answers alone."""

    def __init__(self, client: Client) -> None:
        self.client: Client | None = client
        self.parser = httptools.HttpResponseParser(self)
        self.is_whole = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be written to."""
        self.transport = transport

    def on_message_complete(self) -> None:
        """An answer has ended."""
        self.is_whole = True

    def data_received(self, data: bytes) -> None:
        """Pass a piece of an answer on."""
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
        """The replica has gone."""
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
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.link: Link | None = None
        self.fields: list[bytes] = []
        self.body: list[bytes] = []
        self.path = b""

    def on_url(self, path: bytes) -> None:
        """Where it goes."""
        self.path = path

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field."""
        self.fields.append(b"%b: %b\r\n" % (name, value))

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self.body.append(body)

    def on_message_complete(self) -> None:
        """Send the request on."""
        first = b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.path)
        request = b"".join((first, *self.fields, b"\r\n", *self.body))
        self.fields, self.body = [], []
        if Client.idle:
            self.send(Client.idle.pop(), request)
        else:
            self.task = asyncio.ensure_future(self.connect(request))

    async def connect(self, request: bytes) -> None:
        """Send it over a new connection."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: Link(self), "127.0.0.1", Client.target)
        self.send(link, request)

    def send(self, link: Link, request: bytes) -> None:
        """Send it."""
        link.client, self.link = self, link
        link.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        self.parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        """The client has gone."""
        if self.link is not None:
            self.link.client = None
            self.link.transport.abort()


async def main(target: int, port: int) -> None:
    """Pass everything on."""
    Client.target = target
    await (await asyncio.get_running_loop().create_server(Client, "127.0.0.1", port, backlog=4096)).serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
