"""Headers that the proxy forwards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from multidict import CIMultiDict

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

# Of one connection and not of the message (RFC 9110, section 7.6.1), and what a proxy sets itself.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-authentication-info",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
RETRIES = "X-Melange-Retries"
# Who answers, without a word on versions: neither on ours nor on a replica's.
SERVER = {"Server": "melange"}
_OF_REQUESTS = _HOP_BY_HOP | {"host", "content-length", "expect", "accept-encoding", RETRIES.lower()}
_OF_ANSWERS = _HOP_BY_HOP | {"content-length", "server", RETRIES.lower()}


def request_headers(headers: CIMultiDictProxy[str], upstream_key: str, is_key_ours: bool) -> CIMultiDict[str]:
    """The client's headers that are forwarded to a replica.

    Compressed answers are not asked for: what is counted must be read, and tokens are few bytes.

    Parameters
    ----------
    headers
        Of the client.
    upstream_key
        Shown to replicas; empty: none.
    is_key_ours
        Whether the client's key is meant for this proxy and nobody else.
    """
    kept = _kept(headers, _OF_REQUESTS)
    if upstream_key:
        kept["Authorization"] = f"Bearer {upstream_key}"
    elif is_key_ours:
        kept.popall("Authorization", None)
    return kept


def answer_headers(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The replica's headers that are forwarded to a client."""
    kept = _kept(headers, _OF_ANSWERS)
    kept.update(SERVER)
    return kept


def _kept(headers: CIMultiDictProxy[str], dropped: frozenset[str]) -> CIMultiDict[str]:
    if "Connection" in headers:
        dropped = dropped | _named(headers.getall("Connection"))
    return CIMultiDict([(name, value) for name, value in headers.items() if name.lower() not in dropped])


def _named(values: Iterable[str]) -> set[str]:
    """Headers that a Connection header makes of this hop."""
    return {name.strip().lower() for value in values for name in value.split(",")}
