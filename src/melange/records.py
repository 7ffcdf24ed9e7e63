"""Turn the values of a document into dataclasses, checked by the annotations of their fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from datetime import date
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints
from unicodedata import category

from melange.errors import UNPRINTABLE, InputError, unknown
from melange.parsing import MOST_WHOLE

# Longest text in one of our documents [characters]; in practice the longest are sources, which list the files read.
_MOST_TEXT = 20_000
# Costs of plans [USD/h, kg CO2e/h]: values beyond these mean that a file is damaged. Chosen by judgment.
_LEAST_COST, _MOST_COST = 1e-9, 1e15
# Characters that names must not contain: Unicode's controls, formats (zero-width spaces and joiners), surrogates and
# line ends; and letters and marks without a shape (fillers, variation selectors).
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_HIDDEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | frozenset(
    chr(code) for code in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
)
Record = TypeVar("Record")


def record(kind: type[Record], content: Any, place: str = "", **parsed: Any) -> Record:
    """A dataclass from a mapping of its fields.

    Parameters
    ----------
    kind
        The dataclass; its annotations define the allowed values: text, numbers, booleans, dates, other such
        dataclasses, tuples and mappings of them, None.
    content
        The part of a document that describes the value.
    place
        The path of this part, for errors: ``replica_types[3].offer``.
    parsed
        Values already read, for fields that the document holds in another form.

    Raises
    ------
    InputError
        Not a mapping, a missing or unknown field, or a value of the wrong type; the error names the path.
    """
    given = mapping(content, place)
    known = _hints(kind)  # type: ignore[arg-type] # classes can be hashed
    for key in given:
        if key not in known and key not in parsed:
            raise unknown("key", str(key), known, place=place)
    values = dict(parsed)
    for one in fields(kind):  # type: ignore[arg-type] # a dataclass
        where = _joined(place, one.name)
        if one.name in parsed or not one.init:
            continue
        if one.name in given:
            values[one.name] = value_of(known[one.name], given[one.name], where)
        elif one.default is MISSING and one.default_factory is MISSING:
            raise InputError(f"{where} is missing")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{place}: {error}" if place else str(error), hint=error.hint) from error


def mapping(content: Any, place: str) -> Mapping[str, Any]:
    """A mapping with text keys."""
    if not isinstance(content, Mapping):
        raise _wrong("a mapping", content, place)
    return content


def items(content: Any, place: str) -> list[tuple[str, Any]]:
    """The items of a list, each with its place."""
    if not isinstance(content, list | tuple):
        raise _wrong("a list", content, place)
    return [(f"{place}[{index}]", value) for index, value in enumerate(content)]


def records(kind: type[Record], content: Any, place: str) -> tuple[Record, ...]:
    """A list of dataclasses, each from a mapping of its fields."""
    return tuple(record(kind, value, where) for where, value in items(content, place))


def text(content: Any, place: str, *, most: int = _MOST_TEXT) -> str:
    """A text without control characters and of readable length."""
    if not isinstance(content, str):
        raise _wrong("text", content, place)
    if len(content) > most:
        raise InputError(f"{place} must have at most {most:,} characters, got {len(content):,}")
    if not content.isprintable() and (unfit := UNPRINTABLE.search(content)):
        raise InputError(f"{place} must be printable text, got the character {unfit[0]!a}")
    return content


def one_line(content: Any, place: str, *, most: int = _MOST_TEXT) -> str:
    """A name: a text on one line, without control characters and without characters that are not visible.

    A line end in a name would put the rest of it on a line of its own, also in commands that users copy, and two names
    that differ in a zero-width character look the same.
    """
    found = text(content, place, most=most)
    if not (found.isascii() and found.isprintable()) and (unfit := next(filter(_is_hidden, found), None)):
        raise InputError(f"{place} must be one line of visible characters, got the character {unfit!a}")
    return found


def _is_hidden(character: str) -> bool:
    return category(character) in _HIDDEN_CATEGORIES or character in _HIDDEN


def number(content: Any, place: str) -> float:
    """A finite number."""
    if isinstance(content, bool) or not isinstance(content, int | float) or not math.isfinite(content):
        raise _wrong("a number", content, place)
    return float(content)


def check_cost(value: float | None, place: str) -> None:
    """Reject a cost that is zero, negative or too large to sum: ratios of costs need a positive one; None: unknown."""
    if value is not None and not _LEAST_COST <= value <= _MOST_COST:
        raise InputError(f"{place} must be a cost of {_LEAST_COST:g} to {_MOST_COST:g}, got {value:g}")


def whole(content: Any, place: str) -> int:
    """A 64-bit integer, also if it is written as 1e3."""
    if isinstance(content, bool) or not isinstance(content, int | float) or content != int(number(content, place)):
        raise _wrong("a whole number", content, place)
    if abs(content) >= MOST_WHOLE:
        raise InputError(f"{place} must be smaller than 2^63 in size")
    return int(content)


def truth(content: Any, place: str) -> bool:
    """True or false."""
    if not isinstance(content, bool):
        raise _wrong("true or false", content, place)
    return content


def day(content: Any, place: str) -> date:
    """A date in ISO 8601 form."""
    try:
        return date.fromisoformat(text(content, place))
    except ValueError:
        raise _wrong("a date such as 2026-08-22", content, place) from None


_READERS: dict[Any, tuple[Callable[[Any, str], Any], str]] = {
    str: (text, "text"),
    float: (number, "a number"),
    int: (whole, "a whole number"),
    bool: (truth, "true or false"),
    date: (day, "a date"),
}


def value_of(hint: Any, content: Any, place: str) -> Any:
    """A value of an annotated type."""
    origin = get_origin(hint)
    if hint in _READERS:
        return _READERS[hint][0](content, place)
    if origin in (Union, UnionType):
        return _one_of(get_args(hint), content, place)
    if origin is tuple:
        return tuple(value_of(get_args(hint)[0], value, where) for where, value in items(content, place))
    if origin is not None and issubclass(origin, Mapping):
        inner = get_args(hint)[1]
        return {
            text(key, f"a key of {place}"): value_of(inner, value, _joined(place, key))
            for key, value in mapping(content, place).items()
        }
    if is_dataclass(hint):
        return record(hint, content, place)  # type: ignore[arg-type] # a class
    raise TypeError(f"{place}: values of {hint} are not read from documents")


def _one_of(hints: tuple[Any, ...], content: Any, place: str) -> Any:
    if NoneType in hints and content is None:
        return None
    rest = [hint for hint in hints if hint is not NoneType]
    for hint in rest[:-1]:
        try:
            return value_of(hint, content, place)
        except InputError:
            continue
    return value_of(rest[-1], content, place)


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields(kind)}  # type: ignore[arg-type] # a dataclass


def _joined(place: str, key: str) -> str:
    return f"{place}.{key[:60]}" if place else key[:60]


def _wrong(what: str, content: Any, place: str) -> InputError:
    return InputError(f"{place} must be {what}, got {shown(content)}")


def shown(content: Any) -> str:
    """A value, shortened for a sentence."""
    found = ascii(content)
    return found if len(found) <= 60 else f"{found[:57]}..."


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Add the file's name to an error that does not name it."""
    try:
        yield
    except InputError as error:
        if place in str(error):
            raise
        raise InputError(f"{place}: {error}", hint=error.hint) from error


@contextmanager
def reading(place: str, what: str) -> Iterator[None]:
    """Read a file of another program: an error names the file if its content does not match the format.

    Readers check what they expect and give better messages; this function catches the remaining cases.
    """
    try:
        with placed(place):
            yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        if isinstance(error, KeyError):
            reason = f"the key {error} is missing"
        elif isinstance(error, TypeError | AttributeError):
            reason = "a value has the wrong type"
        else:
            reason = str(error) or type(error).__name__
        raise InputError(f"{place}: not {what}: {reason}") from error
