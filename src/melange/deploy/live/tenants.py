"""Tenants: clients by API key, with their limits and priorities."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melange.deploy.live.access import checked_key
from melange.deploy.live.counters import MOST_TENANTS
from melange.errors import InputError
from melange.files import read_text
from melange.parsing import parse_yaml
from melange.records import items, mapping, one_line, record, text

_DIGITS = 64  # length of a SHA-256 digest in hexadecimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant, identified by its keys, and its limits; None: no limit.

    Parameters
    ----------
    name
        Name in metrics and traces.
    requests_per_s
        Rate of requests; bursts may be as large as one second's worth, at least one [1/s].
    tokens_per_min
        Rate of prompt and output tokens; bursts may be as large as one minute's worth [tokens/min].
    concurrent
        Most running requests.
    priority
        Priority sent to replicas instead of the client's; None: the client's own is forwarded.
    """

    name: str
    requests_per_s: float | None = None
    tokens_per_min: float | None = None
    concurrent: int | None = None
    priority: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_s", "tokens_per_min", "concurrent"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e12:
                raise InputError(f"{name} must be > 0, got {value:g}")


@dataclass(frozen=True, slots=True)
class Tenants:
    """All tenants, by the SHA-256 digests of their keys.

    Parameters
    ----------
    by_digest
        Tenant by digest of a key.
    """

    by_digest: Mapping[bytes, Tenant]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tenants, in the order of the file."""
        return tuple(dict.fromkeys(one.name for one in self.by_digest.values()))

    def of(self, authorization: str) -> Tenant | None:
        """The tenant of a bearer token; None: there is none.

        Digests are looked up, so the time does not depend on the key.
        """
        scheme, _, token = authorization.partition(" ")
        shown = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        return self.by_digest.get(shown) if scheme.lower() == "bearer" else None


def read_tenants(path: Path) -> Tenants:
    """The tenants of a YAML file: by name, each with ``key_env`` or ``key_sha256`` (one or several) and limits.

    Raises
    ------
    InputError
        No such file, keys in plain text, a variable that is not set, a key of two tenants, or an invalid limit.
    """
    content = mapping(parse_yaml(read_text(path), str(path)), str(path))
    unknown = [str(key) for key in content if key != "tenants"]
    if unknown or "tenants" not in content:
        raise InputError(f"{path}: must be a mapping with the key tenants", hint="tenants: {search: {key_env: ...}}")
    found: dict[bytes, Tenant] = {}
    given = mapping(content["tenants"], f"{path}: tenants")
    if not 0 < len(given) < MOST_TENANTS:
        raise InputError(f"{path}: tenants: must be 1 to {MOST_TENANTS - 1}, got {len(given)}")
    for name, one in given.items():
        place = f"{path}: tenants.{name}"
        settings = dict(mapping(one, place))
        if "key" in settings or "keys" in settings:
            raise InputError(
                f"{place}: keys must not be in the file",
                hint="key_env: NAME of a variable, or key_sha256: of printf %s KEY | sha256sum",
            )
        digests = [*_from_environment(settings, place), *_from_hashes(settings, place)]
        if not digests:
            raise InputError(f"{place}: key_env or key_sha256 is missing", hint="key_env: SEARCH_KEY")
        tenant = record(Tenant, settings, place, name=one_line(name, place))
        for digest in digests:
            if digest in found:
                raise InputError(f"{place}: has a key of tenants.{found[digest].name}")
            found[digest] = tenant
    return Tenants(found)


def _from_environment(settings: dict[str, Any], place: str) -> list[bytes]:
    digests = []
    for at, name in _several(settings, "key_env", place):
        key = os.environ.get(name, "").strip()
        if not key:
            raise InputError(f"{at}: the variable {name} is not set")
        digests.append(hashlib.sha256(checked_key(key, f"{at}: {name}").encode()).digest())
    return digests


def _from_hashes(settings: dict[str, Any], place: str) -> list[bytes]:
    digests = []
    for at, digits in _several(settings, "key_sha256", place):
        try:
            digest = bytes.fromhex(digits)
        except ValueError:
            digest = b""
        if len(digits) != _DIGITS or len(digest) != _DIGITS // 2:
            raise InputError(f"{at}: must be {_DIGITS} hexadecimal digits", hint="printf %s KEY | sha256sum")
        digests.append(digest)
    return digests


def _several(settings: dict[str, Any], name: str, place: str) -> list[tuple[str, str]]:
    """One text or a list of texts under a key, each with its place in the file."""
    given = settings.pop(name, [])
    if isinstance(given, str):
        return [(f"{place}.{name}", given)]
    return [(at, text(one, at)) for at, one in items(given, f"{place}.{name}")]
