"""A connection to a replica: one request at a time, and its answer piece by piece as it comes.

Heads are parsed by llhttp, strictly; what two readers might read in two ways is no answer (RFC 9112, sections 2.2, 5.2
and 6.3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from melange.deploy.live.headers import AnswerListener, Fields
from melange.deploy.live.known_head import KnownHead, known_head

# Bytes that may come without a head being whole, or a body growing, and fields of a head.
_MOST_HEAD_BYTES, _MOST_FIELDS = 2**16, 256
# The first lines of chunks of up to 2 KiB, and what they say: in the lower case of %x and in the upper case of
# %X. A chunk with a token has a few hundred bytes; larger ones are left to the parser.
_PLAIN_CHUNKS = {text: size for size in range(1, 2048) for text in (b"%x" % size, b"%X" % size)}
# Of a request, up to which its head and its body are sent as one [bytes]: more is copied for longer than a second
# element of a list of buffers costs.
_MOST_JOINED_BYTES = 2**15
_SWITCHING, _OK = 101, 200
_BODILESS = frozenset({204, 304})
_VERSIONS = frozenset({"1.0", "1.1"})


class Taker(Protocol):
    """Who has asked on a link."""

    def answered(self, link: Link, piece: bytes, is_last: bool) -> None:
        """The head of an answer is there and perhaps a piece of its body; nothing comes after the last one."""

    def broken(self, link: Link, why: str) -> None:
        """The link is of no more use, and the answer not whole."""


Relay = Callable[[bytes, bytes], None]  # takes whole chunks of a body as they came, and what is in them


class Link(AnswerListener, asyncio.Protocol):
    """One connection to one replica.

    Parameters
    ----------
    free
        Told when it may be used for the next request.
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
        # Whether more came than was asked for; whether all has come; whether the connection goes on after it.
        self._is_spoilt = self._is_done = self._is_kept = False
        self._idle_bytes = self._head_bytes = 0
        # Who takes chunks that are whole and plain without a look of the parser's, once it has begun to pass them on;
        # and the same while the parser is between two chunks.
        self.relay: Relay | None = None
        self._now_relays: Relay | None = None
        self._is_between = False
        self._known: KnownHead[tuple[bytes, Fields]] | None = None  # reason and fields of an answer that was 200
        self.taker: Taker | None = None
        self.uses = 0
        self.idle_since_s = 0.0
        # Of the present answer: whether its head has come, its first line and fields, and the length of its body,
        # -1 where that shows as it ends.
        self.has_head, self.status, self.reason = False, 0, b""
        self.length, self.is_chunked = -1, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be used."""
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, taker: Taker, head: bytes, body: bytes) -> None:
        """Send a request."""
        self.taker = taker
        self.uses += 1
        self._forget()
        if len(body) <= _MOST_JOINED_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))

    def _forget(self) -> None:
        """An answer begins."""
        self.has_head, self.status, self.reason, self.fields = False, 0, b"", Fields()
        self.is_in_head = True
        self.length, self.is_chunked = -1, False
        self.relay = self._now_relays = None
        self._is_between = False
        self._fault, self._is_done, self._is_spoilt, self._idle_bytes = "", False, False, 0
        self._head_bytes = 0

    def drop(self) -> None:
        """Close it at once; nobody is told."""
        self.taker = self.relay = self._now_relays = None
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """A piece of an answer."""
        relay = self._now_relays
        if relay is not None:
            end = data.find(b"\r\n", 0, 6)
            size = _PLAIN_CHUNKS.get(data[:end])
            if size == len(data) - end - 4 and data.endswith(b"\r\n"):
                relay(data, data[end + 2 : -2])
                return
            if size is not None and (content := _content_of(data)):
                relay(data, content)
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
        """What the parser makes of a piece, which may be the first of an answer."""
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
            # With its last byte a chunk ends: the parser awaits a line of another.
            self._now_relays = self.relay if self._is_between and data.endswith(b"\n") else None

    def _again(self, head: tuple[bytes, Fields], body: bytes, taker: Taker) -> None:
        """A whole answer has come with a head that came before."""
        self.has_head, self.status, self.length = True, _OK, len(body)
        self.reason, self.fields = head
        self._is_done = self._is_kept = True
        self._end(taker, body)

    def _end(self, taker: Taker, piece: bytes) -> None:
        """An answer has come whole."""
        self.taker, transport = None, self.transport
        self.relay = self._now_relays = None
        taker.answered(self, piece, True)
        is_kept = self._is_kept and self.length_is_known and not self._is_spoilt
        if is_kept and not transport.is_closing() and not transport.get_write_buffer_size():
            self._free(self)
        else:
            transport.abort()

    @property
    def length_is_known(self) -> bool:
        """Whether the end of the answer shows otherwise than by the end of the connection."""
        return self.is_chunked or self.length >= 0

    def eof_received(self) -> None:
        """No more comes: an answer of no stated length is whole by it."""
        taker = self.taker
        if taker is not None and self.has_head and not self.length_is_known:
            self.taker = None
            taker.answered(self, b"", True)

    def connection_lost(self, error: Exception | None) -> None:
        """It has gone."""
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
        """An answer, which was asked for unless one has just ended."""
        self._is_spoilt = self._is_done

    def on_status(self, reason: bytes) -> None:
        """A piece of the reason."""
        if not self.has_head:
            self.reason += reason

    def on_headers_complete(self) -> None:
        """A head has come."""
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
            # A body that is packed for this hop would be taken for the text itself if it went on without that word.
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
        """A chunk has ended."""
        self._is_between = True

    def on_message_complete(self) -> None:
        """An answer is whole, or only said that one comes."""
        if self.has_head:
            self._is_done, self._is_kept = True, self._parser.should_keep_alive()
        else:
            self._forget()


def _content_of(data: bytes) -> bytes:
    """What is in some chunks that are whole and plain; nothing where they are anything else."""
    pieces, at = [], 0
    while at < len(data):
        end = data.find(b"\r\n", at, at + 6)
        size = _PLAIN_CHUNKS.get(data[at:end])
        if size is None:
            return b""
        at = end + size + 4
        if data[at - 2 : at] != b"\r\n":
            return b""
        pieces.append(data[end + 2 : at - 2])
    return b"".join(pieces)
