"""Files that would take very long to read: compressed ones of an enormous size, and very wide ones."""

from __future__ import annotations

import gzip
from pathlib import Path

from melange.errors import InputError

# Most times its own size that a log may expand to. Request logs expand to 4 to 20 times their size, and gzip to 1,032
# times at most; a log that expands to less than the free amount [bytes] is harmless.
_MOST_TIMES, _FREE_BYTES = 200, 64 << 20
# Bytes of a compressed text that are decompressed for the check: less than a second.
_LOOKED_AT = 256 << 20
_PIECE = 1 << 20
# A query takes a millisecond per column before it starts. Chosen by judgment.
_MOST_COLUMNS = 5_000
# Rows of a Parquet file per byte: dozens for repeated rows, less than one for requests at different times.
_MOST_ROWS_PER_BYTE, _FREE_ROWS = 20, 1_000_000


def check_packed(file: Path) -> None:
    """Reject a gzipped text that expands far more than logs do.

    Raises
    ------
    InputError
        The text expands to more than 200 times its size.
    """
    unpacked = 0
    with file.open("rb") as raw, gzip.open(raw) as stream:
        while piece := stream.read(_PIECE):
            unpacked += len(piece)
            if unpacked > _FREE_BYTES and unpacked > _MOST_TIMES * raw.tell():
                raise _endless(file)
            if unpacked > _LOOKED_AT:
                return


def check_promise(file: Path, rows: int, unpacked_bytes: int) -> None:
    """Reject a Parquet file that claims far more content than its size allows for a log.

    Raises
    ------
    InputError
        More than 20 rows per byte, or more than 200 times its size.
    """
    size = file.stat().st_size
    if rows > max(_FREE_ROWS, _MOST_ROWS_PER_BYTE * size) or unpacked_bytes > max(_FREE_BYTES, _MOST_TIMES * size):
        raise _endless(file)


def check_width(place: str | Path, columns: int) -> None:
    """Reject a log with far more columns than logs have.

    Raises
    ------
    InputError
        More than 5,000 columns.
    """
    if columns > _MOST_COLUMNS:
        raise InputError(
            f"{place}: has {columns:,} columns, and at most {_MOST_COLUMNS:,} are read",
            hint="keep only arrival times, sizes, and what where: needs",
        )


def _endless(file: Path) -> InputError:
    return InputError(
        f"{file}: unpacks to more than {_MOST_TIMES} times its size, unlike any request log",
        hint="if it is one, unpack it first, or export it again",
    )
