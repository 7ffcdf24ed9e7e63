"""Kept connections to the replicas, and short requests over them."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Container
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohappyeyeballs

from melange.deploy.live.headers import Fields
from melange.deploy.live.link import Link

# Uvicorn closes idle connections after 5 s: older connections are not used, because they may be closed at the same
# time. A shorter limit would reconnect more often.
_IDLE_S = 4.0
# How long a DNS result is cached [s]: moved replicas are found after this time; each lookup needs a thread.
_NAME_S = 60.0
# Delay before a second address of a name is tried in parallel [s] (RFC 8305).
_SECOND_S = 0.25
# Largest response that is read as a whole [bytes]: lists of models and checks are much smaller.
_MOST_ANSWER_BYTES = 2**23


class LinkError(Exception):
    """A replica cannot be connected to, or has not answered; the text says why."""


class Fetched(NamedTuple):
    """A response that was read as a whole.

    Parameters
    ----------
    status, fields, body
        Parts of the response.
    """

    status: int
    fields: Fields
    body: bytes


class Origin:
    """A replica's address, and its unused connections.

    Parameters
    ----------
    url
        URL of the replica.
    now
        The event loop's clock [s].
    """

    __slots__ = ("_idle", "_now", "found", "found_s", "head", "host", "is_tls", "port", "prefix")

    def __init__(self, url: str, now: Callable[[], float]) -> None:
        parts = urlsplit(url)
        self.is_tls = parts.scheme == "https"
        self.host, self.port = parts.hostname or "", parts.port or (443 if self.is_tls else 80)
        self.prefix = parts.path.encode()
        self.head = b" HTTP/1.1\r\nHost: %b\r\n" % parts.netloc.encode()  # between the target and the header fields
        self.found: list[aiohappyeyeballs.AddrInfoType] = []
        self.found_s = float("-inf")
        self._idle: list[Link] = []
        self._now = now

    def idle(self) -> Link | None:
        """An open connection that is not in use; None if there is none."""
        idle = self._idle
        while idle:
            link = idle.pop()
            if self._now() - link.idle_since_s < _IDLE_S and not link.transport.is_closing():
                return link
            link.drop()
        return None

    def free(self, link: Link) -> None:
        """Keep a connection for the next request."""
        link.idle_since_s = self._now()
        self._idle.append(link)

    def tidy(self, oldest_s: float) -> None:
        """Close connections that have been idle since before a moment [s]."""
        old = [link for link in self._idle if link.idle_since_s <= oldest_s or link.transport.is_closing()]
        if old:
            self._idle = [link for link in self._idle if link not in old]
            for link in old:
                link.drop()


class Links:
    """All connections of a process to replicas; as many as there are running requests.

    Parameters
    ----------
    connect_timeout_s
        Time limit for a new connection [s].
    """

    def __init__(self, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._loop = asyncio.get_running_loop()
        self._origins: dict[str, Origin] = {}
        self._context: ssl.SSLContext | None = None

    def to(self, url: str) -> Origin:
        """The origin of a replica."""
        origin = self._origins.get(url)
        if origin is None:
            origin = self._origins[url] = Origin(url, self._loop.time)
        return origin

    async def connected(self, origin: Origin) -> Link:
        """Open a new connection.

        Raises
        ------
        LinkError
            The connection failed.
        TimeoutError
            Connecting takes too long.
        """
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                found = await self._addresses(origin)
                one = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_SECOND_S)
                context, name = (self._tls(), origin.host) if origin.is_tls else (None, None)
                try:
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    _, link = await self._loop.create_connection(
                        lambda: Link(origin.free), sock=one, ssl=context, server_hostname=name
                    )
                except BaseException:
                    one.close()
                    raise
        except TimeoutError:
            raise
        except OSError as refused:
            raise LinkError("connection failed") from refused
        return link

    async def fetch(self, url: str, method: bytes, target: bytes, fields: bytes, body: bytes = b"") -> Fetched:
        """Send a short request to a replica and read the whole response; the caller sets the time limit.

        Raises
        ------
        LinkError
            The replica cannot be connected to, or does not answer.
        TimeoutError
            Connecting takes too long.
        """
        origin = self.to(url)
        first = method + b" " + origin.prefix + target + origin.head
        head = b"%b%bContent-Length: %d\r\n\r\n" % (first, fields, len(body))
        link = origin.idle()
        if link is not None:
            try:
                return await _Question(link, head, body).answer()
            except LinkError:
                pass  # the connection may have been closed while the request was sent
        return await _Question(await self.connected(origin), head, body).answer()

    def tidy(self, urls: Container[str]) -> None:
        """Close connections that were idle for too long, and forget replicas that are no longer listed."""
        now_s = self._loop.time()
        for url, origin in tuple(self._origins.items()):
            if url in urls:
                origin.tidy(now_s - _IDLE_S)
            else:
                origin.tidy(now_s)
                del self._origins[url]

    def _tls(self) -> ssl.SSLContext:
        """TLS settings for replicas behind https: their certificates are verified."""
        if self._context is None:
            self._context = ssl.create_default_context()
        return self._context

    async def _addresses(self, origin: Origin) -> list[aiohappyeyeballs.AddrInfoType]:
        """Addresses of a host from DNS, cached for a short time."""
        if self._loop.time() - origin.found_s > _NAME_S:
            flags = socket.AI_NUMERICHOST if _is_number(origin.host) else 0
            found = await self._loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM, flags=flags)
            origin.found, origin.found_s = list(found), self._loop.time()
        return origin.found


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class _Question:
    """Reads a response as a whole."""

    def __init__(self, link: Link, head: bytes, body: bytes) -> None:
        self._link, self._pieces, self._size = link, [b""], 0
        self._answer: asyncio.Future[Fetched] = asyncio.get_running_loop().create_future()
        link.ask(self, head, body)

    async def answer(self) -> Fetched:
        """Wait for the response."""
        try:
            return await self._answer
        except asyncio.CancelledError:
            self._link.drop()
            raise

    def answered(self, link: Link, piece: bytes, is_last: bool) -> None:
        """Receive a piece of the response."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > _MOST_ANSWER_BYTES:
            link.drop()
            self.broken(link, "an answer that is too long")
        elif is_last and not self._answer.done():
            self._answer.set_result(Fetched(link.status, link.fields, b"".join(self._pieces)))

    def broken(self, link: Link, why: str) -> None:
        """The response is incomplete."""
        if not self._answer.done():
            self._answer.set_exception(LinkError(why))
