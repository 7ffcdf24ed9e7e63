"""JSON, YAML and CSV within limits: what is refused, and where it says that it is."""

from __future__ import annotations

import math

import pytest

from melange.errors import InputError
from melange.parsing import csv_rows, parse_json, parse_yaml, table_rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "is nested deeper than 64 levels"),
        ("[" * 65 + "]" * 65, r"\[0\]\[0\].* is nested deeper than 64 levels"),
        ('{"a": [1, NaN]}', r"f: a\[1\] must be a number, got NaN"),
        ('{"a": -Infinity}', "f: a must be finite"),
        ('{"a": 1e999}', "f: a must be finite"),
        ('{"a": {"b": 123456789012345678901234567890}}', r"f: a\.b must be smaller than 2\^63"),
        ('{"a": 9223372036854775808}', r"f: a must be smaller than 2\^63"),
        ("9" * 5_000, r"must be smaller than 2\^63"),
        ('{"a": 1e39}', r"f: a must be smaller than 2\^128"),
        ('{"a": -1e300}', r"f: a must be smaller than 2\^128"),
        ('["\\ud800"]', r"f: \[0\] holds a lone surrogate"),
        ('{"\\udfff": 1}', "f: a key in the document holds a lone surrogate"),
        ('{"a": 1,}', "f: not valid JSON: "),
        ('{"a": 1,\n"b": }', "f:2: not valid JSON: "),
    ],
)
def test_json_that_no_document_may_hold(text: str, said: str) -> None:
    """With the path to it, or the line where it is no JSON at all."""
    with pytest.raises(InputError, match=said):
        parse_json(text, "f")


def test_json_that_is_sound() -> None:
    """Numbers up to the limits, 64 levels, a mark of byte order, and infinity where it is asked for."""
    assert parse_json('\ufeff{"a": 9223372036854775807, "b": -3.4e38, "é": "\\ud83d\\ude00"}', "f")["a"] == 2**63 - 1
    assert parse_json("[" * 64 + "]" * 64, "f")
    assert parse_json("[Infinity]", "f", infinity=True) == [math.inf]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [" + "[" * 200_000, "f:2: nested deeper than 64 levels"),
        ("a: 1\na: 2", "f:2: the key 'a' is given twice"),
        ("a: .nan", "f:1: must be a number, got NaN"),
        ("a: -.inf", "f:1: must be finite"),
        ("a: 1\nb: " + "9" * 30, r"f:2: must be smaller than 2\^63"),
        ("a: " + "9" * 5_000, "f:1: .* is not a valid int"),
        ("a: 1.0e+300", r"f:1: must be smaller than 2\^128"),
        ("a: !!int x", "f:1: 'x' is not a valid int"),
        ("a: !!timestamp 2026-99-99", "is not a valid timestamp"),
        ('a: "\\ud800"', "f:1: holds a lone surrogate"),
        ("a: &x [*x]", "refers to itself"),
        ("a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30)), "20,000 values"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: 1\nb: 010", "f:2: YAML reads 010 as a number to base 8: write no leading zero"),
        ("a: 1:30", "f:1: YAML reads 1:30 as a number to base 60: write a duration such as 1h30m, or quote it"),
        ("a: {b", "f:1: not valid YAML"),
        ("x" * 300_000, "is longer than 262,144 characters"),
    ],
)
def test_yaml_that_no_document_may_hold(text: str, said: str) -> None:
    """With its line."""
    with pytest.raises(InputError, match=said):
        parse_yaml(text, "f")


def test_dates_stay_as_they_are_written() -> None:
    """What is made of them is for those who know what the key means."""
    found = parse_yaml("{from: 2026-11-25, to: 2026-13-45, at: &t 12, again: *t, more: {<<: {c: 1}, d: 2}}", "f")
    assert found == {"from": "2026-11-25", "to": "2026-13-45", "at": 12, "again": 12, "more": {"c": 1, "d": 2}}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_only_line_ends_end_a_row(end: str, inside: str) -> None:
    """Separators that Python also counts as line ends may be part of a cell."""
    text = end.join(["\ufeffa,source", f"1,x{inside}y", "2,z", ""])
    assert list(table_rows(text, "f")) == [(1, ["a", "source"]), (2, ["1", f"x{inside}y"]), (3, ["2", "z"])]


def test_rows_of_a_table_have_the_lines_that_they_start_on() -> None:
    """Empty lines are no rows, a quoted cell may go over several lines."""
    lines = ["a,b\n", "\n", '1,"x\n', 'y"\n', "2,3\n"]
    assert list(csv_rows(lines, "f")) == [(1, ["a", "b"]), (3, ["1", "x\ny"]), (5, ["2", "3"])]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('a,b\n1,"x' + "x" * 200_000, "f:2: not valid CSV: a cell is longer than 131,072 characters"),
        ('a,b\n1,"x\n2,3\n', "f:2: not valid CSV: unexpected end of data"),
        ('a,b\n1,"x"y\n', "f:2: not valid CSV: "),
    ],
)
def test_a_quote_that_is_not_closed_is_no_cell(text: str, said: str) -> None:
    """Else the rest of the file would be one."""
    with pytest.raises(InputError, match=said):
        list(csv_rows(text.splitlines(keepends=True), "f"))


@pytest.mark.parametrize(
    ("text", "value"), [("1e2", 100.0), ("-2.5E-3", -0.0025), (".5e+1", 5.0), ("1e2x", "1e2x"), ("'1e2'", "1e2")]
)
def test_a_number_with_an_exponent_is_a_number(text: str, value: object) -> None:
    """As in JSON, also without a point; in quotes it is text."""
    assert parse_yaml(f"rate: {text}", "f") == {"rate": value}


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("-0", 0), ("0.5", 0.5), ("'010'", "010"), ("'1:30'", "1:30"), ("0x1f", 31)]
)
def test_only_unclear_numbers_are_refused(text: str, value: object) -> None:
    """Zero, fractions and quoted text may begin with a zero."""
    assert parse_yaml(f"a: {text}", "f") == {"a": value}
