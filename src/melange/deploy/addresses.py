"""The list of replicas, from the command line or from a file that may change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from melange.catalog.bundled import accelerators
from melange.catalog.names import find_accelerator
from melange.errors import InputError, first_of, unknown
from melange.files import read_text
from melange.parsing import named_value

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.profile.profile import ReplicaType

# Faulty lines of a list of replicas that an error shows before it counts the rest. Chosen by judgment.
_MOST_FAULTS = 20


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Address:
    """One running copy of the model.

    Parameters
    ----------
    place
        Index of its replica type in ``plan.replica_types``.
    url
        ``http://host:port`` or ``https://host:port``, optionally with a path before ``/v1``; without a slash at the
        end.
    """

    place: int
    url: str


def addresses_of(given: Iterable[tuple[str, str]], plan: Plan) -> tuple[Address, ...]:
    """Parse replicas from ``NAME=URL`` texts, each with its place in a file or on the command line.

    Raises
    ------
    InputError
        A text in another format, a name that matches no used type of the plan or several, an invalid or repeated URL,
        or no replica at all. The first twenty faults are reported together.
    """
    found: list[Address] = []
    faults: list[str] = []
    for place, text in given:
        try:
            address = _address(text, plan)
            if any(address.url == other.url for other in found):
                raise InputError(f"{address.url} is given twice")
            found.append(address)
        except InputError as error:
            faults.append(f"{place}: {error}{f' ({error.hint})' if error.hint else ''}")
    if faults:
        raise InputError(first_of(faults, _MOST_FAULTS))
    if not found:
        raise InputError("no replicas given", hint="--replica NAME=http://host:port")
    return tuple(sorted(found))


def read_addresses(path: Path, plan: Plan) -> tuple[Address, ...]:
    """The replicas in a file: ``NAME=URL`` or ``NAME URL``, one per line.

    ``#`` begins a comment at the start of a line and after a URL; in a name it is part of the name.
    """
    lines = [_without_comment(line).strip() for line in read_text(path).splitlines()]
    return addresses_of(
        ((f"{path}:{number}", "=".join(line.rsplit(None, 1)) if "=" not in line.split("://")[0] else line)
         for number, line in enumerate(lines, start=1) if line),
        plan,
    )  # fmt: skip


def _without_comment(line: str) -> str:
    name, separator, place = line.partition("://")
    return "" if name.lstrip().startswith("#") else f"{name}{separator}{place.partition('#')[0]}"


def known_types(plan: Plan) -> list[int]:
    """Indexes of the types with known rates in the plan: the used types."""
    return [r for r in range(len(plan.replica_types)) if plan.max_request_rate[r].any()]


def counts_of(addresses: Sequence[Address], plan: Plan) -> dict[str, int]:
    """Number of replicas by replica type name."""
    counts = dict.fromkeys((one.name for one in plan.replica_types), 0)
    for address in addresses:
        counts[plan.replica_types[address.place].name] += 1
    return counts


def _address(text: str, plan: Plan) -> Address:
    name, is_pair, url = named_value(text)
    if not is_pair or not name.strip():
        raise InputError(f"must be NAME=http://host:port, got {text!r}")
    return Address(place=place_of(name.strip(), plan), url=url_of(url.strip()))


def place_of(name: str, plan: Plan) -> int:
    """The used type of a plan with that name; see :func:`named_among`."""
    types, used = plan.replica_types, known_types(plan)
    if any(one.name == name for one in types) and all(types[r].name != name for r in used):
        names = ", ".join(types[r].name for r in used)
        raise InputError(f"the plan does not use {name}", hint=f"it uses {names}")
    return used[named_among([types[r] for r in used], name)]


def named_among(types: Sequence[ReplicaType], name: str) -> int:
    """Position of the type with that name, or that accelerator, or the only one with that part in its name.

    Case is ignored, except in whole names. A part is a word, or several: ``g6.xlarge``, ``us-east-1``.

    Raises
    ------
    InputError
        The name fits no type, or several.
    """
    matches = fitting(types, name)
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(types[k].name for k in matches)
        raise InputError(f"{name!r} is ambiguous: {names}", hint="give the full name")
    short = [one.offer.accelerator for one in types]
    raise unknown("replica type", name, [one.name for one in types] + [one for one in short if short.count(one) == 1])


def fitting(types: Sequence[ReplicaType], name: str) -> list[int]:
    """Positions of the types that a name fits: the whole name; else the accelerator, by any name; else a part."""
    card = find_accelerator(name, accelerators())
    part = re.compile(rf"(?<![a-z0-9]){re.escape(name.casefold())}(?![a-z0-9])")
    rules = (
        lambda one: one.name == name,
        lambda one: one.offer.accelerator.casefold() == name.casefold(),
        lambda one: one.offer.accelerator == card,
        lambda one: part.search(one.name.casefold()) is not None,
    )
    found = ([k for k, one in enumerate(types) if rule(one)] for rule in rules)
    return next((matches for matches in found if matches), [])


def url_of(url: str) -> str:
    """An address of a server, as requests to it begin.

    Raises
    ------
    InputError
        It is not HTTP, has no host, or has credentials or a query.
    """
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or parts.username or parts.query or parts.fragment or any(c.isspace() for c in url):
        raise InputError(f"must be http://host:port or https://host:port, got {url!r}")
    return url.rstrip("/").removesuffix("/v1")
