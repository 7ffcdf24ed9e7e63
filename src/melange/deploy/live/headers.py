"""Header fields that the proxy forwards."""

from __future__ import annotations

from collections.abc import Mapping

# Fields that are read or dropped, in lower case. Hop-by-hop fields belong to a connection and not to the message (RFC
# 9110, section 7.6.1); the proxy sets the others itself.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
RETRIES = "X-Melange-Retries"
RETRIED = b"%b: 1\r\n" % RETRIES.encode()
_RETRIES = RETRIES.lower().encode()
# The server's name without a version: neither ours nor a replica's.
SERVER = b"Server: melange\r\n"
_OF_REQUESTS = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"accept-encoding", _RETRIES}
_OF_ANSWERS = _HOP_BY_HOP | {b"content-length", b"server", _RETRIES}
_DROPPED, _SEEN = range(2)
# How fields that are not simply forwarded are handled: read, and then forwarded or dropped.
_KINDS_OF_REQUESTS = dict.fromkeys(_OF_REQUESTS, _DROPPED) | dict.fromkeys(
    (b"authorization", b"content-encoding", b"traceparent", b"tracestate"), _SEEN
)
_KINDS_OF_ANSWERS = dict.fromkeys(_OF_ANSWERS, _DROPPED) | dict.fromkeys((b"content-type", b"date"), _SEEN)
# Tokens of Connection that do not name a field.
_OF_CONNECTIONS = frozenset({b"close", b"keep-alive", b""})


class Fields:
    """The header of one message."""

    __slots__ = ("_head", "_passed_on", "lines", "named", "repeated")

    def __init__(self) -> None:
        self.lines: list[bytes] = []  # to be forwarded
        self.named: dict[bytes, bytes] = {}  # first values of fields that are read or dropped, by lower-case name
        self.repeated: set[bytes] | None = None  # names of fields that occurred twice
        # Cached results for a repeated head.
        self._passed_on: bytes | None = None
        self._head: tuple[bool, bytes] | None = None

    @property
    def count(self) -> int:
        """Number of fields that were kept."""
        return len(self.lines) + len(self.named)

    @property
    def size(self) -> int:
        """Approximate size of the kept fields [bytes]."""
        return sum(map(len, self.lines)) + sum(map(len, self.named.values()))

    def passed_on(self, *, has_key: bool = True) -> bytes:
        """The fields to forward, as lines.

        Parameters
        ----------
        has_key
            Whether the sender's key is forwarded.
        """
        if has_key:
            if self._passed_on is None:
                self._passed_on = self._forwarded(has_key=True)
            return self._passed_on
        return self._forwarded(has_key=False)

    def head_of(self, status: int, reason: bytes) -> tuple[bool, bytes]:
        """Whether a response is a stream of events, and the lines of its head that do not depend on the request."""
        head = self._head
        if head is None:
            kind = self.named.get(b"content-type", b"").partition(b";")[0].strip().lower()
            lines = b"HTTP/1.1 %d %b\r\n%b%b" % (status, reason, self.passed_on(), SERVER)
            head = self._head = kind == b"text/event-stream", lines
        return head

    def _forwarded(self, *, has_key: bool) -> bytes:
        named = self.named
        if b"connection" in named or (not has_key and b"authorization" in named):
            # A Connection field makes the fields that it names hop-by-hop.
            hidden = {one.strip().lower() for one in named.get(b"connection", b"").split(b",")} - _OF_CONNECTIONS
            if not has_key:
                hidden.add(b"authorization")
            if hidden:
                return b"".join([line for line in self.lines if line.partition(b":")[0].lower() not in hidden])
        return b"".join(self.lines)


class FieldListener:
    """Callbacks of llhttp for fields: fields of a head are kept, those of a trailer are not."""

    __slots__ = ("fields", "is_in_head")

    _kinds: Mapping[bytes, int]

    def __init__(self) -> None:
        self.fields = Fields()
        self.is_in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store another field."""
        if not self.is_in_head:
            return
        fields, lower = self.fields, name.lower()
        kind = self._kinds.get(lower)
        if kind is not None:
            named = fields.named
            if lower not in named:
                named[lower] = value
            elif lower == b"connection":
                named[lower] += b"," + value
            else:
                fields.repeated = {lower} | (fields.repeated or set())
            if kind == _DROPPED:
                return
        fields.lines.append(b"%b: %b\r\n" % (name, value))


class RequestListener(FieldListener):
    """Collects the fields of a client's requests."""

    __slots__ = ()

    _kinds = _KINDS_OF_REQUESTS


class AnswerListener(FieldListener):
    """Collects the fields of a replica's responses."""

    __slots__ = ()

    _kinds = _KINDS_OF_ANSWERS


def request_fields(fields: Fields, upstream_key: str, is_key_ours: bool) -> bytes:
    """The client's header fields for a replica, as lines.

    Compressed responses are not requested: tokens must be readable to be counted, and take few bytes.

    Parameters
    ----------
    fields
        Fields of the client's request.
    upstream_key
        Key for replicas; empty: none.
    is_key_ours
        Whether the client's key is meant only for this proxy.
    """
    kept = fields.passed_on(has_key=not (upstream_key or is_key_ours))
    return kept + b"Authorization: Bearer %b\r\n" % upstream_key.encode() if upstream_key else kept
