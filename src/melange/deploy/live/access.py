"""API keys of clients and replicas."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from melange.errors import InputError
from melange.files import read_text

_KEYS_VARIABLE, _UPSTREAM_KEY_VARIABLE = "MELANGE_BALANCE_KEYS", "MELANGE_UPSTREAM_KEY"
# Least length of a key. Shorter keys could be guessed over the network; 16 random letters and digits have 95 bits, and
# nobody types them by hand.
_LEAST_LENGTH = 16


def read_keys(path: Path | None) -> tuple[bytes, ...]:
    """SHA-256 digests of the keys in a file (one per line, ``#`` begins a comment) and in a variable (comma-separated).

    Raises
    ------
    InputError
        A key that is short enough to be guessed, or a file without keys.
    """
    lines = read_text(path).splitlines() if path else []
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if path and not keys:
        raise InputError(f"{path}: contains no key")
    keys += [key.strip() for key in os.environ.get(_KEYS_VARIABLE, "").split(",") if key.strip()]
    return tuple(_digest(checked_key(key, str(path or _KEYS_VARIABLE)).encode()) for key in keys)


def checked_key(key: str, place: str) -> str:
    """Check that a key is long enough.

    Raises
    ------
    InputError
        The key is short enough to be guessed.
    """
    if len(key) < _LEAST_LENGTH:
        raise InputError(f"{place}: a key must have at least {_LEAST_LENGTH} characters", hint="openssl rand -hex 32")
    return key


def is_allowed(authorization: str, keys: tuple[bytes, ...]) -> bool:
    """Whether a bearer token is one of the keys; the time does not depend on the token.

    Digests are compared, so the time does not reveal the length of a key either.
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
