"""The one place where JSON, YAML and CSV text becomes values, within limits.

Deep nesting, numbers beyond floats, NaN, lone surrogates and endless fields are rejected here, each with its place, so
that no other module has to expect them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from melange.errors import InputError

# Levels of nesting. Our own documents have 7, a guidellm report 12. Python's own limit of 1,000 includes the current
# stack, so it would trigger at a different depth every time.
MOST_DEPTH = 64
# Integers must be smaller: the limit of NumPy and DuckDB.
MOST_WHOLE = 2**63
# Other numbers must be smaller: the limit of a 32-bit float. None of our quantities comes close, and powers and
# products of several such numbers are still finite.
_MOST_NUMBER = 2.0**128
_SINGLE_EQUALS = re.compile(r"(?<!=)=(?!=)")
# A line of a service or a fleet in YAML.
_SERVICE = re.compile(r"^(model|slo|workload|services)\s*:", re.MULTILINE)
# Longest YAML text [characters], and most values in it after references are expanded: reading takes about a second.
_MOST_YAML = 1 << 18
_MOST_YAML_VALUES = 20_000
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# Numbers that YAML 1.1 reads to base 8 or 60, and later versions do not.
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]*[0-7][0-7_]*|[\d_]+(:[0-5]?\d)+(\.[\d_]*)?)")
# Longest cell of a table [characters]: the default of Python's csv. An unclosed quote makes the whole file one cell.
_MOST_CELL = 131_072


def parse_json(text: str, place: str, *, infinity: bool = False) -> Any:
    """The value of a JSON text.

    Parameters
    ----------
    text
        A whole document.
    place
        The file, or the file and the line, for errors.
    infinity
        Allow infinite numbers and NaN, which are not JSON: load tests write them for an unlimited rate and a missing
        value.

    Raises
    ------
    InputError
        Not JSON, nesting deeper than 64 levels, NaN, numbers beyond 64-bit integers and 32-bit floats, lone surrogates.
    """
    try:
        content = json.loads(text.removeprefix("\ufeff"), parse_int=_whole)
    except json.JSONDecodeError as error:
        where = place if error.lineno == 1 and "\n" not in text else f"{place}:{error.lineno}"
        hint = "the name of a service must end in .yaml or .yml" if _SERVICE.search(text) else ""
        raise InputError(f"{where}: not valid JSON: {error.msg} (column {error.colno})", hint=hint) from error
    except RecursionError as error:
        raise InputError(f"{place}: is nested deeper than {MOST_DEPTH} levels") from error
    check_values(content, place, infinity=infinity)
    return content


def is_json(text: str) -> bool:
    """Whether a text is one JSON document."""
    try:
        json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError):
        return False
    return True


def _whole(digits: str) -> int:
    """An integer; a number of more than 4,300 digits, which Python refuses to read, becomes an out-of-range value."""
    return int(digits) if len(digits) <= 20 else MOST_WHOLE


def check_values(content: Any, place: str, *, infinity: bool = False) -> None:
    """Reject values that are not allowed in any document; the error names their path."""
    if _is_sound(content, infinity):
        return
    fault = next(_faults_in(content, "", 1, infinity), "holds an invalid value")
    raise InputError(f"{place}: {fault}")


def _is_sound(content: Any, infinity: bool) -> bool:
    """The check of :func:`check_values` without paths: it is fast, and most documents are valid."""
    level = [content]
    for depth in range(1, MOST_DEPTH + 2):
        deeper: list[Any] = []
        for one in level:
            kind = type(one)
            if kind in (list, dict) and depth > MOST_DEPTH:
                return False
            if kind is list:
                deeper += one
            elif kind is dict:
                deeper += one
                deeper += one.values()
            elif _fault_of(one, infinity):
                return False
        level = deeper
        if not level:
            break
    return True


def _faults_in(content: Any, path: str, depth: int, infinity: bool) -> Iterator[str]:
    named = path or "the document"
    if depth > MOST_DEPTH and isinstance(content, list | dict):
        yield f"{named[:60]}{'...' if len(named) > 60 else ''} is nested deeper than {MOST_DEPTH} levels"
    elif isinstance(content, dict):
        for key, value in content.items():
            if fault := _fault_of(key, infinity):
                yield f"a key in {named} {fault}"
            yield from _faults_in(value, f"{path}.{key[:60]}" if path else key[:60], depth + 1, infinity)
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from _faults_in(value, f"{path}[{index}]", depth + 1, infinity)
    elif fault := _fault_of(content, infinity):
        yield f"{named} {fault}"


def _fault_of(value: Any, infinity: bool = False) -> str:
    """What is wrong with a single value; an empty text if it is valid."""
    kind = type(value)
    if kind is float:
        if -_MOST_NUMBER < value < _MOST_NUMBER or (infinity and not math.isfinite(value)):
            return ""
        if math.isfinite(value):
            return "must be smaller than 2^128 in size"
        return "must be a number, got NaN" if math.isnan(value) else "must be finite, got an infinite number"
    if kind is str and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "holds a lone surrogate (half a character)"
    if kind is int and not -MOST_WHOLE < value < MOST_WHOLE:
        return "must be smaller than 2^63 in size"
    return ""


def parse_yaml(text: str, place: str) -> Any:
    """The value of a YAML text; dates remain text, as written.

    Parameters
    ----------
    text
        A whole document, or the value of one setting.
    place
        The file, to which errors add the line; or the setting.

    Raises
    ------
    InputError
        Not YAML, a duplicate key, tags of Python objects, and everything that :func:`parse_json` rejects.
    """
    if len(text) > _MOST_YAML:
        raise InputError(f"{place}: is longer than {_MOST_YAML:,} characters, too long for a service description")
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except RecursionError as error:
        raise InputError(f"{place}: is nested deeper than {MOST_DEPTH} levels") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{place}:{mark.line + 1}" if mark is not None and not place.startswith("--") else place
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        kind = "" if isinstance(error, _Fault) else "not valid YAML: "
        raise InputError(f"{where}: {kind}{problem}") from error


class _Fault(yaml.MarkedYAMLError):
    """A value that is not allowed in any document, with its line."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader within limits."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        # Values and levels below each node after references are expanded; the key is the node's identity.
        self._extent: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node and count it: references are short to write, and can double the content at every level."""
        event = self.peek_event()  # type: ignore[no-untyped-call] # PyYAML has no types
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _Fault(f"nested deeper than {MOST_DEPTH} levels", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and id(node) not in self._extent:
            if isinstance(event, yaml.AliasEvent):
                raise _Fault(f"the reference *{event.anchor} refers to itself", event.start_mark)
            self._extent[id(node)] = self._extent_of(node)
        return node

    def _extent_of(self, node: yaml.Node) -> tuple[int, int]:
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
            self._check_keys(node)
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        below = [self._extent[id(part)] for part in parts]
        values, levels = 1 + sum(count for count, _ in below), 1 + max((depth for _, depth in below), default=0)
        if values > _MOST_YAML_VALUES:
            raise _Fault(f"holds more than {_MOST_YAML_VALUES:,} values", node.start_mark)
        if levels > MOST_DEPTH:
            raise _Fault(f"nested deeper than {MOST_DEPTH} levels", node.start_mark)
        return values, levels

    @staticmethod
    def _check_keys(node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise _Fault(f"the key {key.value[:60]!r} is given twice", key.start_mark)
            seen.add(key.value)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Check and return a value; a scalar that does not match its tag (``!!int x``) is an error at its line."""
        try:
            value = super().construct_object(node, deep=deep)
        except yaml.YAMLError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise _Fault(
                f"{str(node.value)[:60]!r} is not a valid {node.tag.rpartition(':')[2]}", node.start_mark
            ) from error
        if fault := _fault_of(value) or self._misread(node):
            raise _Fault(fault, node.start_mark)
        return value

    @staticmethod
    def _misread(node: yaml.Node) -> str:
        """What is wrong with a number that YAML 1.1 reads to another base: 010 is 8, and 1:30 is 90."""
        if node.tag not in _NUMBERS or not (found := _OTHER_BASE.fullmatch(node.value)):
            return ""
        base, write = ("60", "a duration such as 1h30m, or quote it") if ":" in found[0] else ("8", "no leading zero")
        return f"YAML reads {found[0][:60]} as a number to base {base}: write {write}"


# Dates remain text: if parsed, 2026-13-45 would fail inside the loader, and the original text would be lost.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


# YAML 1.1, which PyYAML reads, takes 1e2 as text for lack of a point; JSON, YAML 1.2 and people take it as a number.
for _first in "-+.0123456789":
    _Loader.yaml_implicit_resolvers.setdefault(_first, []).append(
        ("tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"))
    )


def compose_yaml(text: str) -> yaml.Node | None:
    """The nodes of a text that :func:`parse_yaml` has read, with their lines."""
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def table_rows(text: str, place: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a whole CSV table, as from :func:`csv_rows`; a byte order mark is removed."""
    # Lines end as in CSV: str.splitlines would also end them at U+2028 and at other characters that a cell may contain.
    return csv_rows(io.StringIO(text.removeprefix("\ufeff"), newline=""), place)


def csv_rows(
    lines: Iterable[str], place: str, *, delimiter: str = ",", strict: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV table, each with the number of its first line; empty lines are skipped.

    Parameters
    ----------
    lines
        The lines of the text, line ends included.
    place
        The file, to which errors add the line.
    strict
        Reject an unclosed quote, and text after a closing quote.

    Raises
    ------
    InputError
        A faulty quote under ``strict``, or a cell that is too long.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=strict)
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            reason = str(error)
            if "field limit" in reason:
                reason = f"a cell is longer than {_MOST_CELL:,} characters: is a quote not closed?"
            raise InputError(f"{place}:{start}: not valid CSV: {reason}") from error
        if row is None:
            return
        if row:
            yield start, row


def named_value(text: str) -> tuple[str, str, str]:
    """``NAME=VALUE`` split as by ``str.partition``, at the first single ``=``: names hold releases, ``vllm==0.11.0``.

    >>> named_value("aws/g6e vllm==0.11.0=http://10.0.0.7:8000")
    ('aws/g6e vllm==0.11.0', '=', 'http://10.0.0.7:8000')
    """
    found = _SINGLE_EQUALS.search(text)
    return (text[: found.start()], "=", text[found.end() :]) if found else (text, "", "")
