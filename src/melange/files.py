"""The files that pass between stages: one JSON document each, replaced whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from melange.errors import InputError
from melange.parsing import parse_json
from melange.records import reading, shown

# Bytes of a text that is read whole. The largest that people have are reports of load tests with every request in them;
# parsed, the worst text of this length takes 1.5 GB.
_MOST_BYTES = 64 << 20
# How drafts end, by which they are known; before it stands the process that writes.
_DRAFT = ".draft"
# Writing takes seconds: whatever process a draft of an hour ago [s] belonged to, it is not at work on it.
_OLD_S = 4_000.0
Json = dict[str, Any]
Noun = TypeVar("Noun")


# Bytes of a path and of a part of it, on all systems that we run on.
_MOST_PATH, _MOST_PART = 4_096, 255


def path_of(name: str | Path) -> Path:
    """A path that a file or a flag names, ``~`` expanded.

    Raises
    ------
    InputError
        A name that no file can have: the system's calls would fail with it, each in its own way.
    """
    text = str(name)
    # What it names is no file where it is a pattern or NAME=PATH, which is for the caller to find out.
    encoded = os.fsencode(text)
    if "\0" in text or len(encoded) > _MOST_PATH or any(len(part) > _MOST_PART for part in encoded.split(b"/")):
        raise InputError(f"{shown(text)}: no file can have this name")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{shown(text)}: the home folder is not known", hint="write the path without ~") from error


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` to ``path`` atomically: a reader sees the old file or the new one, never a half.

    The draft is on the disk before it takes the file's place, and the next run removes the draft of one that was
    killed.

    Raises
    ------
    InputError
        When the folder is absent or not writable, or the disk is full; nothing is left behind.
    """
    write_texts({Path(path): text})
    return Path(path)


def write_texts(text_by_path: Mapping[Path, str]) -> None:
    """Write several files, each atomically; all of them are on the disk before the first takes its place.

    Raises
    ------
    InputError
        As :func:`write_text`: where the disk is full none of them is replaced.
    """
    draft_by_target: dict[Path, Path] = {}
    try:
        for target, text in text_by_path.items():
            if _is_device(target):
                _write_into(target, text)
            else:
                _draft(target, text, draft_by_target)
        for target, draft in draft_by_target.items():
            try:
                draft.replace(target)
            except OSError as error:
                raise InputError(f"{target}: cannot be written: {error.strerror}") from error
        for folder in dict.fromkeys(target.parent for target in draft_by_target):
            _sync_folder(folder)
    except BaseException:
        for draft in draft_by_target.values():
            with contextlib.suppress(OSError):
                draft.unlink()
        raise


def _draft(target: Path, text: str, draft_by_target: dict[Path, Path]) -> None:
    """Write what is to take the place of a file beside it, and keep its name from the first moment on."""
    prefix = f".{target.name}."
    try:
        _remove_drafts(target.parent, prefix)
        descriptor, name = tempfile.mkstemp(prefix=f"{prefix}{os.getpid()}.", suffix=_DRAFT, dir=target.parent)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{target}: cannot be written: {error.strerror if isinstance(error, OSError) else error}",
            hint="give a path in a folder that exists and is yours",
        ) from error
    draft = draft_by_target[target] = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            # Else a machine that loses power may keep the new name and not the new content.
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        draft.chmod(0o666 & ~umask)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from error


def _is_device(path: Path) -> bool:
    """Whether a path is a device or a pipe (``/dev/stdout``): what is replaced there is lost to everybody."""
    try:
        return path.exists() and not (path.is_file() or path.is_dir())
    except (OSError, ValueError):
        return False


def _write_into(device: Path, text: str) -> None:
    try:
        with device.open("w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise InputError(f"{device}: cannot be written: {error.strerror}") from error


def _remove_drafts(folder: Path, prefix: str) -> None:
    """Remove what runs that were killed have left of a file; drafts of runs that are at work stay."""
    with contextlib.suppress(OSError):
        for draft in folder.glob(f"{glob.escape(prefix)}*{_DRAFT}"):
            process = draft.name.removeprefix(prefix).partition(".")[0]
            is_old = time.time() - draft.stat().st_mtime > _OLD_S  # its process's number may be another's by now
            if process.isdecimal() and (is_old or not _is_running(int(process))):
                draft.unlink()


def _is_running(process: int) -> bool:
    if sys.platform == "win32":
        return True  # there signal 0 is no question: drafts go by their age alone
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # another user's
    return True


def _sync_folder(folder: Path) -> None:
    """Let the new name be on the disk too, where folders can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
    """Read a text file of at most 64 MiB; errors name the file and the reason."""
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
