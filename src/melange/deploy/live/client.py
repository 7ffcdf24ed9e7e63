"""A client's connection: its requests one after the other, and what is sent back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from melange.deploy.live.answers import Answer, UnservedError, error
from melange.deploy.live.exchange import Exchange
from melange.deploy.live.receive import Receiver, Request

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from melange.deploy.live.proxy import Proxy

# What waits for a client that reads slowly [bytes]; beyond it the replica is read no further. More is memory for each
# open stream, less makes a replica wait for its client.
_WRITE_AHEAD = 2**15
# How long the rest of a request that was answered early is read and thrown away [s]: without it the client may see a
# reset instead of the answer; longer, and a slow body holds its connection.
_LINGER_S = 2.0
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSES, _GOES_ON = b"Connection: close\r\n", b"Connection: keep-alive\r\n"
_BODY = 2


class Client(asyncio.Protocol):
    """One connection of a client.

    Parameters
    ----------
    proxy
        Answers its requests.
    """

    __slots__ = ("_deadline_s", "_is_advancing", "_is_lingering", "_is_paused", "_proxy", "_receiver", "_stage",
                 "is_full", "transport", "work")  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._receiver = Receiver(proxy.admit, proxy.settings.most_body_bytes)
        self._stage, self._deadline_s = 0, proxy.now() + proxy.settings.idle_timeout_s
        self._is_advancing = self._is_lingering = self._is_paused = False
        self.is_full = False  # more waits for it than it should
        self.work: Exchange | asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it is between two requests, or has nothing more to say."""
        return self.work is None and (self._is_lingering or self._stage == 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It has connected."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=_WRITE_AHEAD)
        self._proxy.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        """It has gone."""
        work, self.work = self.work, None
        if isinstance(work, Exchange):
            work.abandon()
        elif work is not None:
            work.cancel()
        self._proxy.closed(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
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
        """It has said its last word, and is taken for gone."""

    def pause_writing(self) -> None:
        """It reads slowly."""
        self.is_full = True
        if isinstance(self.work, Exchange):
            self.work.hold()

    def resume_writing(self) -> None:
        """It has read."""
        self.is_full = False
        if isinstance(self.work, Exchange):
            self.work.go_on()

    def _advance(self) -> None:
        """Answer what has come, one after the other."""
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
        """How long the next bytes may take, now that nothing is under way."""
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
        """The line that says whether the connection goes on; settles that it does not where it cannot."""
        if request is None or self._proxy.is_draining or not request.keeps_alive:
            if request is not None:
                request.keeps_alive = False
            return _CLOSES
        return b"" if request.version == "1.1" else _GOES_ON

    def answer(self, answer: Answer, request: Request | None) -> None:
        """Send an answer of the proxy's own."""
        line = _CLOSES if answer.closes else self.connection_line(request)
        has_body = request is None or request.method != b"HEAD"
        self.transport.write(answer.rendered(line, has_body=has_body))
        self._proxy.ledger.answered(answer.status)
        if answer.closes:
            self._linger()
        else:
            self._go_on(request is not None and request.keeps_alive)

    def refuse(self, refused: UnservedError, request: Request | None) -> None:
        """Send an answer in place of what was asked for."""
        self._proxy.ledger.unserved(refused.reason, is_arrived=refused.reason not in _BEFORE_ARRIVAL)
        if refused.reason in _BEFORE_ARRIVAL and (self._receiver.ready or self._receiver.stage):
            # What has come behind a request that is none may be the rest of it.
            refused.answer.closes = True
        self.answer(refused.answer, request)

    def finished(self, request: Request, status: int) -> None:
        """An answer of a replica has been sent whole."""
        self._proxy.ledger.answered(status)
        self._go_on(request.keeps_alive and not self._proxy.is_draining)

    def run(self, work: Coroutine[None, None, Answer | None], request: Request) -> None:
        """Send what somebody else has to find out first; nothing where that has begun an exchange."""

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
        """Nothing more is said; what still comes is read for a while and thrown away."""
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
        """Internal error: it is unknown what has been sent."""
        work, self.work = self.work, None
        if isinstance(work, Exchange):
            work.abandon()
            self.cut()
        elif not self.transport.is_closing():
            self.answer(error(500, "internal error", closes=True), None)

    def cut(self) -> None:
        """End it so that the client sees that something is missing."""
        self.work = None
        self.transport.abort()

    def look(self, now_s: float) -> None:
        """End a wait that has lasted too long."""
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


# Ended before the request was known: not one of those that arrived.
_BEFORE_ARRIVAL = frozenset({"malformed", "unauthorized"})
