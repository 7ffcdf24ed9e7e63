"""An OpenAI-compatible proxy in front of a plan's replicas: handling of one request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import HttpVersion10, HttpVersion11, web

from melange.deploy.live.access import is_allowed
from melange.deploy.live.answers import UnservedError, error, page
from melange.deploy.live.headers import RETRIES, request_headers
from melange.deploy.live.health import WRONG
from melange.deploy.live.receive import receive
from melange.deploy.live.sizing import BadRequestError, read_body, size_of
from melange.deploy.live.upstream import Exchange, Upstream, UpstreamFaultError

if TYPE_CHECKING:
    from melange.deploy.live.balancer import Balancer, LiveReplica
    from melange.deploy.live.health import Health
    from melange.deploy.live.ledger import Ledger
    from melange.deploy.live.pages import Pages
    from melange.deploy.live.settings import BalancerSettings

# What may be asked of replicas, and whether it is a conversation. Nothing else goes through.
_COMPLETIONS = {"/v1/completions": False, "/v1/chat/completions": True}
_VERSIONS = (HttpVersion10, HttpVersion11)
_MODELS, _HEALTH = "/v1/models", "/health"
# By these a replica says that another may do better. Other errors would come again elsewhere, and cost twice.
_BUSY = 429
_ELSEWHERE = frozenset({_BUSY, 502, 503, 504})


class Proxy:
    """Handles the requests of one process.

    Parameters
    ----------
    balancer, health, ledger
        What chooses replicas, watches them and counts.
    upstream
        Talks to replicas.
    pages
        What the proxy says of itself.
    settings
        Limits and keys.
    """

    def __init__(
        self,
        balancer: Balancer,
        health: Health,
        ledger: Ledger,
        upstream: Upstream,
        pages: Pages,
        settings: BalancerSettings,
    ) -> None:
        self.balancer, self.health, self.ledger, self.upstream = balancer, health, ledger, upstream
        self.pages, self.settings = pages, settings
        self.is_draining = False
        self._retry_after = {"Retry-After": str(settings.retry_after_s)}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            answer = await self._route(request)
        except UnservedError as refused:
            self.ledger.unserved(refused.reason, is_arrived=refused.reason not in _BEFORE_ARRIVAL)
            answer = refused.answer
        self.ledger.answered(answer.status)
        if self.is_draining:
            answer.force_close()
        return answer

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.version not in _VERSIONS:
            # The parser knows older and newer ones, and the answer would be in that version too.
            raise ConnectionResetError("only HTTP/1.0 and HTTP/1.1 are supported")
        path, _, query = request.raw_path.partition("?")
        if path in _COMPLETIONS:
            self._check(request, "POST")
            return await self._complete(request, path, query)
        if path == _HEALTH:
            _check_method(request, "GET")
            return self._own_health()
        if path == _MODELS:
            self._check(request, "GET")
            return await self._models(request)
        if own := self.pages.find(path):
            self._check(request, "GET")
            return own()
        raise UnservedError(error(404, "no such path", closes=True))

    def _check(self, request: web.BaseRequest, method: str) -> None:
        _check_method(request, method)
        keys = self.settings.keys
        if keys and not is_allowed(request.headers.get("Authorization", ""), keys):
            challenge = {"WWW-Authenticate": "Bearer"}
            raise UnservedError(error(401, "an API key is required", headers=challenge, closes=True), "unauthorized")

    async def _complete(self, request: web.BaseRequest, path: str, query: str) -> web.StreamResponse:
        settings = self.settings
        arrived_s = self.upstream.now()
        body = await receive(request, settings.most_body_bytes, settings.body_timeout_s)
        is_chat = _COMPLETIONS[path]
        try:
            content = read_body(body)
            size = size_of(content, is_chat, settings.bytes_per_token)
        except BadRequestError as bad:
            raise UnservedError(error(400, str(bad))) from bad
        headers = request_headers(request.headers, settings.upstream_key, bool(settings.keys))
        if settings.tokenizer:
            size = await self.upstream.counted(content, headers, size, self.balancer.first_up())
        self.ledger.arrived(size.input_tokens, arrived_s)
        target = f"{path}?{query}" if query else path
        exchange = Exchange(request, target, headers, body, size, arrived_s)
        self.upstream.under_way.add(exchange)
        try:
            return await self._serve(exchange)
        except asyncio.CancelledError:
            self.ledger.unserved("client_gone")
            raise
        finally:
            self.upstream.under_way.discard(exchange)

    async def _serve(self, exchange: Exchange) -> web.StreamResponse:
        """Send a request to a replica, and to one other if that fails before anything has been sent back."""
        failed: LiveReplica | None = None
        while True:
            ticket = self.balancer.place(exchange.size, failed)
            if ticket is None:
                raise self._no_place(failed)
            is_retry = failed is not None
            if is_retry:
                self.ledger.retried(is_served=False)
                exchange.headers[RETRIES] = "1"
            try:
                answer = await self.upstream.ask(exchange, ticket)
                if answer.status in _ELSEWHERE and not is_retry and self.balancer.has_other(ticket.replica):
                    answer.close()
                    raise UpstreamFaultError(f"answered {answer.status}", "" if answer.status == _BUSY else WRONG)
                return await self.upstream.pass_on(exchange, ticket, answer, is_retry=is_retry)
            except UpstreamFaultError as fault:
                if fault.fault:
                    self.health.failed(ticket.replica, str(fault), fault.fault)
                if is_retry:
                    raise UnservedError(error(502, "two replicas failed", headers={RETRIES: "1"}), "failed") from fault
                failed = ticket.replica
            finally:
                self.balancer.give_back(ticket)

    def _no_place(self, failed: LiveReplica | None) -> UnservedError:
        """Why no replica takes a request."""
        if failed is not None:
            return UnservedError(error(502, "the replica failed and no other can take the request"), "failed")
        if not self.balancer.ups:
            return UnservedError(error(503, "no replica is available", headers=self._retry_after), "none_up")
        return UnservedError(error(429, "all replicas are at capacity", headers=self._retry_after), "busy")

    def _own_health(self) -> web.Response:
        ups = self.balancer.ups
        is_well = ups > 0 and not self.is_draining
        status = "ok" if is_well else "draining" if self.is_draining else "no replica is available"
        content = {"status": status, "replicas_up": ups, "replicas": len(self.balancer.replicas)}
        return page(content, status=200 if is_well else 503)

    async def _models(self, request: web.BaseRequest) -> web.StreamResponse:
        """The models of the first replica that says them."""
        headers = request_headers(request.headers, self.settings.upstream_key, bool(self.settings.keys))
        for replica in self.balancer.replicas:
            if replica.is_up:
                try:
                    return await self.upstream.models(replica, headers)
                except UpstreamFaultError:
                    continue
        raise UnservedError(error(503, "no replica is available", headers=self._retry_after), "none_up")


# Ended before the request was known: not one of those that arrived.
_BEFORE_ARRIVAL = frozenset({"malformed", "unauthorized"})


def _check_method(request: web.BaseRequest, method: str) -> None:
    if request.method != method:
        raise UnservedError(error(405, f"only {method} is supported here", headers={"Allow": method}, closes=True))
