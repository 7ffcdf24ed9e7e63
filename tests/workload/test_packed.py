"""Logs that are small on the disk and endless once they are unpacked."""

from __future__ import annotations

import gzip
from pathlib import Path

import duckdb
import numpy as np
import pytest

from melange.errors import InputError
from melange.workload.packed import check_promise
from melange.workload.traces import read_trace

HEAD = "arrival_s,input_tokens,output_tokens\n"


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    """80 MB of zeros in 80 KB; before any of it is read as a table."""
    with gzip.open(tmp_path / "log.csv.gz", "wb") as stream:
        for _ in range(80):
            stream.write(bytes(1 << 20))
    with pytest.raises(InputError, match=r"log\.csv\.gz: unpacks to more than 200 times its size"):
        read_trace(tmp_path / "log.csv.gz")


def test_a_parquet_bomb_is_refused(tmp_path: Path) -> None:
    """A text of 20 MB a row, which its dictionary holds once."""
    path = tmp_path / "log.parquet"
    duckdb.sql(
        "COPY (SELECT 0.5 * i AS arrival_s, 9 AS input_tokens, 9 AS output_tokens, "
        f"repeat(chr(97 + i::INT), 20000000) AS x FROM range(8) t(i)) TO '{path}' (FORMAT parquet, COMPRESSION zstd)"
    )
    assert path.stat().st_size < 200_000
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        read_trace(path)


def test_promises_are_measured_by_the_file(tmp_path: Path) -> None:
    """As many rows as logs hold in this many bytes pass."""
    path = tmp_path / "log.parquet"
    path.write_bytes(bytes(1_000_000))
    check_promise(path, 20_000_000, 200_000_000)
    with pytest.raises(InputError, match="unpacks"):
        check_promise(path, 20_000_001, 0)
    with pytest.raises(InputError, match="unpacks"):
        check_promise(path, 0, 200_000_001)


def test_a_log_of_requests_is_none(tmp_path: Path) -> None:
    """Packed, it is a tenth of its size."""
    rng = np.random.default_rng(1)
    rows = "".join(f"{n * 0.1:.1f},{rng.integers(1, 4000)},{rng.integers(1, 900)}\n" for n in range(5_000))
    with gzip.open(tmp_path / "log.csv.gz", "wt") as stream:
        stream.write(HEAD + rows)
    assert read_trace(tmp_path / "log.csv.gz").requests == 5_000
