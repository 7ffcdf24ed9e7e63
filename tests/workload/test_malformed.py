from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melange.errors import InputError
from melange.workload.arrivals import read_arrivals
from melange.workload.over_time import read_demand
from melange.workload.traces import read_trace

Write = Callable[[str, str], Path]
HEADER = "arrival_s,input_tokens,output_tokens\n"


def _problem(path: object) -> str:
    with pytest.raises(InputError) as caught:
        read_trace(path)
    return str(caught.value)


@pytest.mark.heavy
def test_three_bad_rows_among_a_million_are_named_together(tmp_path: Path) -> None:
    """Text, a negative number and a missing field: each with its own line."""
    lines = [f"{row},100,20" for row in range(1_000_000)]
    lines[16] = "16,100,oops"
    lines[499_999] = "499999,-7,20"
    lines[999_998] = "999998,100"
    path = tmp_path / "million.csv"
    path.write_text(HEADER + "\n".join(lines) + "\n")
    problem = _problem(path)
    assert problem.splitlines() == [
        f"{path}: 3 malformed rows:",
        f"  {path}:18: output_tokens must be a whole number >= 0, got 'oops'",
        f"  {path}:500001: input_tokens must be a whole number >= 0, got '-7'",
        f"  {path}:1000000: Expected Number of Columns: 3 Found: 2",
    ]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("1,abc,5", "input_tokens must be a whole number >= 0, got 'abc'"),
        ("1,5.5,5", "input_tokens must be a whole number >= 0, got '5.5'"),
        ("1,nan,5", "input_tokens must be a whole number >= 0, got 'nan'"),
        ("1,5,-1", "output_tokens must be a whole number >= 0, got '-1'"),
        ("noon,5,5", "arrival_s must be a time (seconds, or like 2023-11-16 18:15:46.68), got 'noon'"),
        ("inf,5,5", "arrival_s must be a time (seconds, or like 2023-11-16 18:15:46.68), got 'inf'"),
        (",x,5", "got nothing; input_tokens must be a whole number >= 0, got 'x'"),
        ("1,5,5,5", "Expected Number of Columns: 3 Found: 4"),
    ],
)
def test_a_malformed_row_is_named(write: Write, row: str, fault: str) -> None:
    """A value that is no number, is negative or absent: the line, the field and the value."""
    problem = _problem(write("trace.csv", f"{HEADER}0,5,5\n{row}\n2,5,5\n"))
    assert "1 malformed row:" in problem
    assert "trace.csv:3: " in problem
    assert fault in problem


def test_lines_are_the_files_own(write: Write) -> None:
    """Empty lines and quoted line ends are counted as lines, though they start no row."""
    text = 'note,arrival_s,input_tokens,output_tokens\n"two\nlines",0,5,5\n\nx,1,5,bad\n\ny,2,5\nz,3,-5,5\n'
    problem = _problem(write("trace.csv", text))
    assert [line.split(": ")[0].rpartition(":")[2] for line in problem.splitlines()[1:]] == ["5", "7", "8"]


def test_many_bad_rows_are_counted_and_twenty_shown(write: Write) -> None:
    """Twenty bad rows are enough to see what is wrong; the rest is counted."""
    problem = _problem(write("trace.csv", HEADER + "1,x,5\n" * 50)).splitlines()
    assert problem[0].endswith("50 malformed rows:")
    assert len(problem) == 22
    assert problem[-1] == "  and 30 more"


def test_jsonl_lines(write: Write) -> None:
    """A line that is no JSON, and text, are named with their lines; without an output, a request has failed."""
    text = (
        '{"timestamp": 0, "input_length": 5, "output_length": 6}\n\n'
        '{"timestamp": 1, "input_length": "many", "output_length": 6}\n'
        '{"timestamp": 2, "inp\n'
        '{"timestamp": 3, "input_length": 5}\n'
    )
    lines = _problem(write("trace.jsonl", text)).splitlines()[1:]
    assert "trace.jsonl:3: input_length must be a whole number >= 0, got 'many'" in lines[0]
    assert "trace.jsonl:4: timestamp must be a time" in lines[1]
    assert len(lines) == 2


def test_parquet_rows_in_a_folder(tmp_path: Path) -> None:
    """Parquet has no lines: the file and the row are named."""
    good = pa.table({"arrival_s": [0.0, 1.0], "input_tokens": [5, 6], "output_tokens": [7, 8]})
    bad = pa.table({"arrival_s": [2.0, None], "input_tokens": [-5, 6], "output_tokens": [7, 8]})
    pq.write_table(good, tmp_path / "a.parquet")
    pq.write_table(bad, tmp_path / "b.parquet")
    lines = _problem(tmp_path).splitlines()[1:]
    assert "b.parquet:row 1: input_tokens must be a whole number >= 0, got '-5'" in lines[0]
    assert "b.parquet:row 2: arrival_s must be a time" in lines[1]


def test_table_rows() -> None:
    """A table has no rows to number: the values are told."""
    table = ibis.memtable(pa.table({"arrival_s": [0.0, 1], "input_tokens": [5, -6], "output_tokens": [7, 8]}))
    assert "trace: input_tokens must be a whole number >= 0, got '-6'" in _problem(table)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("empty.csv", "", "the file is empty"),
        ("header.csv", HEADER, "no requests: the trace has columns but no rows"),
        ("failed.csv", HEADER + "1,5,0\n2,5,0\n", "all 2 rows have no input or no output tokens"),
        ("other.csv", "time,a,b\n1,2,3\n", "no columns with request sizes; found 'time', 'a', 'b'"),
        (
            "near.csv",
            "arrival_s,input_tokens,output\n",
            "a melange trace would also have 'output_tokens' (did you mean",
        ),
        ("twice.csv", "arrival_s,input_tokens,Input_tokens\n", "must name each column once"),
        ("unnamed.csv", "arrival_s,input_tokens,output_tokens,\n0,1,1,\n", "1: column 4 has no name"),
        ("blank.csv", "\n0,1,1\n", "1: the first line is empty"),
        ("metrics.txt", "# HELP vllm:request_prompt_tokens\n", "contains metrics, not requests"),
        ("text.jsonl", "hello\n", "must be a JSON object, got 'hello'"),
        (
            "case.jsonl",
            '{"Input_tokens": 1}\n{"input_tokens": 2}\n',
            "'Input_tokens' and 'input_tokens' differ only in",
        ),
        ("short.csv", HEADER + "1,2\n", "1 malformed row:"),
        ("array.json", "[1, 2]\n", "must be a JSON object"),
        ("damaged.parquet", "PAR1 and then nothing", "cannot be read"),
        ("damaged.csv.gz", "this is not gzip", "cannot be read"),
    ],
)
def test_files_that_hold_no_trace(write: Write, name: str, text: str, problem: str) -> None:
    """Each says what was found and where."""
    assert problem in _problem(write(name, text))


def test_absent_files(tmp_path: Path) -> None:
    """A path, a pattern and a folder that stand for nothing."""
    assert "no such file" in _problem(tmp_path / "absent.parquet")
    assert "no such file" in _problem(str(tmp_path / "*.parquet"))
    assert "no Parquet, CSV or JSONL file in this folder" in _problem(tmp_path)
    assert "got int" in _problem(3)


def test_truncated_parquet(tmp_path: Path) -> None:
    """A Parquet file cut short is an error with a hint."""
    path = tmp_path / "cut.parquet"
    table = {"arrival_s": list(range(1000)), "input_tokens": [5] * 1000, "output_tokens": [5] * 1000}
    pq.write_table(pa.table(table), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"cut\.parquet: cannot be read") as caught:
        read_trace(path)
    assert "truncated or damaged" in caught.value.hint


def test_csv_lines_in_a_folder(write: Write, tmp_path: Path) -> None:
    """Each file's lines are its own, for values and for shapes."""
    write("a.csv", HEADER + "0,5,5\n1,5,5\n")
    write("b.csv", HEADER + "2,5,5\n3,5\n4,-5,5\n")
    write("c.csv", HEADER + "5,x,5\n")
    lines = _problem(tmp_path).splitlines()[1:]
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines] == ["b.csv:3", "b.csv:4", "c.csv:2"]


def test_files_that_are_not_alike(write: Write, tmp_path: Path) -> None:
    """Files of different kinds, or with different columns, are no one trace."""
    write("a.csv", HEADER + "0,5,5\n")
    write("b.csv", "arrival_s,output_tokens,input_tokens\n0,5,5\n")
    assert "b.csv: columns differ" in _problem(tmp_path)
    write("c.jsonl", '{"arrival_s": 0}\n')
    assert "files of different kinds: csv, jsonl" in _problem(tmp_path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A line in another encoding is named."""
    path = tmp_path / "trace.csv"
    path.write_bytes(HEADER.encode() + b"0,5,5\n\xff\xfe,5,5\n1,5,5\n")
    assert "trace.csv:3: " in _problem(path)


@pytest.mark.parametrize("form", ["csv", "quoted.csv", "jsonl", "absent.jsonl", "strings.csv", "json"])
@pytest.mark.parametrize("kind", ["input", "output"])
def test_rows_without_a_size_have_failed(write: Write, form: str, kind: str) -> None:
    """Empty cells, null and absent keys: the rows are skipped, counted and reported, as those of 0 tokens are."""
    other = {"input": "output", "output": "input"}[kind]
    rows = [{"arrival_s": n, f"{other}_tokens": 5, f"{kind}_tokens": None if n % 3 == 1 else 7} for n in range(300)]
    if form.endswith("csv"):
        empty = '""' if form.startswith("quoted") else ""
        shown = [[empty if cell is None else str(cell) for cell in row.values()] for row in rows]
        if form.startswith("strings"):  # a column that is no number at first is read as text
            shown[0] = ["1970-01-01 00:00:00Z", *shown[0][1:]]
        text = "\n".join([",".join(rows[0]), *(",".join(cells) for cells in shown), ""])
    elif form == "absent.jsonl":
        text = "\n".join(json.dumps({k: v for k, v in row.items() if v is not None}) for row in rows)
    else:
        text = json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows))
    path = write(f"log.{form}", text)
    found = read_trace(path)
    assert (found.requests, found.failed_requests) == (200, 100)
    assert found.total_rate == pytest.approx(200 / 299)
    assert "failed-rows" in [one.kind for one in found.cautions]
    assert read_arrivals(path).arrival_s.tolist() == [n for n in range(300) if n % 3 != 1]
    assert read_demand(path, window_s=60).failed_requests == 100


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.float64(), pa.string()])
@pytest.mark.parametrize("is_table", [False, True])
def test_null_in_parquet_and_tables_is_a_failed_request(tmp_path: Path, kind: pa.DataType, is_table: bool) -> None:
    """In columns of every type, but not beside a value that is malformed."""
    sizes = pa.array([5, None, 7, 9], pa.int64()).cast(kind)
    table = pa.table({"arrival_s": [0.0, 1.0, 2.0, 4.0], "input_tokens": [5, 5, None, 5], "output_tokens": sizes})
    pq.write_table(table, tmp_path / "log.parquet")
    found = read_trace(ibis.memtable(table) if is_table else tmp_path / "log.parquet")
    assert (found.requests, found.failed_requests, found.total_rate) == (2, 2, pytest.approx(2 / 4))
    broken = pa.concat_tables([table, table.set_column(1, "input_tokens", pa.array([5, -6, None, 5]))])
    pq.write_table(broken, tmp_path / "log.parquet")
    problem = _problem(ibis.memtable(broken) if is_table else tmp_path / "log.parquet")
    assert "1 malformed row:" in problem
    assert "input_tokens must be a whole number >= 0, got '-6'" in problem


def test_a_line_that_is_no_json_is_malformed_without_arrivals_too(write: Write) -> None:
    """It has neither size, so it is no request that failed."""
    text = '{"input_tokens": 5, "output_tokens": 6}\n{"input_tokens": 5, "outp\n{"input_tokens": 5}\n'
    with pytest.raises(InputError, match="1 malformed row") as caught:
        read_trace(write("log.jsonl", text), request_rate=1.0)
    assert "log.jsonl:2: " in str(caught.value)


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ("01/03/2026 14:05:09,5,5", "write times in ISO 8601, as 2026-03-01 14:05:09.25"),
        ("01/Mar/2026:14:05:09 +0000,5,5", "write times in ISO 8601"),
        ('"1,5",5,5', "write numbers with a decimal point"),
        ('1,"1,234",5', "write numbers with a decimal point, and without commas"),
        ('1,"say \\"5, 5\\"",5', "a quote within a quoted cell is doubled"),
        ("1,x,5", "fix or remove them; failed requests have no output tokens, or 0"),
        ("nan,5,5", "fix or remove them"),
    ],
)
def test_the_hint_is_about_what_cannot_be_read(write: Write, row: str, hint: str) -> None:
    """Formats of times and numbers, and quotes."""
    with pytest.raises(InputError) as caught:
        read_trace(write("trace.csv", f"{HEADER}0,5,5\n{row}\n2,5,5\n"))
    assert hint in caught.value.hint


@pytest.mark.parametrize("options", [{}, {"window_s": 1.0, "rate": "max"}])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_arrival_that_is_no_number_is_named_in_parquet(
    tmp_path: Path, value: float, options: dict[str, Any]
) -> None:
    """Although the statistics of the file leave it out."""
    path = tmp_path / "log.parquet"
    times = [0.0, 1.0, value, *map(float, range(3, 60))]
    pq.write_table(pa.table({"arrival_s": times, "input_tokens": [5] * 60, "output_tokens": [5] * 60}), path)
    for read in (lambda: read_trace(path, **options), lambda: read_demand(path, window_s=1)):
        with pytest.raises(InputError, match=r"log\.parquet:row 3: arrival_s must be a time"):
            read()


@pytest.mark.parametrize("value", ["[120]", "[]", '{"a": 1}', "{}"])
@pytest.mark.parametrize("field", ["input_tokens", "output_tokens"])
def test_lists_and_objects_are_no_numbers(write: Write, field: str, value: str) -> None:
    """Such a row is malformed; only a missing value is a request that failed."""
    rows = [{"arrival_s": n, "input_tokens": 100, "output_tokens": 10} for n in range(9)]
    text = "".join(json.dumps(row) + "\n" for row in rows).replace(f'"{field}": 1', f'"{field}": {value}, "x": 1', 1)
    assert f"1: {field} must be a whole number >= 0, got '{value.replace(': ', ':')}'" in _problem(
        write("l.jsonl", text)
    )
    failed = write("f.jsonl", text.replace(value, "null"))
    assert read_trace(failed).failed_requests == 1
