"""A request in progress: sent to a replica, to one other replica if the first fails early, and answered.

Pieces are forwarded as they arrive, in callbacks: there is no task, queue or buffer between a replica and its client.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from melange.deploy.live.answers import UnservedError, date_line, error
from melange.deploy.live.completion import MOST_PIECES, Completion
from melange.deploy.live.endpoints import ENDPOINTS
from melange.deploy.live.headers import RETRIED, RETRIES
from melange.deploy.live.health import BROKEN, GONE, WRONG
from melange.deploy.live.links import LinkError

if TYPE_CHECKING:
    from melange.deploy.live.balancer import LiveReplica, Ticket
    from melange.deploy.live.client import Client
    from melange.deploy.live.limits import Visit
    from melange.deploy.live.link import Link
    from melange.deploy.live.links import Origin
    from melange.deploy.live.proxy import Proxy
    from melange.deploy.live.receive import Request
    from melange.deploy.live.sizing import Size
    from melange.deploy.live.tracing import Trace

# With these status codes a replica says that another may succeed. Other errors would happen again there, at twice the
# cost.
_BUSY = 429
_ELSEWHERE = frozenset({_BUSY, 502, 503, 504})
# If a client has delayed a response for longer than this, the replica is not blamed for ending it [s]: engines drop
# clients that do not read, and cannot know that this proxy only waits for its own client.
_HELD_S = 5.0
_LAST_CHUNK = b"0\r\n\r\n"


class Exchange:
    """One request, from its arrival to its end.

    Parameters
    ----------
    proxy
        The proxy that it belongs to.
    client
        The client that sent it.
    request
        The request, including its body.
    fields
        Header fields for the replica, as lines.
    size
        Size of the request for the policy.
    arrived_s
        Arrival time on the event loop's clock [s].
    visit
        The request of its tenant; None if there are no tenants.
    trace
        The span of the request; None without tracing.
    """

    __slots__ = ("_arrived_s", "_client", "_completion", "_connecting", "_failed", "_fields", "_held_s",
                 "_is_chunked", "_is_held", "_is_over", "_is_retry", "_is_unread", "_last", "_link",
                 "_moment_s", "_needs_new", "_now", "_patience_s", "_proxy", "_request", "_size", "_status", "_ticket",
                 "_trace", "_visit")  # fmt: skip

    def __init__(
        self,
        proxy: Proxy,
        client: Client,
        request: Request,
        fields: bytes,
        size: Size,
        arrived_s: float,
        visit: Visit | None = None,
        trace: Trace | None = None,
    ) -> None:
        self._proxy, self._client, self._request, self._fields, self._size = proxy, client, request, fields, size
        self._arrived_s = self._moment_s = arrived_s
        self._visit, self._trace = visit, trace
        self._last: LiveReplica | None = None  # replica that the request was last sent to
        self._now = proxy.now
        self._patience_s = proxy.settings.answer_timeout_s  # limit of the current wait
        self._ticket: Ticket | None = None
        self._link: Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._failed: LiveReplica | None = None
        self._is_retry = self._needs_new = False
        self._completion: Completion | None = None  # set once the response has started
        self._status = 0
        self._is_over = self._is_chunked = False
        self._is_unread = False  # the first token of its stream has not arrived
        # Whether it is waiting for the client to read, and the longest such wait [s].
        self._is_held, self._held_s = False, 0.0

    def start(self) -> None:
        """Send the request to the replica that the policy chooses."""
        proxy = self._proxy
        ticket = proxy.balancer.place(self._size, self._failed)
        if ticket is None:
            self._refuse(proxy.no_place(self._failed))
            return
        if self._is_retry:
            proxy.ledger.retried(is_served=False)
        self._ticket, self._moment_s = ticket, self._now()
        self._last = ticket.replica
        origin = proxy.links.to(ticket.replica.address.url)
        link = None if self._needs_new else origin.idle()
        if link is not None:
            self._send(link, origin)
        else:
            self._connecting = proxy.loop.create_task(self._connect(origin, ticket))

    async def _connect(self, origin: Origin, ticket: Ticket) -> None:
        try:
            link = await self._proxy.links.connected(origin)
        except LinkError as refused:
            if self._ticket is ticket:
                self._fail(str(refused), GONE)
        except TimeoutError:
            # A timeout proves nothing if this process was late itself. Otherwise it is one of several failures that
            # eject a replica, because a single lost packet can cause it.
            if self._ticket is ticket:
                self._fail("connecting timed out", "" if self._proxy.health.punctuality.is_late else BROKEN)
        else:
            if self._ticket is ticket:
                self._send(link, origin)
            else:
                origin.free(link)

    def _send(self, link: Link, origin: Origin) -> None:
        self._link, request = link, self._request
        body, retried = request.body, RETRIED if self._is_retry else b""
        link.ask(
            self,
            b"POST %b%b%b%b%bContent-Length: %d\r\n\r\n"
            % (origin.prefix, request.target, origin.head, self._fields, retried, len(body)),
            body,
        )

    def answered(self, link: Link, piece: bytes, is_last: bool) -> None:
        """The head of a response has arrived, perhaps with a piece of its body.

        The head is sent with the first piece: until then, the request can still be sent elsewhere.
        """
        self._moment_s = now_s = self._now()
        completion = self._completion
        if completion is not None:
            if piece:
                completion.note(piece, now_s)
                if self._is_unread:
                    self._look_for_first(completion)
                if self._is_chunked:
                    piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            if is_last:
                self._client.transport.write(piece + _LAST_CHUNK if self._is_chunked else piece)
                self._settle(completion)
            elif piece:
                self._client.transport.write(piece)
                if link.relay is None:
                    self._relay(link, completion)
            return
        if not self._is_retry and link.status in _ELSEWHERE:
            ticket = self._ticket
            assert ticket is not None
            if self._proxy.balancer.has_other(ticket.replica):
                link.drop()
                self._fail(f"answered {link.status}", "" if link.status == _BUSY else WRONG)
                return
        if piece or is_last:
            self._begin(link, piece, is_last, now_s)

    def _begin(self, link: Link, piece: bytes, is_last: bool, now_s: float) -> None:
        """Send the head of a response to the client, with the body received so far."""
        self._status = link.status
        client, request = self._client, self._request
        is_stream, head = link.fields.head_of(link.status, link.reason)
        self._completion = completion = Completion(is_stream, ENDPOINTS[request.path].lengths)
        completion.note(piece, now_s)
        self._is_unread = completion.is_stream
        if self._is_unread:
            self._look_for_first(completion)
        length = len(piece) if is_last else link.length
        framing = b""
        if link.status not in {204, 304}:
            if length >= 0:
                framing = b"Content-Length: %d\r\n" % length
            elif request.version == "1.1":
                self._is_chunked = True
                framing = b"Transfer-Encoding: chunked\r\n"
                piece = b"%x\r\n%b\r\n" % (len(piece), piece)
            else:  # an old client recognizes the end of the response by the end of the connection
                request.keeps_alive = False
        dated = b"" if b"date" in link.fields.named else date_line()
        retried = RETRIED if self._is_retry else b""
        line = client.connection_line(request)
        client.transport.write(b"".join((head, dated, retried, framing, line, b"\r\n", piece)))
        if is_last:
            self._settle(completion)
            return
        self._relay(link, completion)
        if client.is_full:
            self.hold()

    def _relay(self, link: Link, completion: Completion) -> None:
        """Forward chunks directly once the first token has arrived; until then, each piece is parsed for its time."""
        if not (self._is_chunked and link.is_chunked and completion.has_begun):
            return
        pieces, pieces_s, look = completion.pieces, completion.pieces_s, completion.look
        now, write = self._now, self._client.transport.write

        def relay(chunks: bytes) -> None:
            """Forward whole chunks unchanged, without joining or framing them."""
            write(chunks)
            self._moment_s = now_s = now()
            pieces_s.append(now_s)
            pieces.append(chunks)
            if len(pieces) >= MOST_PIECES:
                look()

        link.relay = relay

    def _look_for_first(self, completion: Completion) -> None:
        """Tell the balancer about the first token of a stream: its prompt no longer waits."""
        if completion.has_begun:
            self._is_unread = False
            if self._ticket is not None:
                self._proxy.balancer.read(self._ticket)

    def _settle(self, completion: Completion) -> None:
        """Record a complete response."""
        ticket, proxy, status = self._ticket, self._proxy, self._status
        assert ticket is not None
        self._is_over, self._link, self._ticket = True, None, None
        if self._visit is not None or self._trace is not None:
            self._leave()
        ledger = proxy.ledger
        if status == 200:
            if ticket.replica.failures:
                proxy.health.served(ticket.replica)
            proxy.balancer.finish(ticket, ledger.completed(ticket, completion, self._arrived_s))
            if self._is_retry:
                ledger.retried(is_served=True)
        elif status < 500 and status != _BUSY:
            ledger.unserved("refused", is_arrived=False)
        else:
            if status >= 500:
                proxy.health.failed(ticket.replica, f"answered {status}", WRONG)
            ledger.unserved("failed")
        if ticket.is_held:
            proxy.balancer.give_back(ticket)
        self._client.finished(self._request, status)

    def broken(self, link: Link, why: str) -> None:
        """The replica's connection has ended before the response was complete."""
        if self._completion is not None:
            self._cut(f"{why} during the answer", is_replicas=self._held_s <= _HELD_S)
        elif link.uses > 1 and not link.has_head:
            # The idle connection may have been closed just as the request was sent: the replica is not blamed.
            ticket = self._ticket
            self._needs_new = (
                ticket is not None and not self._is_retry and not self._proxy.balancer.has_other(ticket.replica)
            )
            self._fail(f"{why} before an answer", "" if self._needs_new else BROKEN)
        else:
            self._fail(f"{why} before an answer", BROKEN)

    def _fail(self, why: str, fault: str) -> None:
        """A replica has failed before any byte of the response was forwarded: try another replica."""
        ticket, proxy = self._ticket, self._proxy
        assert ticket is not None
        self._ticket = self._link = self._connecting = None
        if fault:
            proxy.health.failed(ticket.replica, why, fault)
        proxy.balancer.give_back(ticket)
        if self._is_retry:
            refused = error(502, "two replicas failed", headers={RETRIES: "1"})
            self._refuse(UnservedError(refused, "failed"))
            return
        self._is_retry = True
        self._failed = None if self._needs_new else ticket.replica
        self.start()

    def hold(self) -> None:
        """Stop reading from the replica, because the client reads slowly."""
        if self._link is not None and not self._is_held:
            self._is_held, self._moment_s = True, self._now()
            self._patience_s = self._proxy.settings.write_timeout_s
            self._link.transport.pause_reading()

    def go_on(self) -> None:
        """Continue reading from the replica, because the client has read."""
        if self._is_held and self._link is not None:
            now_s = self._now()
            self._is_held, self._held_s = False, max(self._held_s, now_s - self._moment_s)
            self._moment_s, self._patience_s = now_s, self._proxy.settings.answer_timeout_s
            self._link.transport.resume_reading()

    def abandon(self) -> None:
        """Stop the replica's work, because the client has disconnected."""
        if not self._is_over:
            self._status = 0
            self._proxy.ledger.unserved("client_gone")
            self._release()

    def look(self, now_s: float) -> None:
        """End a wait that exceeds its limit."""
        if now_s - self._moment_s <= self._patience_s or self._is_over:
            return
        if self._completion is not None:
            self._cut("timed out during the answer", is_replicas=True)
        else:
            # The replica may be working on the request, so it is not sent elsewhere.
            self._status = 504
            self._release()
            self._refuse(UnservedError(error(504, "the replica did not answer", closes=True), "failed"))

    def _cut(self, why: str, *, is_replicas: bool) -> None:
        """Abort an incomplete response, so that the client sees that it is incomplete."""
        ticket, proxy, client = self._ticket, self._proxy, self._client
        assert ticket is not None
        self._status = 0
        if self._is_held or not is_replicas or client.transport.is_closing():
            # The client has disconnected or does not read: the replica is not blamed.
            proxy.ledger.unserved("client_gone")
        else:
            proxy.ledger.unserved("failed")
            proxy.health.failed(ticket.replica, why, BROKEN)
        self._release()
        client.cut()

    def _leave(self) -> None:
        """Count the usage of the tenant and close the span."""
        visit, trace, completion = self._visit, self._trace, self._completion
        self._visit = self._trace = None
        inputs, outputs = (completion.input_tokens, completion.output_tokens) if completion is not None else (0, 0)
        if visit is not None:
            self._proxy.limits.leave(visit, inputs, outputs, self._now())
        if trace is not None:
            url, name = "", ""
            if self._last is not None:
                address = self._last.address
                url, name = address.url, self._proxy.balancer.plan.replica_types[address.place].name
            trace.end(self._status, name, url, int(self._is_retry), inputs, outputs)

    def _release(self) -> None:
        """Release the replica."""
        link, ticket = self._link, self._ticket
        self._is_over, self._link, self._ticket = True, None, None
        if self._visit is not None or self._trace is not None:
            self._leave()
        if link is not None:
            link.drop()
        if self._connecting is not None:
            self._connecting.cancel()
        if ticket is not None:
            self._proxy.balancer.give_back(ticket)

    def _refuse(self, refused: UnservedError) -> None:
        self._is_over = True
        self._status = refused.answer.status
        if self._visit is not None or self._trace is not None:
            self._leave()
        self._client.refuse(refused, self._request)
