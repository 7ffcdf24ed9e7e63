"""A connection to a replica: one request at a time, and its response piece by piece.

Heads are parsed strictly by llhttp; responses that two parsers might read differently are rejected (RFC 9112, sections
2.2, 5.2 and 6.3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from melange.deploy.live.chunks import are_lines
from melange.deploy.live.headers import AnswerListener, Fields
from melange.deploy.live.known_head import KnownHead, known_head

# Most bytes without a complete head or a growing body, and most fields of a head.
_MOST_HEAD_BYTES, _MOST_FIELDS = 2**16, 256
# Requests up to this size are sent as one buffer with their heads [bytes]: for larger ones, copying costs more than a
# list of two buffers.
_MOST_JOINED_BYTES = 2**15
_SWITCHING, _OK = 101, 200
_BODILESS = frozenset({204, 304})
_VERSIONS = frozenset({"1.0", "1.1"})


class Taker(Protocol):
    """The receiver of responses on a link."""

    def answered(self, link: Link, piece: bytes, is_last: bool) -> None:
        """The head of a response has arrived, perhaps with a piece of its body; ``is_last`` marks the last piece."""

    def broken(self, link: Link, why: str) -> None:
        """The link is no longer usable, and the response is incomplete."""


Relay = Callable[[bytes], None]  # takes whole chunks of whole lines as received


class Link(AnswerListener, asyncio.Protocol):
    """One connection to one replica.

    Parameters
    ----------
    free
        Called when the link is free for the next request.
    """

    __slots__ = ("_fault", "_free", "_head_bytes", "_idle_bytes", "_is_between", "_is_done", "_is_kept", "_is_spoilt",
                 "_known", "_now_relays", "_parser", "_pieces", "has_head", "idle_since_s", "is_chunked", "length",
                 "reason", "relay", "status", "taker", "transport", "uses")  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, free: Callable[[Link], None]) -> None:
        super().__init__()
        self._free = free
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._fault = ""
        # Whether more arrived than was requested; whether all has arrived; whether the connection stays open after it.
        self._is_spoilt = self._is_done = self._is_kept = False
        self._idle_bytes = self._head_bytes = 0
        # Receiver of whole chunks of whole lines without parsing, if forwarding has begun; and the same receiver while
        # the parser is between two chunks and two lines.
        self.relay: Relay | None = None
        self._now_relays: Relay | None = None
        self._is_between = False
        self._known: KnownHead[tuple[bytes, Fields]] | None = None  # reason and fields of a response with status 200
        self.taker: Taker | None = None
        self.uses = 0
        self.idle_since_s = 0.0
        # The current response: whether its head has arrived, its first line and fields, and the length of its body; -1
        # if only the end shows the length.
        self.has_head, self.status, self.reason = False, 0, b""
        self.length, self.is_chunked = -1, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, taker: Taker, head: bytes, body: bytes) -> None:
        """Send a request."""
        self.taker = taker
        self.uses += 1
        self.has_head = self._is_done = False
        self._head_bytes = 0
        if len(body) <= _MOST_JOINED_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))

    def drop(self) -> None:
        """Close the connection at once, without a callback."""
        self.taker = self.relay = self._now_relays = None
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Receive a piece of a response."""
        relay = self._now_relays
        if relay is not None and are_lines(data):
            relay(data)
            return
        taker = self.taker
        if taker is None:
            self.transport.abort()
            return
        is_start = not self._head_bytes
        if is_start and self._known is not None and (body := self._known.body_of(data)) is not None:
            self._again(self._known.meaning, body, taker)
        else:
            self._parse(data, taker, is_start=is_start)

    def _parse(self, data: bytes, taker: Taker, *, is_start: bool) -> None:
        """Parse a piece, which may be the first of a response."""
        if not self.has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._is_done:
                self._is_spoilt = True
            else:
                self._fault = "a response that is not valid HTTP"
        pieces = self._pieces
        if pieces:
            piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._idle_bytes = 0
        else:
            piece = b""
            self._idle_bytes += len(data)
            if self._idle_bytes > _MOST_HEAD_BYTES and not self._is_done:
                self._fault = "a response head that is too long"
        if self._fault:
            self._break(self._fault)
        elif self._is_done:
            if is_start and self.status == _OK and self.length == len(piece) and self._is_kept and not self._is_spoilt:
                known = known_head(data, (self.reason, self.fields))
                self._known = known if known is not None and known.body_of(data) == piece else None
            self._end(taker, piece)
        elif self.has_head:
            taker.answered(self, piece, False)
            # A chunk ends with its last byte: the parser then expects the first line of another chunk.
            is_free = self._is_between and data.endswith(b"\n") and piece.endswith(b"\n")
            self._now_relays = self.relay if is_free else None

    def _again(self, head: tuple[bytes, Fields], body: bytes, taker: Taker) -> None:
        """A complete response with a known head has arrived."""
        self.status, self.length = _OK, len(body)
        self.reason, self.fields = head
        self.has_head = self._is_done = self._is_kept = True
        self.is_chunked = False
        self._end(taker, body)

    def _end(self, taker: Taker, piece: bytes) -> None:
        """A complete response has arrived."""
        self.taker, transport = None, self.transport
        self.relay = self._now_relays = None
        taker.answered(self, piece, True)
        is_kept = self._is_kept and (self.length >= 0 or self.is_chunked) and not self._is_spoilt
        if is_kept and not transport.is_closing() and not transport.get_write_buffer_size():
            self._free(self)
        else:
            transport.abort()

    def eof_received(self) -> None:
        """The replica has sent end of file, which ends a response without a stated length."""
        taker = self.taker
        if taker is not None and self.has_head and not self.is_chunked and self.length < 0:
            self.taker = None
            taker.answered(self, b"", True)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection has ended."""
        taker, self.taker = self.taker, None
        if taker is not None:
            taker.broken(self, type(error).__name__ if error else "a closed connection")

    def _break(self, why: str) -> None:
        taker, self.taker = self.taker, None
        self.relay = self._now_relays = None
        self.transport.abort()
        if taker is not None:
            taker.broken(self, why)

    def on_message_begin(self) -> None:
        """A response begins; it is unexpected if one has just ended."""
        if self._is_done:
            self._is_spoilt = True
            return
        self.status, self.reason, self.fields, self.is_in_head = 0, b"", Fields(), True
        self.length, self.is_chunked, self._is_between, self._idle_bytes = -1, False, False, 0

    def on_status(self, reason: bytes) -> None:
        """A piece of the reason phrase."""
        if not self.has_head:
            self.reason += reason

    def on_headers_complete(self) -> None:
        """A head is complete."""
        if self._is_spoilt:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200 and self.status != _SWITCHING:
            return
        self.has_head, self.is_in_head = True, False
        fields = self.fields
        named = fields.named
        version, coding = self._parser.get_http_version(), named.get(b"transfer-encoding")
        if self.status == _SWITCHING or version not in _VERSIONS:
            self._fault = "a response in another protocol"
        elif coding is not None:
            # Without its transfer coding, a body that is compressed for this hop would be forwarded as if it was plain.
            is_one = fields.repeated is None or b"transfer-encoding" not in fields.repeated
            self.is_chunked = is_one and coding.lower() == b"chunked"
            self._is_between = self.is_chunked
            if not self.is_chunked or version == "1.0":
                self._fault = "a transfer coding other than chunked"
        elif self.status in _BODILESS:
            self.length = 0
        elif b"content-length" in named:
            self.length = int(named[b"content-length"])
        if fields.count > _MOST_FIELDS or (self._head_bytes > _MOST_HEAD_BYTES and fields.size > _MOST_HEAD_BYTES):
            self._fault = "a response head that is too long"

    def on_body(self, piece: bytes) -> None:
        """A piece of a body."""
        if not self._is_done:
            self._pieces.append(piece)

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._is_between = False

    def on_chunk_complete(self) -> None:
        """A chunk ends."""
        self._is_between = True

    def on_message_complete(self) -> None:
        """A response is complete, or was only informational."""
        if self.has_head:
            self._is_done, self._is_kept = True, self._parser.should_keep_alive()
        else:
            self._head_bytes = 0
