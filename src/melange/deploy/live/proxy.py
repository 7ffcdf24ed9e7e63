"""An OpenAI-compatible proxy in front of a plan's replicas: it checks requests and passes them to replicas."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melange.deploy.live.access import is_allowed
from melange.deploy.live.answers import Answer, UnservedError, error, page
from melange.deploy.live.endpoints import ENDPOINTS
from melange.deploy.live.exchange import Exchange
from melange.deploy.live.headers import Fields, request_fields
from melange.deploy.live.limits import Limits
from melange.deploy.live.links import LinkError
from melange.deploy.live.sizing import BadRequestError, Size, read_body, with_priority
from melange.deploy.live.stamp import stamp_of
from melange.deploy.live.tenants import Tenants, read_tenants
from melange.deploy.live.tracing import tracing_of_environment, without_context
from melange.errors import MelangeError
from melange.replica.policy import POLICIES, PREFIX_AFFINITY

if TYPE_CHECKING:
    from melange.deploy.live.balancer import Balancer, LiveReplica
    from melange.deploy.live.client import Client
    from melange.deploy.live.health import Health
    from melange.deploy.live.ledger import Ledger
    from melange.deploy.live.links import Links
    from melange.deploy.live.pages import Pages
    from melange.deploy.live.receive import Request

log = logging.getLogger("melange.balance")

_MODELS, _HEALTH = b"/v1/models", b"/health"
_OF_JSON = b"Content-Type: application/json\r\n"
_TURNED_AWAY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Handles the requests of one process.

    Parameters
    ----------
    balancer, health, ledger
        Parts that choose replicas, watch them, and count.
    links
        Connections to the replicas.
    pages
        Pages about the proxy itself.
    most_connections
        Most connected clients.
    """

    def __init__(
        self, balancer: Balancer, health: Health, ledger: Ledger, links: Links, pages: Pages, most_connections: int
    ) -> None:
        self.balancer, self.health, self.ledger, self.links = balancer, health, ledger, links
        self.pages, self.settings = pages, balancer.settings
        self.loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = self.loop.time
        self.clients: set[Client] = set()
        self.is_draining = False
        self._most_connections = most_connections
        self._row, self._connections = balancer.row, balancer.counters.at("connections")
        self.tracing = tracing_of_environment()
        self.limits = Limits(balancer.counters, ledger.process, self.settings.retry_after_s)
        self.tenants: Tenants | None = None
        self._has_keys, self._tenants_stamp = self.settings.has_keys, (0, 0, 0)
        self.follow_tenants()
        self._needs_key = self.settings.policy == POLICIES[PREFIX_AFFINITY]
        self._retry_after = {"Retry-After": str(self.settings.retry_after_s)}

    def follow_tenants(self) -> None:
        """Read the tenants' file again if it has changed; an invalid file changes nothing."""
        stamp = stamp_of(self.settings.tenants_file)
        if stamp is None or stamp == self._tenants_stamp or self.settings.tenants_file is None:
            return
        self._tenants_stamp = stamp
        try:
            self.tenants = read_tenants(self.settings.tenants_file)
            self.balancer.tenant_names = self.tenants.names
        except MelangeError as fault:
            log.error("tenants unchanged: %s", fault)

    def opened(self, client: Client) -> None:
        """A client has connected."""
        self.clients.add(client)
        self._row[self._connections] = float(len(self.clients))
        if len(self.clients) > self._most_connections:
            client.transport.write(_TURNED_AWAY)
            client.transport.close()

    def closed(self, client: Client) -> None:
        """A client has disconnected."""
        self.clients.discard(client)
        self._row[self._connections] = float(len(self.clients))

    def look(self) -> None:
        """End waits that exceed their limits; periodic checks of all clients are cheaper than a timer per piece."""
        now_s = self.now()
        for client in tuple(self.clients):
            client.look(now_s)

    def admit(self, request: Request) -> None:
        """Check the head of a request, and reject it if it is not allowed.

        Raises
        ------
        UnservedError
            Unknown path, wrong method, or missing key.
        """
        path = request.path
        if path in ENDPOINTS:
            method = b"POST"
        elif path in {_MODELS, _HEALTH} or self.pages.find(path):
            method = b"GET"
        else:
            raise UnservedError(error(404, "no such path", closes=True))
        if request.method != method:
            only, headers = f"only {method.decode()} is supported here", {"Allow": method.decode()}
            raise UnservedError(error(405, only, headers=headers, closes=True))
        if self._has_keys and path != _HEALTH:
            self._check_key(request)

    def _check_key(self, request: Request) -> None:
        shown = request.fields.named.get(b"authorization", b"").decode("utf-8", "surrogateescape")
        request.tenant = self.tenants.of(shown) if self.tenants is not None else None
        if request.tenant is None and not is_allowed(shown, self.settings.keys):
            challenge = {"WWW-Authenticate": "Bearer"}
            raise UnservedError(error(401, "an API key is required", headers=challenge, closes=True), "unauthorized")
        if request.tenant is not None and self.pages.find(request.path):
            # These pages show the usage of all tenants.
            raise UnservedError(error(403, "a tenant's key is valid for requests only", closes=True), "unauthorized")

    def handle(self, client: Client, request: Request) -> None:
        """Answer an admitted request, directly or after other work.

        Raises
        ------
        UnservedError
            The request is invalid, so no replica should see it.
        """
        path = request.path
        if path in ENDPOINTS:
            self._complete(client, request)
        elif path == _HEALTH:
            client.answer(self._own_health(), request)
        elif path == _MODELS:
            client.run(self._models(self._fields(request)), request)
        else:
            own = self.pages.find(path)
            assert own is not None
            client.answer(own(), request)

    def _complete(self, client: Client, request: Request) -> None:
        settings, arrived_s = self.settings, self.now()
        try:
            content = read_body(request.body)
            size = ENDPOINTS[request.path].size_of(content, settings.bytes_per_token, has_key=self._needs_key)
        except BadRequestError as bad:
            raise UnservedError(error(400, str(bad))) from bad
        tenant = request.tenant
        if tenant is not None and tenant.priority is not None:
            request.body = with_priority(request.body, content, tenant.priority)
            content["priority"] = tenant.priority
        if classes := self.balancer.class_by_priority:
            told = content.get("priority", 0)
            size.class_place = classes.get(told, 0) if type(told) is int else 0
        if not settings.tokenizer:
            self._start(client, request, size, arrived_s)
            return

        async def count() -> None:
            self._start(client, request, await self._counted(content, request, size), arrived_s)

        client.run(count(), request)

    def _start(self, client: Client, request: Request, size: Size, arrived_s: float) -> None:
        """Start the exchange of a request with known size.

        Raises
        ------
        UnservedError
            Its tenant has reached a limit.
        """
        tenant = request.tenant
        visit = self.limits.enter(tenant, size.input_tokens, arrived_s) if tenant is not None else None
        self.ledger.arrived(size.input_tokens, arrived_s, size.class_place)
        fields, trace = self._fields(request), None
        if self.tracing is not None:
            trace = self.tracing.begin(request)
            fields = without_context(fields) + trace.fields
        client.work = exchange = Exchange(self, client, request, fields, size, arrived_s, visit, trace)
        exchange.start()

    def _fields(self, request: Request) -> bytes:
        return request_fields(request.fields, self.settings.upstream_key, self._has_keys)

    def no_place(self, failed: LiveReplica | None) -> UnservedError:
        """The response if no replica accepts a request; one may already have failed it."""
        if failed is not None:
            return UnservedError(error(502, "the replica failed and no other can take the request"), "failed")
        if not self.balancer.ups:
            return UnservedError(error(503, "no replica is available", headers=self._retry_after), "none_up")
        return UnservedError(error(429, "all replicas are at capacity", headers=self._retry_after), "busy")

    def _own_health(self) -> Answer:
        ups = self.balancer.ups
        is_well = ups > 0 and not self.is_draining
        status = "ok" if is_well else "draining" if self.is_draining else "no replica is available"
        content = {"status": status, "replicas_up": ups, "replicas": len(self.balancer.replicas)}
        return page(content, status=200 if is_well else 503)

    async def _models(self, fields: bytes) -> Answer:
        """The list of models of the first replica that answers."""
        for replica in self.balancer.replicas:
            if replica.is_up:
                try:
                    async with asyncio.timeout(self.settings.health_timeout_s):
                        said = await self.links.fetch(replica.address.url, b"GET", _MODELS, fields)
                except (LinkError, TimeoutError):
                    continue
                return Answer(said.status, said.body, _headers(said.fields.passed_on()))
        raise UnservedError(error(503, "no replica is available", headers=self._retry_after), "none_up")

    async def _counted(self, content: dict[str, Any], request: Request, size: Size) -> Size:
        """A request's size with tokens counted by a replica's tokenizer; unchanged if the replica does not answer."""
        replica = self.balancer.first_up()
        asked = {name: content[name] for name in ("model", "prompt", "messages") if name in content}
        if isinstance(content.get("input"), str):
            asked["prompt"] = content["input"]
        if replica is None or not ("messages" in asked or isinstance(asked.get("prompt"), str)):
            return size
        shown = Fields()
        shown.lines = [line for line in request.fields.lines if line[:14].lower() == b"authorization:"][:1]
        fields = request_fields(shown, self.settings.upstream_key, self._has_keys) + _OF_JSON
        try:
            async with asyncio.timeout(self.settings.health_timeout_s):
                said = await self.links.fetch(
                    replica.address.url, b"POST", b"/tokenize", fields, json.dumps(asked).encode()
                )
            found = json.loads(said.body) if said.status == 200 else {}
        except (LinkError, TimeoutError, ValueError, RecursionError):
            return size
        count = found.get("count") if isinstance(found, dict) else None
        return replace(size, input_tokens=count) if type(count) is int and count > 0 else size

    def note_fault(self, fault: BaseException) -> None:
        """Log the kind and place of an internal error; its text may contain bytes of the request."""
        frames = traceback.extract_tb(fault.__traceback__)
        where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        log.error("internal error in a request: %s%s", type(fault).__name__, where)


def _headers(lines: bytes) -> dict[str, str]:
    """Header lines for the proxy's own response, which adds its own date."""
    pairs = (line.split(": ", 1) for line in lines.decode("latin-1").split("\r\n") if line)
    return {name: value for name, value in pairs if name.lower() != "date"}
