"""What a log's file is, by its name and by its first bytes; archives and other kinds of files are errors."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from melange.errors import InputError

_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
MARK = b"\xef\xbb\xbf"  # the byte order mark of UTF-8
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_UNPACK, _SAVE = "unpack it", "save it as Parquet, CSV or JSONL"
_AS_UTF8 = "save it as UTF-8, for example with iconv -f UTF-16 -t UTF-8"
# The first bytes of files that are no logs, what they are, and what helps.
_OTHERS = {
    b"PK\x03\x04": ("a zip archive", _UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed with Zstandard", "unpack it with zstd -d"),
    b"\xfd7zXZ": ("compressed with xz", "unpack it with unxz"),
    b"BZh": ("compressed with bzip2", "unpack it with bunzip2"),
    b"ARROW1": ("an Arrow file", _SAVE),
    b"ORC": ("an ORC file", _SAVE),
    b"Obj\x01": ("an Avro file", _SAVE),
    b"SQLite format 3": ("a SQLite database", _SAVE),
    b"\xff\xfe": ("UTF-16 text", _AS_UTF8),
    b"\xfe\xff": ("UTF-16 text", _AS_UTF8),
}
_LOOKED_AT = 512
_TAR = slice(257, 262)  # where a tar archive holds the word "ustar"


def kind_by_suffix(file: Path) -> str | None:
    """``parquet``, ``csv`` or ``jsonl``; None if the name does not say."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


def kind_of(file: Path) -> str:
    """``parquet``, ``csv`` or ``jsonl``, by the name of a file or else by its first bytes.

    Raises
    ------
    InputError
        The file cannot be read, or its first bytes are those of another kind of file.
    """
    begin = first_bytes(file)
    kind = kind_by_suffix(file)
    if begin.startswith(_PARQUET):
        if kind in ("csv", "jsonl"):
            raise InputError(f"{file}: is a Parquet file", hint=f"rename it to {file.stem}.parquet")
        return "parquet"
    if begin.startswith(_GZIP):
        what, hint = "gzipped", f"rename it to {file.name}.gz"
        raise InputError(
            f"{file}: is {'gzipped twice' if _is_gz(file) else what}", hint=_UNPACK if _is_gz(file) else hint
        )
    for magic, (what, hint) in _OTHERS.items():
        if begin.startswith(magic):
            raise InputError(f"{file}: is {what}", hint=hint)
    if begin[_TAR] == b"ustar":
        raise InputError(f"{file}: is a tar archive", hint=_UNPACK)
    if begin[:7] in (b"# HELP ", b"# TYPE "):
        raise InputError(f"{file}: contains metrics, not requests", hint="read it as metrics: workload: {metrics: ...}")
    if kind != "parquet" and b"\0" in begin:
        is_wide = any(begin[0:20:2].strip(b"\0")) != any(begin[1:20:2].strip(b"\0"))  # zeros at every second place
        what, hint = ("UTF-16 text", _AS_UTF8) if is_wide else ("not a text file", _SAVE)
        raise InputError(f"{file}: is {what}", hint=hint)
    return kind or ("jsonl" if begin.removeprefix(MARK).lstrip()[:1] == b"{" else "csv")


def first_bytes(file: Path) -> bytes:
    """The first bytes of a file, decompressed if it is gzipped; empty if it is damaged."""
    try:
        with gzip.open(file) if _is_gz(file) else file.open("rb") as stream:
            return stream.read(_LOOKED_AT)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return b""
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error


def _is_gz(file: Path) -> bool:
    return file.suffix.lower() == ".gz"
