"""Copies of text logs without what DuckDB's readers do not accept; lines and cells are the same."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from melange.workload.file_kinds import MARK, first_bytes

_TRAILER = 8  # bytes at the end of a gzipped file: checksum and length


def plain_files(connection: Any, files: Sequence[Path], kind: str, *, is_even: bool = False) -> tuple[Path, ...]:
    """The files to read instead of ``files``: themselves, or copies that last as long as the connection.

    A byte order mark before JSON is removed, and zero bytes after a gzipped text; with ``is_even``, all line ends are
    made alike.
    """
    if kind == "parquet":
        return tuple(files)
    odd = [file for file in files if is_even or _is_padded(file) or (kind == "jsonl" and _is_marked(file))]
    if not odd:
        return tuple(files)
    folder = tempfile.TemporaryDirectory(prefix="melange-log-")
    weakref.finalize(connection, folder.cleanup)
    copies = {file: Path(folder.name, f"{number}.txt") for number, file in enumerate(odd)}
    for file, copy in copies.items():
        _write(file, copy, kind, is_even)
    return tuple(copies.get(file, file) for file in files)


def _write(file: Path, copy: Path, kind: str, is_even: bool) -> None:
    with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
        if kind == "jsonl" and _is_marked(file):
            stream.read(len(MARK))
        with copy.open("wb") as target:
            if is_even:
                _write_even(stream, target)
            else:
                shutil.copyfileobj(stream, target, 1 << 20)


def _write_even(stream: Any, target: IO[bytes]) -> None:
    """Copy a text with a line feed at the end of every line."""
    while piece := stream.read(1 << 20):
        while piece.endswith(b"\r"):
            more = stream.read(1)
            piece += more
            if not more:
                break
        target.write(piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))


def _is_marked(file: Path) -> bool:
    return first_bytes(file).startswith(MARK)


def _is_padded(file: Path) -> bool:
    """Whether zero bytes follow a gzipped text."""
    if file.suffix.lower() != ".gz":
        return False
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _TRAILER))
        return not stream.read().strip(b"\0")
