"""Documents as the dataclasses that they stand for: every field of its kind, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest

from melange.errors import InputError, MelangeError, printable
from melange.records import one_line, record


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Within another."""

    seen: date | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    """A field of each kind."""

    name: str
    count: int = 0
    share: float = 0.0
    is_on: bool = False
    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] = ()
    most: int | Mapping[str, int] = 1


def test_a_document_becomes_its_record() -> None:
    """Whole numbers may be written as floats, and lists are tuples."""
    content = {"name": "a", "count": 2.0, "share": 1, "is_on": True, "names": ["x"], "most": {"L4": 3}}
    found = record(Outer, {**content, "inner": {"seen": "2026-11-25"}})
    assert found == Outer(
        name="a", count=2, share=1.0, is_on=True, inner=Inner(seen=date(2026, 11, 25)), names=("x",), most={"L4": 3}
    )
    assert isinstance(found.share, float)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 5}, "top.name must be text, got 5"),
        ({"name": "\x1b[2J"}, r"top.name must be printable text, got the character '\\x1b'"),
        ({"name": "x" * 30_000}, "top.name must have at most 20,000 characters, got 30,000"),
        ({"count": "3"}, "top.count must be a whole number, got '3'"),
        ({"count": 2.5}, "top.count must be a whole number, got 2.5"),
        ({"count": True}, "top.count must be a whole number, got True"),
        ({"count": 1e19}, r"top.count must be smaller than 2\^63 in size"),
        ({"share": None}, "top.share must be a number, got None"),
        ({"is_on": 1}, "top.is_on must be true or false, got 1"),
        ({"inner": []}, r"top.inner must be a mapping, got \[\]"),
        ({"inner": {"seen": "2026-13-45"}}, "top.inner.seen must be a date such as 2026-08-22, got '2026-13-45'"),
        ({"names": "x"}, "top.names must be a list, got 'x'"),
        ({"names": ["x", []]}, r"top.names\[1\] must be text"),
        ({"most": {"L4": "3"}}, "top.most.L4 must be a whole number"),
        ({"nane": 1}, "top: unknown key 'nane'; did you mean 'name'"),
    ],
)
def test_a_value_of_another_kind_is_told_with_its_path(change: dict[str, Any], said: str) -> None:
    """What must be there, and what was found."""
    with pytest.raises(InputError, match=said):
        record(Outer, {"name": "a"} | change, "top")


def test_a_field_that_is_absent_is_told() -> None:
    """Where nothing stands for it."""
    with pytest.raises(InputError, match=r"top\.name is missing"):
        record(Outer, {}, "top")


def test_an_error_can_be_printed() -> None:
    """No character of it moves a terminal's cursor, and no line is without end."""
    error = MelangeError("x.json: got \x1b[2J\u202e\ud800\n" + "y" * 100_000, hint="\x07")
    assert str(error).isprintable() or str(error).replace("\n", "").isprintable()
    assert len(str(error)) < 3_000
    assert error.hint == "\\x07"
    assert printable("a\tb\nc é") == "a\tb\nc é"


@pytest.mark.parametrize("hidden", ["\n", "\t", "\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\ufe0f", "\u3164"])
def test_a_name_is_one_line_of_visible_characters(hidden: str) -> None:
    """A line end would begin a line of its own, and a zero-width character makes two names that look the same."""
    assert one_line("aws/us-east-1/g6.xlarge (Überall, 東京)", "name") == "aws/us-east-1/g6.xlarge (Überall, 東京)"
    with pytest.raises(InputError, match=re.escape(f"name must be one line of visible characters, got the character "
                                                   f"{hidden!a}")):  # fmt: skip
        one_line(f"g6{hidden}xlarge", "name")
