"""API keys of clients and replicas."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from melange.errors import InputError
from melange.files import read_text

_KEYS_VARIABLE, _UPSTREAM_KEY_VARIABLE = "MELANGE_BALANCE_KEYS", "MELANGE_UPSTREAM_KEY"
# Characters of a key. A shorter one could be guessed over the network; 16 random letters and digits have 95 bits, and
# nobody types them.
_LEAST_LENGTH = 16


def read_keys(path: Path | None) -> tuple[bytes, ...]:
    """Digests of the keys in a file (one a line, ``#`` begins a comment) and in the environment (between commas).

    Raises
    ------
    InputError
        A key so short that it can be guessed, a file without keys.
    """
    lines = read_text(path).splitlines() if path else []
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if path and not keys:
        raise InputError(f"{path}: contains no key")
    keys += [key.strip() for key in os.environ.get(_KEYS_VARIABLE, "").split(",") if key.strip()]
    return tuple(_digest(checked_key(key, str(path or _KEYS_VARIABLE)).encode()) for key in keys)


def checked_key(key: str, place: str) -> str:
    """A key that is long enough.

    Raises
    ------
    InputError
        It could be guessed.
    """
    if len(key) < _LEAST_LENGTH:
        raise InputError(f"{place}: a key must have at least {_LEAST_LENGTH} characters", hint="openssl rand -hex 32")
    return key


def is_allowed(authorization: str, keys: tuple[bytes, ...]) -> bool:
    """Whether a bearer token is one of the keys; takes as long whichever it is, and whether it is one.

    Digests are compared, so that not even the length of a key shows.
    """
    scheme, _, token = authorization.partition(" ")
    shown = _digest(token.strip().encode("utf-8", "surrogateescape"))
    is_key = False
    for key in keys:
        is_key |= hmac.compare_digest(shown, key)
    return is_key and scheme.lower() == "bearer"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def upstream_key() -> str:
    """The key sent to replicas, from the environment; empty: none."""
    return os.environ.get(_UPSTREAM_KEY_VARIABLE, "").strip()
