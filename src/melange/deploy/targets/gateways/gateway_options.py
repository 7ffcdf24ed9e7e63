"""Options of all gateways."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melange.deploy.target import option
from melange.errors import InputError
from melange.records import shown
from melange.units import GIB

# Below this limit, even the envelope of a conversation would not fit [bytes].
_LEAST_BODY_BYTES = 1024
# Values beyond these are mistakes: a body of 1 GiB, and a token longer than any word.
_MOST_BODY_BYTES = GIB
_BYTES_PER_TOKEN = (0.01, 10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """The options of every gateway.

    Parameters
    ----------
    replicas
        Addresses of replicas (``http://host:port``), by replica type name, or by accelerator if that is unambiguous;
        None: placeholder names are used, with a caution.
    listen
        Address that the gateway listens on.
    bytes_per_token, envelope_bytes
        A body counts as (bytes - envelope) / bytes per token prompt tokens.
    max_body_bytes
        Longer bodies are rejected [bytes]; None: twice the longest prompt of the plan's buckets with traffic.
    """

    replicas: Mapping[str, Sequence[str]] | None = option(
        None, "Addresses of replicas, by type or accelerator (--replica); null: placeholders."
    )
    listen: str = option("127.0.0.1:8080", "Address that the gateway listens on.")
    # English has about 4 bytes per token.
    bytes_per_token: float = option(4.0, "Body bytes per prompt token.")
    # Bytes of an OpenAI request body besides the prompt, less the bytes for tokens that a chat template adds.
    envelope_bytes: int = option(100, "Body bytes that are not prompt.")
    max_body_bytes: int | None = option(None, "Reject longer bodies; null: twice the plan's longest prompt.")

    def __post_init__(self) -> None:
        parse_listen(self.listen)
        least, most = _BYTES_PER_TOKEN
        if not least <= self.bytes_per_token <= most:
            raise InputError(f"bytes per token must be {least:g} to {most:,}, got {self.bytes_per_token:g}")
        if not 0 <= self.envelope_bytes <= _MOST_BODY_BYTES:
            raise InputError(f"envelope bytes must be 0 to {_MOST_BODY_BYTES:,}, got {shown(self.envelope_bytes)}")
        longest = self.max_body_bytes
        if longest is not None and not _LEAST_BODY_BYTES <= longest <= _MOST_BODY_BYTES:
            limits = f"{_LEAST_BODY_BYTES:,} to {_MOST_BODY_BYTES:,}"
            raise InputError(f"the longest body must be {limits} bytes, got {shown(longest)}")


def parse_listen(listen: str) -> tuple[str, int]:
    """Parse ``host:port``; an IPv6 address is in brackets.

    >>> parse_listen("[::1]:8080")
    ('::1', 8080)
    """
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]*)):(\d{1,5})", listen)
    if not found or not 1 <= int(found[3]) <= 65535:
        raise InputError(f"--listen must be an address and a port, got {listen!r}", hint="127.0.0.1:8080")
    return found[1] or found[2] or "0.0.0.0", int(found[3])
