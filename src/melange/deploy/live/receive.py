"""Parse clients' requests completely, within size limits.

Input is bytes, output is requests and rejections; this module does not read or write a connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import httptools

from melange.deploy.live.answers import UnservedError, error
from melange.deploy.live.headers import Fields, RequestListener
from melange.deploy.live.known_head import KnownHead, known_head

if TYPE_CHECKING:
    from melange.deploy.live.tenants import Tenant

# Most bytes of a line, and most fields of a request's head. Higher limits would let strangers occupy memory before
# their key is checked; lower limits would reject clients behind proxies that add fields.
_MOST_LINE_BYTES, _MOST_FIELDS = 8190, 100
# Most bytes without a complete head or a growing body: heads, trailers, extensions of chunks. Eight times the longest
# line; more would let strangers occupy memory.
_MOST_HEAD_BYTES = 2**16
# Most complete requests that wait on a connection behind the current one. Reading stops at this number; further
# requests in the same piece are not served.
_MOST_WAITING = 16
_VERSIONS = frozenset({"1.0", "1.1"})
# Fields with the host, the length or the encoding may occur once. Of several keys, the first is used.
_ONCE = frozenset({b"host", b"transfer-encoding", b"content-length", b"content-encoding", b"expect"})
# Heads with these fields are always parsed.
_SPECIAL = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
_NONE, _HEAD, _BODY = range(3)


class Request:
    """A request; at first only its head.

    Parameters
    ----------
    method, target, version
        Parts of the request line.
    fields
        Header fields.
    """

    __slots__ = ("body", "expects", "fields", "keeps_alive", "method", "path", "target", "tenant", "version")

    def __init__(self, method: bytes, target: bytes, version: str, fields: Fields) -> None:
        self.method, self.target, self.version, self.fields = method, target, version, fields
        self.path = target.partition(b"?")[0]
        self.body = b""
        self.tenant: Tenant | None = None
        self.expects = False  # the client expects 100 Continue before it sends the body
        self.keeps_alive = True

    def again(self, body: bytes) -> Request:
        """Another request with the same head except for the length."""
        request = Request(self.method, self.target, self.version, self.fields)
        request.body = body
        return request


class Receiver(RequestListener):
    """Turns the bytes of one connection into requests. llhttp parses strictly.

    Parameters
    ----------
    admit
        Checks a head before its body is read; raises :class:`UnservedError` to reject it.
    most_body_bytes
        Largest body [bytes].
    """

    __slots__ = ("_admit", "_idle_bytes", "_is_staying", "_known", "_most_body_bytes", "_parser", "_pieces",
                 "_size", "_target", "is_deaf", "ready", "request", "stage")  # fmt: skip

    def __init__(self, admit: Callable[[Request], None], most_body_bytes: int) -> None:
        self._admit, self._most_body_bytes = admit, most_body_bytes
        self._parser = httptools.HttpRequestParser(self)
        super().__init__()
        self._pieces: list[bytes] = []
        self._target = b""
        self._size = self._idle_bytes = 0
        self.stage = _NONE
        self.ready: deque[Request | UnservedError] = deque()
        self.request: Request | None = None  # the request whose body is being read
        self._is_staying = False  # a second parser reads the body of the current request
        self.is_deaf = False  # further input is ignored
        self._known: KnownHead[Request] | None = None

    def feed(self, data: bytes) -> None:
        """Parse more bytes; check ``ready`` afterwards."""
        if self.is_deaf:
            return
        is_start = self.stage == _NONE
        if is_start and self._known is not None and not self.ready and self._is_again(self._known, data):
            return
        self._idle_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError:
            broken = UnservedError(error(400, "the body is not valid HTTP", closes=True))
            self.refuse(broken if self.stage == _BODY else _no_request())
        if self._idle_bytes > _MOST_HEAD_BYTES and self.stage != _NONE:
            self.refuse(UnservedError(error(431, "the head is too long", closes=True)))
        elif is_start and self.stage == _NONE and len(self.ready) == 1:
            self._remember(data)

    def _remember(self, data: bytes) -> None:
        """Remember the head of a request if the piece contained exactly that request."""
        request = self.ready[0]
        if isinstance(request, Request) and request.keeps_alive and request.fields.named.keys().isdisjoint(_SPECIAL):
            known = known_head(data, request)
            self._known = known if known is not None and known.body_of(data) == request.body else None

    def _is_again(self, known: KnownHead[Request], data: bytes) -> bool:
        """Whether the bytes are one complete request with a known head; then it is ready or rejected."""
        body = known.body_of(data)
        if body is None or len(body) > self._most_body_bytes:
            return False
        request = known.meaning.again(body)
        try:
            self._admit(request)
        except UnservedError as refused:
            self.refuse(refused)
        else:
            self.ready.append(request)
        return True

    def _stay(self, rest: bytes) -> None:
        """Continue with a request that asks for another protocol, ignoring its wish.

        After such a head, the parser takes all following bytes, including the body, for the other protocol. So a second
        parser is started, which is given the length of the body.
        """
        self._parser, request = httptools.HttpRequestParser(self), self.request
        if request is None:
            return
        named = request.fields.named
        words = {word.strip().lower() for word in named.get(b"connection", b"").split(b",")}
        lines = [
            b"%b: %b\r\n" % (name, named[name]) for name in (b"content-length", b"transfer-encoding") if name in named
        ]
        lines += [b"Connection: %b\r\n" % word for word in (b"close", b"keep-alive") if word in words]
        self._is_staying = True
        first = b"POST / HTTP/%b\r\nHost: x\r\n" % request.version.encode()
        self.feed(b"".join((first, *lines, b"\r\n", rest)))

    def refuse(self, refused: UnservedError) -> None:
        """Queue a rejection instead of a request, and ignore further input."""
        if not self.is_deaf:
            self.is_deaf, self.request = True, None
            self.ready.append(refused)

    def on_message_begin(self) -> None:
        """A request begins."""
        self.stage = _HEAD
        self.fields, self.is_in_head, self._target = Fields(), True, b""

    def on_url(self, target: bytes) -> None:
        """A piece of the target."""
        self._target += target

    def on_headers_complete(self) -> None:
        """A head is complete."""
        head_bytes, self._idle_bytes, self.stage, self.is_in_head = self._idle_bytes, 0, _BODY, False
        if self._is_staying:
            self._is_staying = False
            return
        if self.is_deaf:
            return
        parser, fields, target = self._parser, self.fields, self._target
        version = parser.get_http_version()
        try:
            if head_bytes > _MOST_LINE_BYTES or fields.count > _MOST_FIELDS:
                _check_length(target, fields)
            if version not in _VERSIONS or b"#" in target or not target.isascii():
                raise _no_request()
            if (fields.repeated is not None and fields.repeated & _ONCE) or (
                b"host" not in fields.named and version == "1.1"
            ):
                raise _no_request()
            request = Request(parser.get_method(), target, version, fields)
            self._admit(request)
            self._check_body(request)
        except UnservedError as refused:
            self.refuse(refused)
            return
        self.request = request

    def on_body(self, piece: bytes) -> None:
        """A piece of a body."""
        self._idle_bytes = 0
        if not self.is_deaf:
            self._size += len(piece)
            self._pieces.append(piece)
            if self._size > self._most_body_bytes:
                self._pieces.clear()
                self.refuse(_too_large(self._most_body_bytes))

    def on_message_complete(self) -> None:
        """A request is complete."""
        if self._parser.should_upgrade():
            return
        self.stage, request, self.request = _NONE, self.request, None
        self._idle_bytes = 0
        if self.is_deaf or request is None:
            return
        pieces = self._pieces
        request.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        request.keeps_alive = self._parser.should_keep_alive() and len(self.ready) < _MOST_WAITING
        request.expects = False
        self.is_deaf = not request.keeps_alive
        self.ready.append(request)

    def _check_body(self, request: Request) -> None:
        """Reject a body that is too large or compressed, before it is read."""
        named = request.fields.named
        if named.get(b"content-encoding", b"identity").lower() != b"identity":
            raise UnservedError(error(415, "compressed bodies are not supported", closes=True))
        if b"transfer-encoding" in named:
            _check_coding(named[b"transfer-encoding"], request.version)
        elif int(named.get(b"content-length", b"0")) > self._most_body_bytes:
            raise _too_large(self._most_body_bytes)
        if b"expect" in named:
            if named[b"expect"].lower() != b"100-continue":
                raise UnservedError(error(417, "the only supported expectation is 100-continue", closes=True))
            request.expects = request.version == "1.1"


def _check_length(target: bytes, fields: Fields) -> None:
    """Reject a head with long lines or too many fields."""
    longest = max([len(target), *map(len, fields.lines), *map(len, fields.named.values())])
    if longest > _MOST_LINE_BYTES or fields.count > _MOST_FIELDS:
        raise UnservedError(error(431, "the head is too long", closes=True))


def _check_coding(coding: bytes, version: str) -> None:
    """Reject chunked bodies that are also compressed, and bodies with an unclear end."""
    if coding.rpartition(b",")[2].strip().lower() != b"chunked" or version == "1.0":
        raise _no_request()
    if coding.lower() != b"chunked":
        raise UnservedError(error(501, "the only supported transfer coding is chunked", closes=True))


def _no_request() -> UnservedError:
    return UnservedError(error(400, "not a valid HTTP/1.1 request", closes=True))


def _too_large(most_bytes: int) -> UnservedError:
    return UnservedError(error(413, f"the body must have at most {most_bytes} bytes", closes=True))
