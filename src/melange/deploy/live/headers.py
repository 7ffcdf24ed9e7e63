"""Which header fields go through a proxy."""

from __future__ import annotations

from collections.abc import Iterable

# A header field: its name in lower case, its name as it was sent, its value.
Field = tuple[bytes, bytes, bytes]

# Of one connection and not of the message (RFC 9110, section 7.6.1), and what a proxy sets itself.
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
_OF_KEYED_REQUESTS = _OF_REQUESTS | {b"authorization"}
_OF_ANSWERS = _HOP_BY_HOP | {b"content-length", b"server", _RETRIES}


def request_fields(fields: Iterable[Field], upstream_key: str, is_key_ours: bool) -> bytes:
    """What a replica gets to see of a client's header, as lines.

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
    kept = _kept(fields, _OF_KEYED_REQUESTS if upstream_key or is_key_ours else _OF_REQUESTS)
    return kept + b"Authorization: Bearer %b\r\n" % upstream_key.encode() if upstream_key else kept


def answer_fields(fields: Iterable[Field]) -> bytes:
    """What a client gets to see of a replica's header, as lines, and whose answer it is."""
    return _kept(fields, _OF_ANSWERS) + SERVER


def answer_headers(fields: Iterable[Field]) -> dict[str, str]:
    """The same of an answer that was taken in whole, for one of the proxy's own."""
    lines = _kept(fields, _OF_ANSWERS | {b"date"}).decode("latin-1").splitlines()
    return dict(line.split(": ", 1) for line in lines)


def value_of(fields: Iterable[Field], name: bytes) -> bytes:
    """The value of the first field of a name (lower case); empty where there is none."""
    return next((value for lower, _, value in fields if lower == name), b"")


def _kept(fields: Iterable[Field], dropped: frozenset[bytes]) -> bytes:
    lines = []
    for lower, name, value in fields:
        if lower == b"connection":
            named = _named(value)
            if not named <= dropped:
                return _kept([one for one in fields if one[0] != b"connection" or one[2] != value], dropped | named)
        elif lower not in dropped:
            lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


def _named(value: bytes) -> set[bytes]:
    """Fields that a Connection field makes of this hop."""
    return {name.strip().lower() for name in value.split(b",")}
