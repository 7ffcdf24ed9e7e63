"""Clients' requests, taken in whole within limits of size.

Bytes go in, requests and refusals come out; nothing here reads or writes a connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import httptools

from melange.deploy.live.answers import UnservedError, error
from melange.deploy.live.headers import Field, value_of

# Of a request's head: bytes of a line, and the number of fields. More would let strangers occupy memory before a key is
# asked for; fewer would refuse clients behind proxies that add fields.
_MOST_LINE_BYTES, _MOST_FIELDS = 8190, 100
# Bytes that may come without a head being whole, or a body growing: heads, trailers, chunks' own words. Eight of the
# longest lines; more is memory for strangers.
_MOST_HEAD_BYTES = 2**16
# Whole requests that wait on a connection behind the one that is served. Nothing more is read meanwhile; what has come
# in one piece with them is not served.
_MOST_WAITING = 16
_VERSIONS = frozenset({"1.0", "1.1"})
_NONE, _HEAD, _BODY = range(3)


class Request:
    """A request, at first its head.

    Parameters
    ----------
    method, target, version
        Of its first line.
    fields
        Of its header.
    """

    __slots__ = ("body", "expects", "fields", "keeps_alive", "method", "path", "query", "version")

    def __init__(self, method: bytes, target: bytes, version: str, fields: list[Field]) -> None:
        self.method, self.version, self.fields = method, version, fields
        self.path, _, self.query = target.partition(b"?")
        self.body = b""
        self.expects = False  # to be told to go on before it sends its body
        self.keeps_alive = True

    def value(self, name: bytes) -> bytes:
        """The value of the first field of a name (lower case); empty where there is none."""
        return value_of(self.fields, name)


class Receiver:
    """Makes requests of what comes on one connection. llhttp parses, strictly.

    Parameters
    ----------
    admit
        Looks at a head before its body comes; raises :class:`UnservedError` where it is refused.
    most_body_bytes
        Largest body [bytes].
    """

    __slots__ = ("_admit", "_fields", "_fields_bytes", "_idle_bytes", "_most_body_bytes", "_parser", "_pieces",
                 "_size", "_target", "is_deaf", "ready", "request", "stage")  # fmt: skip

    def __init__(self, admit: Callable[[Request], None], most_body_bytes: int) -> None:
        self._admit, self._most_body_bytes = admit, most_body_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._fields: list[Field] = []
        self._pieces: list[bytes] = []
        self._target = b""
        self._size = self._idle_bytes = 0
        self.stage = _NONE
        self.ready: deque[Request | UnservedError] = deque()
        self.request: Request | None = None  # whose body is coming
        self.is_deaf = False  # what comes now is of no interest

    def feed(self, data: bytes) -> None:
        """Bytes have come; look at ``ready`` after it."""
        if self.is_deaf:
            return
        self._idle_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # A wish that need not be granted: the request is one of HTTP/1.1, and so is what follows.
            self._parser = httptools.HttpRequestParser(self)
            if rest := data[upgrade.args[0] :]:
                self.feed(rest)
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError:
            what = "not a request of HTTP/1.1" if self.stage != _BODY else "the body is not framed as HTTP asks for"
            self.refuse(UnservedError(error(400, what, closes=True)))
        if self._idle_bytes > _MOST_HEAD_BYTES and self.stage != _NONE:
            self.refuse(UnservedError(error(431, "the head is too long", closes=True)))

    def refuse(self, refused: UnservedError) -> None:
        """Answer so in place of a request, and hear no more."""
        if not self.is_deaf:
            self.is_deaf, self.request = True, None
            self.ready.append(refused)

    def on_message_begin(self) -> None:
        """A head begins."""
        self.stage = _HEAD
        self._fields, self._pieces, self._target, self._size = [], [], b"", 0

    def on_url(self, target: bytes) -> None:
        """A piece of the target."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field, of the head or behind the body."""
        if self.stage == _HEAD:
            self._fields.append((name.lower(), name, value))

    def on_headers_complete(self) -> None:
        """A head has come."""
        self.stage, self._idle_bytes = _BODY, 0
        if self.is_deaf:
            return
        fields, parser = self._fields, self._parser
        request = Request(parser.get_method(), self._target, parser.get_http_version(), fields)
        try:
            _check_head(request, self._target)
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
                self._pieces = []
                self.refuse(_too_large(self._most_body_bytes))

    def on_message_complete(self) -> None:
        """A request is whole."""
        self.stage, request, self.request = _NONE, self.request, None
        self._idle_bytes = 0
        if self.is_deaf or request is None:
            return
        pieces, self._pieces = self._pieces, []
        request.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        request.keeps_alive = self._parser.should_keep_alive() and len(self.ready) < _MOST_WAITING
        request.expects = False
        self.is_deaf = not request.keeps_alive
        self.ready.append(request)

    def _check_body(self, request: Request) -> None:
        """Refuse a body that would be too large or is packed, before it comes."""
        if request.value(b"content-encoding").lower() not in {b"", b"identity"}:
            raise UnservedError(error(415, "compressed bodies are not taken", closes=True))
        coding = request.value(b"transfer-encoding")
        if coding and coding.rpartition(b",")[2].strip().lower() != b"chunked":
            raise UnservedError(error(400, "not a request of HTTP/1.1", closes=True))
        if coding and coding.lower() != b"chunked":
            raise UnservedError(error(501, "no transfer coding but chunked is known", closes=True))
        length = request.value(b"content-length")
        if length and int(length) > self._most_body_bytes:
            raise _too_large(self._most_body_bytes)
        if expected := request.value(b"expect"):
            if expected.lower() != b"100-continue":
                raise UnservedError(error(417, "only 100-continue can be expected", closes=True))
            request.expects = request.version == "1.1"


def _check_head(request: Request, target: bytes) -> None:
    """Refuse a head that is too large, or that two readers may read in two ways."""
    fields = request.fields
    is_long = len(target) > _MOST_LINE_BYTES or len(fields) > _MOST_FIELDS
    once = {b"host": 0, b"transfer-encoding": 0, b"content-encoding": 0, b"expect": 0}
    for lower, name, value in fields:
        is_long |= len(name) + len(value) > _MOST_LINE_BYTES
        if lower in once:
            once[lower] += 1
    if is_long:
        raise UnservedError(error(431, "the head is too long", closes=True))
    is_sound = max(once.values()) <= 1 and (once[b"host"] == 1 or request.version == "1.0")
    is_old_coded = request.version == "1.0" and once[b"transfer-encoding"]
    if request.version not in _VERSIONS or not is_sound or is_old_coded or b"#" in target or not target.isascii():
        raise UnservedError(error(400, "not a request of HTTP/1.1", closes=True))


def _too_large(most_bytes: int) -> UnservedError:
    return UnservedError(error(413, f"the body must have at most {most_bytes} bytes", closes=True))
