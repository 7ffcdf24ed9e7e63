"""Errors and cautions.

::

    MelangeError
    ├── InputError          a file or value we were given cannot be used
    ├── InfeasibleError     no allowed fleet can serve the workload; .reasons says why, per bucket and type
    ├── SolverError         the solver stopped without a plan
    └── MeasurementError    an endpoint under test did not answer as expected

A message says what must hold and what was found, with the place; ``hint`` says the next thing to do.
A :class:`Caution` is a warning: the answer stands, and the reader should know this about it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Characters that move a terminal's cursor or reverse its text: control characters, direction marks, lone surrogates.
# Line ends and tabs are allowed.
UNPRINTABLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
# Longest line of an error [characters]: text found in a file may be too long to read.
_MOST_LINE = 1_000


def printable(text: str) -> str:
    r"""A text with every control character escaped, so that a terminal cannot act on it.

    >>> printable("red \x1b[31m")
    'red \\x1b[31m'
    """
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def _readable(message: str) -> str:
    """A message that is safe to print, with long lines cut in the middle."""
    half = _MOST_LINE // 2
    lines = printable(message).split("\n")
    return "\n".join(line if len(line) <= _MOST_LINE else f"{line[:half]} ... {line[-half:]}" for line in lines)


class MelangeError(Exception):
    """A failure that its reader can act on.

    Parameters
    ----------
    message
        What must hold, what was found, and where.
    hint
        The next thing to do; empty when the message already says it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(_readable(message))
        self.hint = _readable(hint)


class InputError(MelangeError):
    """A file or value we were given cannot be used."""


class InfeasibleError(MelangeError):
    """No allowed fleet can serve the workload; ``reasons`` says why.

    Parameters
    ----------
    reasons
        One sentence each, per bucket and replica type or per constraint.
    """

    def __init__(self, message: str, *, reasons: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reasons = tuple(map(_readable, reasons))


class SolverError(MelangeError):
    """The solver stopped without a plan."""


class MeasurementError(MelangeError):
    """An endpoint under test did not answer as expected."""


@dataclass(frozen=True, slots=True)
class Caution:
    """Something that the reader should know about an answer that is still valid.

    Parameters
    ----------
    kind
        Stable name, for machines: ``stale-price``, ``extrapolated``, ``thin-data``, ``failed-rows``, ...
    message
        One sentence that says what was found and what to do about it.
    """

    kind: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", _readable(self.message))

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"

    def to_json(self) -> dict[str, str]:
        """As a JSON object."""
        return {"kind": self.kind, "message": self.message}


# Most characters of a name that are compared: more take time and change nothing.
_MOST_NAME = 100


def _likeness(name: str, candidate: str) -> float:
    """Similarity of a name to another, or to its beginning, ignoring case (0-1)."""
    ours, theirs = name[:_MOST_NAME].casefold(), candidate[:_MOST_NAME].casefold()
    whole = difflib.SequenceMatcher(None, ours, theirs).ratio()
    # The beginning counts for less: H10O is like H100-80GB, and not every name that starts with an A is like A10G.
    return max(whole, 0.8 * difflib.SequenceMatcher(None, ours, theirs[: len(ours)]).ratio())


def near(name: str, known: Iterable[str]) -> list[str]:
    """The known names that are like a name, or contain it, nearest first.

    >>> near("L40", ["A10G", "L4", "L40S"])
    ['L40S', 'L4']
    """
    names = sorted(set(known))
    nearest = sorted((c for c in names if _likeness(name, c) >= 0.5), key=lambda c: -_likeness(name, c))[:3]
    return nearest + [c for c in names if name and name.casefold() in c.casefold() and c not in nearest]


def unknown(what: str, name: str, known: Iterable[str], *, place: str = "") -> InputError:
    """An error for an unknown name, with the nearest known names.

    >>> print(unknown("gpu", "H10O", ["H100-80GB", "L4"]))
    unknown gpu 'H10O'; did you mean 'H100-80GB'?
    """
    names = sorted(set(known))
    nearest = near(name, names)
    name = name if len(name) <= _MOST_NAME else f"{name[:_MOST_NAME]}..."
    prefix = f"{place}: " if place else ""
    if nearest:
        guess = " or ".join(repr(candidate) for candidate in nearest[:4])
        return InputError(f"{prefix}unknown {what} {name!r}; did you mean {guess}?")
    listing = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return InputError(f"{prefix}unknown {what} {name!r}", hint=f"known: {listing}" if names else "none are known")


def first_of(faults: Sequence[str], most: int = 5, what: str = "") -> str:
    """Faults with a line each: the first few, and the number of the rest.

    >>> print(first_of(["a.csv:1: no price", "a.csv:2: no price", "a.csv:9: no name"], most=2, what="row"))
    a.csv:1: no price
    a.csv:2: no price
    ... and 1 more row
    """
    more = len(faults) - most
    noun = f" {what}{'s' if more > 1 else ''}" if what else ""
    return "\n".join([*faults[:most], *([f"... and {more} more{noun}"] if more > 0 else [])])


# Names listed in a sentence before the rest is counted. Chosen by judgment: fewer hide the meaning, more are not read.
_LISTED = 4


def some_of(names: Iterable[str]) -> str:
    """A few names, and the number of the rest.

    >>> some_of(["A10", "A40", "L4", "L40", "T4", "V100"])
    'A10, A40, L4, L40 and 2 more'
    """
    listed = list(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more
