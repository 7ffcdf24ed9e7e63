"""The files that pass between stages: one JSON document each, replaced whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from melange.errors import InputError
from melange.parsing import parse_json
from melange.records import reading

# Bytes of a text that is read whole. The largest that people have are reports of load tests with every request in them;
# parsed, the worst text of this length takes 3 GB.
_MOST_BYTES = 128 << 20
Json = dict[str, Any]
Noun = TypeVar("Noun")


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` to ``path`` atomically: a reader sees the old file or the new one, never a half.

    Raises
    ------
    InputError
        When the folder is absent or not writable; nothing is left behind.
    """
    target = Path(path)
    try:
        descriptor, draft = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written: {error.strerror}",
            hint="give a path in a folder that exists and is yours",
        ) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        umask = os.umask(0)
        os.umask(umask)
        Path(draft).chmod(0o666 & ~umask)
        Path(draft).replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(draft).unlink()
        if isinstance(error, OSError):
            raise InputError(f"{target}: cannot be written: {error.strerror}") from error
        raise
    return target


def write_document(path: str | Path, kind: str, content: Json) -> Path:
    """Write one stage's document, tagged with its kind and version."""
    return write_text(path, dump_document(kind, content) + "\n")


def dump_document(kind: str, content: Json) -> str:
    """One stage's document as JSON text; the tag comes first."""
    return json.dumps({"melange": f"{kind}/1", **content}, ensure_ascii=False, allow_nan=False)


def read_document(path: str | Path, kind: str) -> Json:
    """Read one stage's document and check that it is one.

    Raises
    ------
    InputError
        When the file is absent, is not JSON or holds another kind of document.
    """
    content = read_json(path)
    tag = content.get("melange")
    if tag is None:
        raise InputError(f"{path}: not a melange {kind} file: the key 'melange' is absent")
    name, _, version = str(tag).partition("/")
    if name != kind:
        raise InputError(f"{path}: holds a {name}, and a {kind} is needed")
    if version != "1":
        raise InputError(
            f"{path}: {kind} format {version} is newer than this release reads (1)", hint="upgrade melange"
        )
    return content


def read_as(path: str | Path, kind: str, parse: Callable[[Json], Noun]) -> Noun:
    """Read one stage's document and make its noun of it.

    Raises
    ------
    InputError
        As :func:`read_document`; also when something in the document is absent or is no such thing.
    """
    content = read_document(path, kind)
    try:
        with reading(f"{path}", f"a {kind} as melange writes it"):
            return parse(content)
    except InputError as error:
        is_placed = str(error).startswith(f"{path}: ")
        raise InputError(f"{'' if is_placed else f'{path}: '}{error}", hint=error.hint) from error


def read_json(path: str | Path, *, infinity: bool = False) -> Json:
    """Read a JSON object, with infinite numbers where asked; errors name the file and, for bad JSON, the line."""
    content = parse_json(read_text(path), f"{path}", infinity=infinity)
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a JSON object, got {type(content).__name__}")
    return content


def read_text(path: str | Path) -> str:
    """Read a text file of at most 128 MiB; errors name the file and the reason."""
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error  # a NUL in its name
    if len(content) > _MOST_BYTES:
        raise InputError(f"{path}: is larger than {_MOST_BYTES >> 20} MiB")
    try:
        return content.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file (byte {error.start} is not UTF-8)") from error
