"""The way to the replicas and back, byte by byte, without buffering."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from yarl import URL

from melange.deploy.live.answers import UnservedError, error
from melange.deploy.live.completion import Completion
from melange.deploy.live.headers import RETRIES, answer_headers
from melange.deploy.live.health import BROKEN, GONE, SWEEP_S, WRONG
from melange.deploy.live.response_head import connector
from melange.deploy.live.sizing import Size

if TYPE_CHECKING:
    from multidict import CIMultiDict

    from melange.deploy.live.balancer import Balancer, LiveReplica, Ticket
    from melange.deploy.live.health import Health
    from melange.deploy.live.ledger import Ledger
    from melange.deploy.live.settings import BalancerSettings

# Uvicorn closes idle connections after 5 s: one that is older is not used, because it may be closed at that moment. A
# shorter time would connect again more often.
_IDLE_S = 4.0
# Of an answer that is read ahead of a slow client [bytes]: more is memory for each open stream, less are more wake-ups
# for answers that come whole.
_READ_AHEAD = 2**14
# How long a client may have kept an answer waiting before a replica that ends it is excused [s]: engines give up
# clients that do not read, and cannot know that this proxy does not for its own.
_HELD_S = 5.0
# Parsed addresses that are kept. Queries are the client's to choose, so without a limit clients could fill the memory.
_MOST_URLS = 1000


class UpstreamFaultError(Exception):
    """A replica has failed a request of which no byte was sent back.

    Parameters
    ----------
    why
        For the log and the client.
    fault
        How: ``GONE``, ``BROKEN`` or ``WRONG``; empty if it only reported overload, or if the
        delay may be this process's own.
    """

    def __init__(self, why: str, fault: str) -> None:
        super().__init__(why)
        self.fault = fault


class Exchange:
    """A request on its way.

    Parameters
    ----------
    request
        As the client sent it.
    target
        Path and query at the replica.
    headers
        That the replica gets to see.
    body, size
        Of the request.
    arrived_s
        When it came, by the event loop's clock [s].
    """

    __slots__ = ("arrived_s", "body", "first", "headers", "held_s", "is_held", "is_late", "moment_s", "patience_s",
                 "request", "size", "target", "task")  # fmt: skip

    def __init__(
        self,
        request: web.BaseRequest,
        target: str,
        headers: CIMultiDict[str],
        body: bytes,
        size: Size,
        arrived_s: float,
    ) -> None:
        self.request, self.target, self.headers, self.body, self.size = request, target, headers, body, size
        self.arrived_s = self.moment_s = arrived_s
        self.first = b""  # of the answer's body
        self.patience_s = 0.0  # how long the present wait may last
        self.is_late = False
        # Whether it waits for the client to read, and the longest that it has [s].
        self.is_held, self.held_s = False, 0.0
        self.task = asyncio.current_task()


class _Stream(web.StreamResponse):
    """An answer whose head leaves with its first token."""

    _send_headers_immediately = False


class Upstream:
    """Talks to replicas.

    Parameters
    ----------
    session
        Of the client side.
    balancer, health, ledger
        What is told of the outcome.
    settings
        Timeouts.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        balancer: Balancer,
        health: Health,
        ledger: Ledger,
        settings: BalancerSettings,
    ) -> None:
        self.session, self.balancer, self.health, self.ledger = session, balancer, health, ledger
        self.settings = settings
        self.now = asyncio.get_running_loop().time
        self.punctuality = health.punctuality
        self.under_way: set[Exchange] = set()
        self._urls: dict[tuple[str, str], URL] = {}

    async def ask(self, exchange: Exchange, ticket: Ticket) -> aiohttp.ClientResponse:
        """Send a request, and wait for the head of the answer and the first of its body.

        Until then nothing is sent back, so that the request may yet go elsewhere.

        Raises
        ------
        UpstreamFaultError
            There is no whole head and first piece.
        UnservedError
            The replica is silent for too long: it may be at work on the request, which is not sent elsewhere.
        """
        exchange.moment_s, exchange.patience_s = self.now(), self.settings.answer_timeout_s
        url = ticket.replica.address.url
        answer = None
        try:
            answer = await self.session.post(
                self._url(url, exchange.target), data=exchange.body, headers=exchange.headers, allow_redirects=False
            )
            exchange.first = await answer.content.readany()
            _check_coding(answer)
        except aiohttp.ClientConnectorError as refused:
            raise UpstreamFaultError("connection failed", GONE) from refused
        except (aiohttp.ClientError, OSError, TimeoutError) as broken:
            if answer is not None:
                answer.close()
            # A wait that was too long says nothing where this process was late itself; else it is one failure of
            # several that eject a replica, for a single lost packet makes one.
            fault = "" if isinstance(broken, TimeoutError) and self.punctuality.is_late else BROKEN
            raise UpstreamFaultError(f"{type(broken).__name__} before an answer", fault) from broken
        except asyncio.CancelledError:
            if answer is not None:
                answer.close()
            if not exchange.is_late:
                raise
            raise UnservedError(error(504, "the replica did not answer", closes=True), "failed") from None
        return answer

    async def pass_on(
        self, exchange: Exchange, ticket: Ticket, answer: aiohttp.ClientResponse, *, is_retry: bool
    ) -> web.StreamResponse:
        """Send an answer back as it comes; once it has begun it can only go on or be cut off."""
        headers = answer_headers(answer.headers)
        if is_retry:
            headers[RETRIES] = "1"
        completion = Completion(answer.content_type == "text/event-stream")
        completion.note(exchange.first, self.now())
        response: web.StreamResponse
        if answer.content.at_eof():
            response = web.Response(status=answer.status, reason=answer.reason, headers=headers, body=exchange.first)
            is_whole = True
        else:
            response = _Stream(status=answer.status, reason=answer.reason, headers=headers)
            response.content_length = answer.content_length
            is_whole = await self._stream(exchange, ticket, answer, response, completion)
        if not is_whole:
            return response
        self._settle(exchange, ticket, answer.status, completion, is_retry=is_retry)
        return response

    async def _stream(
        self,
        exchange: Exchange,
        ticket: Ticket,
        answer: aiohttp.ClientResponse,
        response: web.StreamResponse,
        completion: Completion,
    ) -> bool:
        """Pass a body on piece by piece; whether it came to its end."""
        content, now, settings = answer.content, self.now, self.settings
        try:
            await response.prepare(exchange.request)
            piece = exchange.first
            while piece:
                exchange.moment_s, exchange.patience_s = now(), settings.write_timeout_s
                exchange.is_held = True
                await response.write(piece)
                exchange.is_held = False
                exchange.held_s = max(exchange.held_s, now() - exchange.moment_s)
                exchange.moment_s, exchange.patience_s = now(), settings.answer_timeout_s
                piece = await content.readany()
                exchange.moment_s = moment_s = now()
                completion.note(piece, moment_s)
            return True
        except (aiohttp.ClientError, OSError) as broken:
            answer.close()
            self._cut(exchange, ticket, broken)
        except asyncio.CancelledError:
            # The client has gone, or this took too long: the replica need not go on.
            answer.close()
            if not exchange.is_late:
                raise
            self._cut(exchange, ticket, None)
        return False

    def _cut(self, exchange: Exchange, ticket: Ticket, broken: Exception | None) -> None:
        """End an answer that cannot be ended well, so that its client sees that it is not whole."""
        transport = exchange.request.transport
        is_slow = exchange.is_held or (broken is not None and exchange.held_s > _HELD_S)
        if is_slow or (broken is not None and (transport is None or transport.is_closing())):
            # It is the client that has gone or does not read: the replica has done nothing wrong.
            self.ledger.unserved("client_gone")
            if transport is not None:
                transport.close()
            return
        self.ledger.unserved("failed")
        why = f"{type(broken).__name__} during the answer" if broken else "timed out during the answer"
        self.health.failed(ticket.replica, why, BROKEN)
        if transport is not None:
            transport.close()

    def _settle(
        self, exchange: Exchange, ticket: Ticket, status: int, completion: Completion, *, is_retry: bool
    ) -> None:
        """An answer has come whole: keep book of it."""
        if status == 200:
            self.health.served(ticket.replica)
            self.balancer.finish(ticket, self.ledger.completed(ticket, completion, exchange.arrived_s))
            if is_retry:
                self.ledger.retried(is_served=True)
        elif status < 500 and status != 429:
            self.ledger.unserved("refused", is_arrived=False)
        else:
            if status >= 500:
                self.health.failed(ticket.replica, f"answered {status}", WRONG)
            self.ledger.unserved("failed")

    async def models(self, replica: LiveReplica, headers: CIMultiDict[str]) -> web.Response:
        """What a replica serves, as it says it to a client with these headers.

        Raises
        ------
        UpstreamFaultError
            It does not say.
        """
        timeout = aiohttp.ClientTimeout(total=self.settings.health_timeout_s)
        try:
            async with self.session.get(
                self._url(replica.address.url, "/v1/models"), timeout=timeout, headers=headers, allow_redirects=False
            ) as answer:
                return web.Response(
                    status=answer.status, headers=answer_headers(answer.headers), body=await answer.read()
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as broken:
            raise UpstreamFaultError(type(broken).__name__, BROKEN) from broken

    async def counted(
        self, content: dict[str, Any], headers: CIMultiDict[str], size: Size, replica: LiveReplica | None
    ) -> Size:
        """A request's size with its prompt counted by a replica's tokenizer; as it was where that does not answer."""
        if replica is None or (isinstance(content.get("prompt"), list) and "messages" not in content):
            return size
        asked = {name: content[name] for name in ("model", "prompt", "messages") if name in content}
        timeout = aiohttp.ClientTimeout(total=self.settings.health_timeout_s)
        key = {"Authorization": headers["Authorization"]} if "Authorization" in headers else {}
        try:
            async with self.session.post(
                self._url(replica.address.url, "/tokenize"),
                json=asked,
                timeout=timeout,
                headers=key,
                allow_redirects=False,
            ) as answer:
                said = json.loads(await answer.read()) if answer.status == 200 else {}
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return size
        count = said.get("count") if isinstance(said, dict) else None
        return Size(count, size.max_tokens, size.is_stream) if type(count) is int and count > 0 else size

    async def sweep(self) -> None:
        """End waits that last too long, for ever; one look at all is cheaper than a timer for each piece."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.punctuality.beat()
            now_s = self.now()
            for exchange in tuple(self.under_way):
                if now_s - exchange.moment_s > exchange.patience_s > 0 and exchange.task is not None:
                    exchange.is_late = True
                    exchange.task.cancel()

    def _url(self, url: str, target: str) -> URL:
        """The address of a target, kept: the targets are few and parsing takes long."""
        found = self._urls.get((url, target))
        if found is None:
            found = URL(url + target, encoded=True)
            if len(self._urls) < _MOST_URLS:
                self._urls[url, target] = found
        return found


def _check_coding(answer: aiohttp.ClientResponse) -> None:
    """Refuse a body that is packed for this hop: passed on without that word, it would be taken for the text itself."""
    coding = answer.headers.get("Transfer-Encoding", "chunked")
    if coding.strip().lower() != "chunked" or len(answer.headers.getall("Transfer-Encoding", ())) > 1:
        raise aiohttp.ClientPayloadError("a transfer coding other than chunked")


def client_session(settings: BalancerSettings) -> aiohttp.ClientSession:
    """The client side: no limit of connections but the balancer's, nothing unpacked, no cookies, no proxies."""
    return aiohttp.ClientSession(
        connector=connector(limit=0, keepalive_timeout=_IDLE_S, ttl_dns_cache=60),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=_READ_AHEAD,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )
