"""A client's connection: its requests in sequence, and their responses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from melange.deploy.live.answers import Answer, UnservedError, error
from melange.deploy.live.exchange import Exchange
from melange.deploy.live.receive import Receiver, Request

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from melange.deploy.live.proxy import Proxy

# Most bytes waiting for a client that reads slowly; beyond this, reading from the replica stops. More takes memory for
# each open stream; less makes replicas wait for their clients.
_WRITE_AHEAD = 2**15
# How long the rest of a request is read and discarded after an early response [s]: without this, the client may see a
# reset instead of the response; if it is longer, a slow body keeps its connection open.
_LINGER_S = 2.0
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSES, _GOES_ON = b"Connection: close\r\n", b"Connection: keep-alive\r\n"
_BODY = 2


class Client(asyncio.Protocol):
    """One connection of a client.

    Parameters
    ----------
    proxy
        The proxy that answers its requests.
    """

    __slots__ = ("_deadline_s", "_is_advancing", "_is_lingering", "_is_paused", "_proxy", "_receiver", "_stage",
                 "is_full", "transport", "work")  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._receiver = Receiver(proxy.admit, proxy.settings.most_body_bytes)
        self._stage, self._deadline_s = 0, proxy.now() + proxy.settings.idle_timeout_s
        self._is_advancing = self._is_lingering = self._is_paused = False
        self.is_full = False  # more bytes wait for the client than allowed
        self.work: Exchange | asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the connection is between two requests, or is closing."""
        return self.work is None and (self._is_lingering or self._stage == 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has connected."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=_WRITE_AHEAD)
        self._proxy.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        """The client has disconnected."""
        work, self.work = self.work, None
        if isinstance(work, Exchange):
            work.abandon()
        elif work is not None:
            work.cancel()
        self._proxy.closed(self)

    def data_received(self, data: bytes) -> None:
        """Receive bytes of requests."""
        if self._is_lingering:
            return
        receiver = self._receiver
        try:
            receiver.feed(data)
            if self.work is None:
                self._advance()
            elif receiver.ready and not self._is_paused:
                self._is_paused = True
                self.transport.pause_reading()
        except Exception as fault:
            self._proxy.note_fault(fault)
            self._failed()

    def eof_received(self) -> None:
        """The client has sent end of file, and counts as disconnected."""

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self.is_full = True
        if isinstance(self.work, Exchange):
            self.work.hold()

    def resume_writing(self) -> None:
        """The client has read the waiting bytes."""
        self.is_full = False
        if isinstance(self.work, Exchange):
            self.work.go_on()

    def _advance(self) -> None:
        """Answer the received requests in sequence."""
        ready = self._receiver.ready
        if ready:
            self._is_advancing = True
            while ready and self.work is None and not self._is_lingering and not self.transport.is_closing():
                item = ready.popleft()
                if isinstance(item, UnservedError):
                    self.refuse(item, None)
                    continue
                try:
                    self._proxy.handle(self, item)
                except UnservedError as refused:
                    self.refuse(refused, item)
            self._is_advancing = False
        if self.work is None and not self._is_lingering:
            self._await_more()

    def _await_more(self) -> None:
        """Set the time limit for the next bytes while no request is being served."""
        receiver = self._receiver
        if receiver.stage != self._stage or not receiver.stage:
            self._stage, settings = receiver.stage, self._proxy.settings
            limit_s = settings.body_timeout_s if self._stage == _BODY else settings.idle_timeout_s
            self._deadline_s = self._proxy.now() + limit_s
        if receiver.request is not None and receiver.request.expects:
            receiver.request.expects = False
            self.transport.write(_GO_ON)
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()

    def connection_line(self, request: Request | None) -> bytes:
        """The header line for keep-alive or close; also decides to close if keep-alive is not possible."""
        if request is None or self._proxy.is_draining or not request.keeps_alive:
            if request is not None:
                request.keeps_alive = False
            return _CLOSES
        return b"" if request.version == "1.1" else _GOES_ON

    def answer(self, answer: Answer, request: Request | None) -> None:
        """Send a response from the proxy itself."""
        line = _CLOSES if answer.closes else self.connection_line(request)
        has_body = request is None or request.method != b"HEAD"
        self.transport.write(answer.rendered(line, has_body=has_body))
        self._proxy.ledger.answered(answer.status)
        if answer.closes:
            self._linger()
        else:
            self._go_on(request is not None and request.keeps_alive)

    def refuse(self, refused: UnservedError, request: Request | None) -> None:
        """Send an error response instead of serving the request."""
        self._proxy.ledger.unserved(refused.reason, is_arrived=refused.reason not in _BEFORE_ARRIVAL)
        if refused.reason in _BEFORE_ARRIVAL and (self._receiver.ready or self._receiver.stage):
            # After an invalid request, the following bytes may be the rest of it.
            refused.answer.closes = True
        self.answer(refused.answer, request)

    def finished(self, request: Request, status: int) -> None:
        """A replica's response has been sent completely."""
        self._proxy.ledger.answered(status)
        self._go_on(request.keeps_alive and not self._proxy.is_draining)

    def run(self, work: Coroutine[None, None, Answer | None], request: Request) -> None:
        """Send a response after waiting for other work; sends nothing if the work has started an exchange."""

        async def find() -> None:
            try:
                found = await work
            except UnservedError as refused:
                self.refuse(refused, request)
            except Exception as fault:
                self._proxy.note_fault(fault)
                self._failed()
            else:
                if found is not None:
                    self.answer(found, request)

        self.work = self._proxy.loop.create_task(find())

    def _go_on(self, is_kept: bool) -> None:
        self.work = None
        if not is_kept:
            if self._receiver.ready or self._receiver.stage:
                self._linger()
            else:
                self.transport.close()
        elif not self._is_advancing:
            self._advance()

    def _linger(self) -> None:
        """Send nothing more; read and discard incoming bytes for a short time."""
        self.work, self._is_lingering = None, True
        self._receiver.ready.clear()
        self._deadline_s = self._proxy.now() + _LINGER_S
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()

    def _failed(self) -> None:
        """Handle an internal error: it is unknown how much was sent."""
        work, self.work = self.work, None
        if isinstance(work, Exchange):
            work.abandon()
            self.cut()
        elif not self.transport.is_closing():
            self.answer(error(500, "internal error", closes=True), None)

    def cut(self) -> None:
        """Abort the connection, so that the client sees that the response is incomplete."""
        self.work = None
        self.transport.abort()

    def look(self, now_s: float) -> None:
        """End waits that exceed their limits."""
        if isinstance(self.work, Exchange):
            self.work.look(now_s)
        elif self.work is None and now_s > self._deadline_s:
            if self._is_lingering or not self._stage or self.transport.is_closing():
                self.transport.abort()
                return
            settings, is_body = self._proxy.settings, self._stage == _BODY
            what, limit_s = ("body", settings.body_timeout_s) if is_body else ("head", settings.idle_timeout_s)
            self._receiver.refuse(
                UnservedError(error(408, f"the {what} must arrive within {limit_s:g} s", closes=True))
            )
            self._advance()


# Rejected before the request was known, so it does not count as arrived.
_BEFORE_ARRIVAL = frozenset({"malformed", "unauthorized"})
