"""One process of a balancer: from a listening socket to the last stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import ssl
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from melange.deploy.addresses import Address, read_addresses
from melange.deploy.live.answers import error
from melange.deploy.live.balancer import Balancer
from melange.deploy.live.health import Health
from melange.deploy.live.ledger import Ledger
from melange.deploy.live.pages import Pages
from melange.deploy.live.proxy import Proxy
from melange.deploy.live.upstream import Upstream, client_session
from melange.errors import MelangeError

if TYPE_CHECKING:
    from melange.deploy.live.counters import Counters
    from melange.deploy.live.settings import BalancerSettings
    from melange.plan.plan import Plan

log = logging.getLogger("melange.balance")

# Of a request's head: bytes of a line and of a field, and the number of fields. More would let strangers occupy
# memory before a key is asked for; fewer would refuse clients behind proxies that add fields.
_MOST_LINE_BYTES, _MOST_FIELDS = 8190, 100
# What waits for a client that reads slowly [bytes]; beyond it the replica is read no further. More is memory for each
# open stream, less makes a replica wait for its client.
_WRITE_AHEAD = 2**15
# How long the rest of a request that was answered early is read and thrown away [s]: without it the client may see a
# reset instead of the answer; longer, and a slow body holds its connection.
_LINGER_S = 2.0
# Open files that are no client's: listeners, libraries, logs, health checks. With too few, a client that
# was accepted finds none.
_SPARE_FILES = 64
# How often the replicas' file and the supervisor are looked for [s]: a change waits so long, a look is a system call.
_LOOK_EVERY_S = 0.5
# How long the last accepted connections have to come to their first wait, before idle ones are closed [s]. With less a
# client that has just connected may be cut off; more delays every restart.
_SETTLE_S = 0.05
# Connections that wait to be accepted, as far as the system allows: of a larger burst the kernel drops the rest.
_BACKLOG = 4096
_TURNED_AWAY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Connection(RequestHandler):
    """A client's connection. What cannot be parsed is answered and forgotten: neither logged nor sent on."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is none, or that we have failed at."""
        del message  # holds bytes of the request
        if isinstance(exc, ConnectionError):
            raise exc
        if status >= 500:
            log.error("internal error in a request: %s", _place(exc))
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has already started")
        return error(status, "not a valid HTTP/1.1 request" if status < 500 else "internal error", closes=True)


def _place(exc: BaseException | None) -> str:
    """What was raised and where; its text may hold bytes of the request."""
    frames = traceback.extract_tb(exc.__traceback__) if exc is not None else []
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(exc).__name__}{where}"


class _Server(web.Server):
    """Makes connections, up to a number."""

    most_connections = 0
    count: Callable[[int], None]

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """A client has connected."""
        super().connection_made(handler, transport)
        transport.set_write_buffer_limits(high=_WRITE_AHEAD)
        self.count(len(self._connections))
        if len(self._connections) > self.most_connections:
            transport.write(_TURNED_AWAY)
            transport.close()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """A client has gone."""
        super().connection_lost(handler, exc)
        self.count(len(self._connections))

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


async def work(
    plan: Plan,
    addresses: Sequence[Address],
    settings: BalancerSettings,
    counters: Counters,
    process: int,
    listener: socket.socket,
    replicas_file: Path | None,
) -> None:
    """Serve until told to stop, then finish what has begun.

    Parameters
    ----------
    plan, addresses, settings
        What is served, by which replicas, how.
    counters, process
        Where this process counts.
    listener
        Bound, not yet listening.
    replicas_file
        Read again whenever it changes; None: the replicas stay.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    counters.forget_gauges(process)
    balancer = Balancer(plan, settings, counters, process)
    balancer.list_replicas(addresses)
    async with client_session(settings) as session:
        health = Health(balancer, session)
        ledger = Ledger(counters, process, plan.workload.buckets, plan.slo)
        upstream = Upstream(session, balancer, health, ledger, settings)
        proxy = Proxy(balancer, health, ledger, upstream, Pages(balancer, counters), settings)
        await health.check(balancer.replicas)
        server = _server(proxy, settings, counters, process)
        listening = await loop.create_server(
            server,
            sock=listener,
            backlog=_BACKLOG,
            ssl=tls_context(settings),
            ssl_handshake_timeout=settings.idle_timeout_s if settings.tls_cert else None,
        )
        tasks = [
            loop.create_task(health.watch()),
            loop.create_task(upstream.sweep()),
            loop.create_task(_stop_with_parent(stop)),
        ]
        if replicas_file is not None:
            tasks.append(loop.create_task(_follow(replicas_file, plan, balancer, health)))
        await stop.wait()
        proxy.is_draining = True
        listening.close()
        await _drain(server, upstream, settings.drain_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _server(proxy: Proxy, settings: BalancerSettings, counters: Counters, process: int) -> _Server:
    server = _Server(
        proxy.handle,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=settings.idle_timeout_s,
        lingering_time=_LINGER_S,
        max_line_size=_MOST_LINE_BYTES,
        max_field_size=_MOST_LINE_BYTES,
        max_headers=_MOST_FIELDS,
        auto_decompress=False,
        logger=_silent_logger(),
    )
    row, at = counters.row(process), counters.at("connections")

    def count(connections: int) -> None:
        row[at] = float(connections)

    # A client takes two files, its own connection and the one to its replica.
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    server.count = count
    server.most_connections = min(settings.most_connections, (files - _SPARE_FILES) // 2)
    return server


def _silent_logger() -> logging.Logger:
    """The library's own messages may hold bytes of requests."""
    silent = logging.Logger("melange.balance.aiohttp")
    silent.addHandler(logging.NullHandler())
    silent.propagate = False
    return silent


def tls_context(settings: BalancerSettings) -> ssl.SSLContext | None:
    """TLS 1.2 and newer with the operator's certificate; None where there is none.

    Raises
    ------
    MelangeError
        Files that are no certificate and its key.
    """
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as fault:
        raise MelangeError(
            f"{settings.tls_cert}, {settings.tls_key}: not a valid certificate and key: {fault}"
        ) from fault
    return context


async def _drain(server: _Server, upstream: Upstream, limit_s: float) -> None:
    """Close idle connections, let streams finish, and cut those off that take too long."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + limit_s
    if upstream.under_way:
        log.info("draining: %d requests in flight", len(upstream.under_way))
    # Connections that have just been accepted come to their first wait, in which closing them finds them.
    await asyncio.sleep(_SETTLE_S)
    server.pre_shutdown()
    while upstream.under_way and loop.time() < end_s:
        await asyncio.sleep(0.05)
    if upstream.under_way:
        log.warning("%d requests cut off after %g s", len(upstream.under_way), limit_s)
    await server.shutdown(0.5)


async def _follow(path: Path, plan: Plan, balancer: Balancer, health: Health) -> None:
    """Take up the replicas' file whenever it changes; a file that cannot be used changes nothing."""
    seen = _stamp(path)
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        stamp = _stamp(path)
        if stamp == seen or stamp is None:
            continue
        seen = stamp
        try:
            addresses = read_addresses(path, plan)
            known = set(balancer.replicas)
            balancer.list_replicas(addresses)
        except MelangeError as fault:
            log.error("replicas unchanged: %s", fault)
            continue
        log.info("%s: %d replicas", path, len(addresses))
        await health.check([one for one in balancer.replicas if one not in known])


def _stamp(path: Path) -> tuple[int, int, int] | None:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino
    return None


async def _stop_with_parent(stop: asyncio.Event) -> None:
    """Stop when the supervisor has gone, however it went."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(_LOOK_EVERY_S)
    log.error("the supervisor is gone: stopping")
    stop.set()
