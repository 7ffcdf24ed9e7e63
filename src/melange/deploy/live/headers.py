"""Header fields that the proxy forwards."""

from __future__ import annotations

from collections.abc import Mapping

# What is looked at or dropped, in lower case. Hop-by-hop fields are of one connection and not of the message (RFC 9110,
# section 7.6.1); of the others a proxy sets its own.
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
# Who answers, without a word on versions: neither on ours nor on a replica's.
SERVER = b"Server: melange\r\n"
_OF_REQUESTS = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"accept-encoding", _RETRIES}
_OF_ANSWERS = _HOP_BY_HOP | {b"content-length", b"server", _RETRIES}
_DROPPED, _SEEN = range(2)
# What becomes of a field that is not just passed on: it is looked at, and passed on or not.
_KINDS_OF_REQUESTS = dict.fromkeys(_OF_REQUESTS, _DROPPED) | dict.fromkeys(
    (b"authorization", b"content-encoding", b"traceparent", b"tracestate"), _SEEN
)
_KINDS_OF_ANSWERS = dict.fromkeys(_OF_ANSWERS, _DROPPED) | dict.fromkeys((b"content-type", b"date"), _SEEN)
# Tokens of Connection that name no field.
_OF_CONNECTIONS = frozenset({b"close", b"keep-alive", b""})


class Fields:
    """The header of one message."""

    __slots__ = ("_passed_on", "lines", "named", "repeated")

    def __init__(self) -> None:
        self.lines: list[bytes] = []  # that go through
        self.named: dict[bytes, bytes] = {}  # first values of those that are looked at or dropped, by lower-case name
        self.repeated: set[bytes] | None = None  # names of those that came twice
        self._passed_on: bytes | None = None  # for a head that comes again

    @property
    def count(self) -> int:
        """Fields that were kept."""
        return len(self.lines) + len(self.named)

    @property
    def size(self) -> int:
        """Bytes of the fields that were kept, about."""
        return sum(map(len, self.lines)) + sum(map(len, self.named.values()))

    def passed_on(self, *, has_key: bool = True) -> bytes:
        """The fields that are forwarded, as lines.

        Parameters
        ----------
        has_key
            Whether the sender's key goes through.
        """
        if has_key:
            if self._passed_on is None:
                self._passed_on = self._forwarded(has_key=True)
            return self._passed_on
        return self._forwarded(has_key=False)

    def _forwarded(self, *, has_key: bool) -> bytes:
        named = self.named
        if b"connection" in named or (not has_key and b"authorization" in named):
            # Fields that a Connection field makes of this hop.
            hidden = {one.strip().lower() for one in named.get(b"connection", b"").split(b",")} - _OF_CONNECTIONS
            if not has_key:
                hidden.add(b"authorization")
            if hidden:
                return b"".join([line for line in self.lines if line.partition(b":")[0].lower() not in hidden])
        return b"".join(self.lines)


class FieldListener:
    """What llhttp tells of fields: those of a head are kept, those of a trailer not."""

    __slots__ = ("fields", "is_in_head")

    _kinds: Mapping[bytes, int]

    def __init__(self) -> None:
        self.fields = Fields()
        self.is_in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Another field."""
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
    """Of a client's requests."""

    __slots__ = ()

    _kinds = _KINDS_OF_REQUESTS


class AnswerListener(FieldListener):
    """Of a replica's answers."""

    __slots__ = ()

    _kinds = _KINDS_OF_ANSWERS


def request_fields(fields: Fields, upstream_key: str, is_key_ours: bool) -> bytes:
    """The client's header fields that are forwarded to a replica, as lines.

    Compressed answers are not asked for: what is counted must be read, and tokens are few bytes.

    Parameters
    ----------
    fields
        Of the client.
    upstream_key
        Shown to replicas; empty: none.
    is_key_ours
        Whether the client's key is meant for this proxy and nobody else.
    """
    kept = fields.passed_on(has_key=not (upstream_key or is_key_ours))
    return kept + b"Authorization: Bearer %b\r\n" % upstream_key.encode() if upstream_key else kept
