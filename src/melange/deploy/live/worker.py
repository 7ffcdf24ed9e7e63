"""One process of a balancer: from a listening socket to the last stream."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melange.deploy.addresses import Address, read_addresses
from melange.deploy.live.balancer import Balancer
from melange.deploy.live.client import Client
from melange.deploy.live.health import SWEEP_S, Health
from melange.deploy.live.ledger import Ledger
from melange.deploy.live.links import Links
from melange.deploy.live.pages import Pages
from melange.deploy.live.proxy import Proxy
from melange.deploy.live.stamp import stamp_of
from melange.errors import MelangeError

if TYPE_CHECKING:
    from melange.deploy.live.counters import Counters
    from melange.deploy.live.settings import BalancerSettings
    from melange.plan.plan import Plan

log = logging.getLogger("melange.balance")

# Open files that are not for clients: listeners, libraries, logs, health checks. With too few, no file is left for a
# client that was accepted.
_SPARE_FILES = 64
# Interval for checking the replicas' file and the supervisor [s]: changes take effect after at most this time; a check
# is one system call.
_LOOK_EVERY_S = 0.5
# Time for the last accepted connections to reach their first wait before idle ones are closed [s]. A shorter time may
# cut off a client that has just connected; a longer time delays every restart.
_SETTLE_S = 0.05
# Time limit for sending complete responses when a process ends [s].
_FLUSH_S = 0.5
# Connections that may wait to be accepted, as far as the system allows: the kernel drops the rest of a larger burst.
_BACKLOG = 4096


async def work(
    plan: Plan,
    addresses: Sequence[Address],
    settings: BalancerSettings,
    counters: Counters,
    process: int,
    listener: socket.socket,
    replicas_file: Path | None,
) -> None:
    """Serve until told to stop, then finish the running requests.

    Parameters
    ----------
    plan, addresses, settings
        The plan to serve, its replicas, and the settings.
    counters, process
        Counters, and this process's row.
    listener
        A socket that is bound but not yet listening.
    replicas_file
        File of replicas; read again whenever it changes; None: the replicas stay.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Other processes serve another plan: requests on open connections are still answered, then the connections close.
    relieved = asyncio.Event()

    def leave() -> None:
        relieved.set()
        stop.set()

    loop.add_signal_handler(signal.SIGHUP, leave)
    counters.forget_gauges(process)
    balancer = Balancer(plan, settings, counters, process)
    seen = stamp_of(replicas_file)
    balancer.list_replicas(_listed_now(replicas_file, plan, addresses))
    links = Links(settings.connect_timeout_s)
    health = Health(balancer, links)
    ledger = Ledger(counters, process, plan.workload.buckets, plan.slo, settings.balancers)
    proxy = Proxy(balancer, health, ledger, links, Pages(balancer, counters), _most_connections(settings))
    loop.set_exception_handler(lambda _, context: _note(proxy, context))
    await health.check(balancer.replicas)
    listening = await loop.create_server(
        lambda: Client(proxy),
        sock=listener,
        backlog=_BACKLOG,
        ssl=tls_context(settings),
        ssl_handshake_timeout=settings.idle_timeout_s if settings.tls_cert else None,
    )
    tasks = [
        loop.create_task(health.watch()),
        loop.create_task(_sweep(proxy)),
        loop.create_task(_stop_with_parent(stop)),
    ]
    if replicas_file is not None:
        tasks.append(loop.create_task(_follow(replicas_file, seen, plan, balancer, health)))
    balancer.row[counters.at("began")] = 1.0
    await stop.wait()
    proxy.is_draining = True
    listening.close()
    if relieved.is_set():
        log.info("the plan was replaced: finishing earlier requests")
        await _leave(proxy, settings)
    await _drain(proxy, settings.drain_s)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if proxy.tracing is not None:
        await loop.run_in_executor(None, proxy.tracing.close)


def _most_connections(settings: BalancerSettings) -> int:
    """Most clients at once: as many as the operator allows and the system has files for."""
    # Each client needs two files: its own connection, and the connection to its replica.
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(settings.most_connections, (files - _SPARE_FILES) // 2)


def _note(proxy: Proxy, context: dict[str, Any]) -> None:
    """Log only the place of an event loop's error; its message may contain bytes of requests."""
    fault = context.get("exception")
    if isinstance(fault, Exception) and not isinstance(fault, OSError):
        proxy.note_fault(fault)


async def _sweep(proxy: Proxy) -> None:
    """Periodically end waits that exceed their limits and close idle connections, forever."""
    while True:
        await asyncio.sleep(SWEEP_S)
        proxy.health.punctuality.beat()
        proxy.look()
        proxy.balancer.use_factors()
        proxy.follow_tenants()
        proxy.links.tidy({one.address.url for one in proxy.balancer.replicas})


def tls_context(settings: BalancerSettings) -> ssl.SSLContext | None:
    """TLS 1.2 and newer with the operator's certificate; None if there is no certificate.

    Raises
    ------
    MelangeError
        The files are not a certificate and its key.
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


async def _leave(proxy: Proxy, settings: BalancerSettings) -> None:
    """Wait for the next request on open connections: closing an idle one may cross with a request."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + settings.idle_timeout_s
    while proxy.clients and loop.time() < end_s:
        await asyncio.sleep(_SETTLE_S)


async def _drain(proxy: Proxy, limit_s: float) -> None:
    """Close idle connections, let requests finish, and cut off those that take too long."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + limit_s
    # Connections that were just accepted reach their first wait, so that they can be closed properly.
    await asyncio.sleep(_SETTLE_S)
    busy = _close_idle(proxy)
    if busy:
        log.info("draining: %d requests in flight", busy)
    while busy and loop.time() < end_s:
        await asyncio.sleep(0.05)
        busy = _close_idle(proxy)
    if busy:
        log.warning("%d requests cut off after %g s", busy, limit_s)
    # Complete responses are sent; clients that do not read them are cut off.
    end_s = loop.time() + _FLUSH_S
    while any(client.transport.get_write_buffer_size() and client.is_idle for client in proxy.clients):
        if loop.time() > end_s:
            break
        await asyncio.sleep(0.01)
    for client in tuple(proxy.clients):
        client.transport.abort()
    await asyncio.sleep(0)


def _close_idle(proxy: Proxy) -> int:
    """Close connections without a running request; returns the number of the others."""
    busy = 0
    for client in tuple(proxy.clients):
        if client.is_idle:
            client.transport.close()
        else:
            busy += 1
    return busy


def _listed_now(path: Path | None, plan: Plan, first: Sequence[Address]) -> Sequence[Address]:
    """The replicas in the file now: a process may start long after the others, as a replacement."""
    if path is not None:
        try:
            return read_addresses(path, plan)
        except MelangeError as fault:
            log.error("keeping the initial replicas: %s", fault)
    return first


async def _follow(
    path: Path, seen: tuple[int, int, int] | None, plan: Plan, balancer: Balancer, health: Health
) -> None:
    """Use the replicas' file whenever it changes; an invalid file changes nothing."""
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        stamp = stamp_of(path)
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


async def _stop_with_parent(stop: asyncio.Event) -> None:
    """Stop when the supervisor has ended for any reason."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(_LOOK_EVERY_S)
    log.error("the supervisor has exited: stopping")
    stop.set()
