"""Log files as machines and people leave them: joined, marked, packed, in another encoding or of another kind."""

from __future__ import annotations

import gzip
import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melange.errors import InputError
from melange.workload.arrivals import read_arrivals
from melange.workload.traces import read_trace

HEADER = "arrival_s,input_tokens,output_tokens"
ROWS = [f"{n},{100 + n},10" for n in range(601)]
OBJECTS = [json.dumps({"timestamp": n, "input_tokens": 100 + n, "output_tokens": 10}) for n in range(601)]
RATE = 601 / 600
TEXT = "\n".join([HEADER, *ROWS, ""]).encode()


def written(path: Path, content: bytes) -> Path:
    """Write bytes and return the path."""
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("first", "second"), [("\r\n", "\n"), ("\n", "\r\n"), ("\n", "\r")])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_line_ends_of_two_machines(tmp_path: Path, first: str, second: str, suffix: str) -> None:
    """A log joined from two machines is read; its malformed rows have the file's own lines."""
    good = first.join([HEADER, *ROWS[:300], ""]) + second.join([*ROWS[300:], ""])
    packed = gzip.compress if suffix.endswith("gz") else bytes
    path = written(tmp_path / f"log{suffix}", packed(good.encode()))
    assert read_trace(path).total_rate == pytest.approx(RATE)
    assert read_arrivals(path).input_tokens.tolist() == [100 + n for n in range(601)]
    written(path, packed((good + second.join(["601,5,oops", "602,5", ""])).encode()))
    with pytest.raises(InputError, match="2 malformed rows") as caught:
        read_trace(path)
    assert f"{path}:603: output_tokens must be" in str(caught.value)
    assert f"{path}:604: Expected Number of Columns: 3 Found: 2" in str(caught.value)


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz", "log", "log.json", "log.csv"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str) -> None:
    """In JSONL, a JSON list and CSV; the first row counts, and lines are the file's own."""
    lines = {"log.json": f"[{','.join(OBJECTS)}]".encode(), "log.csv": TEXT}.get(name, "\n".join(OBJECTS).encode())
    content = b"\xef\xbb\xbf" + lines
    path = written(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    found = read_trace(path)
    assert (found.requests, found.total_rate) == (601, pytest.approx(RATE))
    if name == "log.jsonl":
        written(path, content.replace(b'"output_tokens": 10', b'"output_tokens": -1', 1))
        with pytest.raises(InputError, match=r"log\.jsonl:1: output_tokens must be a whole number >= 0, got '-1'"):
            read_trace(path)


def test_zeros_after_a_gzipped_text_are_padding(tmp_path: Path) -> None:
    """As tapes and some object stores leave them."""
    path = written(tmp_path / "log.csv.gz", gzip.compress(TEXT) + bytes(1000))
    assert read_trace(path).total_rate == pytest.approx(RATE)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_parquet_times_of_every_unit(tmp_path: Path, unit: str, zone: str | None) -> None:
    """With nanoseconds and a zone too, as pandas writes zoned times."""
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    moments = [begin + timedelta(seconds=n) for n in range(601)]
    times = pa.array([m if zone else m.replace(tzinfo=None) for m in moments], pa.timestamp(unit, zone))
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"timestamp": times, "input_tokens": [9] * 601, "output_tokens": [9] * 601}), path)
    assert read_trace(path).total_rate == pytest.approx(RATE)
    assert read_trace(path, start="2026-03-01T00:05", end="2026-03-01T00:06").requests == 60


@pytest.mark.parametrize(
    ("name", "content", "problem", "hint"),
    [
        ("log.csv", gzip.compress(TEXT), "is gzipped", "rename it to log.csv.gz"),
        ("log", gzip.compress(TEXT), "is gzipped", "rename it to log.gz"),
        ("log.csv.gz", gzip.compress(gzip.compress(TEXT)), "is gzipped twice", "unpack it"),
        ("log.csv", b"\x28\xb5\x2f\xfd\x04\x00", "is compressed with Zstandard", "zstd -d"),
        ("log.zst", b"\x28\xb5\x2f\xfd\x04\x00", "is compressed with Zstandard", "zstd -d"),
        ("log.csv", TEXT.decode().encode("utf-16"), "is UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
        ("log.csv", TEXT.decode().encode("utf-16-le"), "is UTF-16 text", "iconv"),
        ("log.csv", TEXT.decode().encode("utf-16-be"), "is UTF-16 text", "iconv"),
        ("log.jsonl", "\n".join(OBJECTS).encode("utf-16"), "is UTF-16 text", "iconv"),
        ("log.csv", b"abc\x00\x01\x02def,1,2\n", "is not a text file", "save it as Parquet, CSV or JSONL"),
        ("log.csv", b"PAR1\x15\x04", "is a Parquet file", "rename it to log.parquet"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, content: bytes, problem: str, hint: str) -> None:
    """What they are, and what helps, without their bytes."""
    path = written(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        read_trace(path)
    assert str(caught.value) == f"{path}: {problem}"
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["log.zip", "log.csv", "log.jsonl", "log.parquet"])
def test_a_zip_archive_is_named(tmp_path: Path, name: str) -> None:
    """Whatever its name."""
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("log.csv", TEXT)
    with pytest.raises(InputError, match=r"is a zip archive$") as caught:
        read_trace(path)
    assert caught.value.hint == "unpack it"


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_very_wide_files_are_refused(tmp_path: Path, form: str) -> None:
    """A query would take minutes before it starts."""
    row = {"arrival_s": 0, "input_tokens": 5, "output_tokens": 5} | {f"c{n}": 1 for n in range(20_000)}
    path = tmp_path / f"log.{form}"
    if form == "parquet":
        pq.write_table(pa.table({name: [value] for name, value in list(row.items())[:5_001]}), path)
    else:
        text = json.dumps(row) if form == "jsonl" else f"{','.join(row)}\n{','.join(map(str, row.values()))}\n"
        path.write_text(text)
    with pytest.raises(InputError, match=r"has (5,001|20,003) columns, and at most 5,000 are read") as caught:
        read_trace(path)
    assert "keep only" in caught.value.hint


def test_quotes_that_are_not_csv_are_named(tmp_path: Path) -> None:
    """A quote after a backslash: the line, and how quotes are written."""
    rows = [f'{n},5,5,"say \\"hi\\" to, me"' if n == 7 else f"{n},5,5,x" for n in range(20)]
    path = written(tmp_path / "log.csv", "\n".join([f"{HEADER},note", *rows, ""]).encode())
    with pytest.raises(InputError, match=r"log\.csv:9: ") as caught:
        read_trace(path)
    assert "doubled" in caught.value.hint
