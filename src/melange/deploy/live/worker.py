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

# Open files that are no client's: listeners, libraries, logs, health checks. With too few, a client that
# was accepted finds none.
_SPARE_FILES = 64
# How often the replicas' file and the supervisor are looked for [s]: a change waits so long, a look is a system call.
_LOOK_EVERY_S = 0.5
# How long the last accepted connections have to come to their first wait, before idle ones are closed [s]. With less a
# client that has just connected may be cut off; more delays every restart.
_SETTLE_S = 0.05
# How long answers that are complete may take to leave when a process ends [s].
_FLUSH_S = 0.5
# Connections that wait to be accepted, as far as the system allows: of a larger burst the kernel drops the rest.
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
    # Others serve by another plan: what comes on open connections is answered still, and closes them.
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
    """Clients at once: as many as the operator allows, and the system has files for."""
    # A client takes two files, its own connection and the one to its replica.
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(settings.most_connections, (files - _SPARE_FILES) // 2)


def _note(proxy: Proxy, context: dict[str, Any]) -> None:
    """What the event loop has to say of failures may hold bytes of requests: where it was is enough."""
    fault = context.get("exception")
    if isinstance(fault, Exception) and not isinstance(fault, OSError):
        proxy.note_fault(fault)


async def _sweep(proxy: Proxy) -> None:
    """Now and then, for ever: end waits that last too long, close what is idle."""
    while True:
        await asyncio.sleep(SWEEP_S)
        proxy.health.punctuality.beat()
        proxy.look()
        proxy.balancer.use_factors()
        proxy.follow_tenants()
        proxy.links.tidy({one.address.url for one in proxy.balancer.replicas})


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


async def _leave(proxy: Proxy, settings: BalancerSettings) -> None:
    """Wait for open connections to bring their next request: closing an idle one may cross a request on its way."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + settings.idle_timeout_s
    while proxy.clients and loop.time() < end_s:
        await asyncio.sleep(_SETTLE_S)


async def _drain(proxy: Proxy, limit_s: float) -> None:
    """Close idle connections, let requests come to their end, and cut those off that take too long."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + limit_s
    # Connections that have just been accepted come to their first wait, in which closing them finds them.
    await asyncio.sleep(_SETTLE_S)
    busy = _close_idle(proxy)
    if busy:
        log.info("draining: %d requests in flight", busy)
    while busy and loop.time() < end_s:
        await asyncio.sleep(0.05)
        busy = _close_idle(proxy)
    if busy:
        log.warning("%d requests cut off after %g s", busy, limit_s)
    # Completed answers are sent; clients that do not read them are cut off.
    end_s = loop.time() + _FLUSH_S
    while any(client.transport.get_write_buffer_size() and client.is_idle for client in proxy.clients):
        if loop.time() > end_s:
            break
        await asyncio.sleep(0.01)
    for client in tuple(proxy.clients):
        client.transport.abort()
    await asyncio.sleep(0)


def _close_idle(proxy: Proxy) -> int:
    """Close connections that have nothing under way; the number of the others."""
    busy = 0
    for client in tuple(proxy.clients):
        if client.is_idle:
            client.transport.close()
        else:
            busy += 1
    return busy


def _listed_now(path: Path | None, plan: Plan, first: Sequence[Address]) -> Sequence[Address]:
    """What the file says by now: a process may be started long after the others, in place of one that ended."""
    if path is not None:
        try:
            return read_addresses(path, plan)
        except MelangeError as fault:
            log.error("keeping the initial replicas: %s", fault)
    return first


async def _follow(
    path: Path, seen: tuple[int, int, int] | None, plan: Plan, balancer: Balancer, health: Health
) -> None:
    """Take up the replicas' file whenever it changes; a file that cannot be used changes nothing."""
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
    """Stop when the supervisor has gone, however it went."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(_LOOK_EVERY_S)
    log.error("the supervisor has exited: stopping")
    stop.set()
