"""The files passed between stages: one JSON document each, replaced atomically."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from melange.errors import InputError
from melange.parsing import parse_json
from melange.records import reading, shown

# Largest text file that is read whole [bytes]. The largest in practice are load-test reports with every request;
# parsed, the worst text of this length takes 1.5 GB.
_MOST_BYTES = 64 << 20
# Ending of draft files; the writing process's id comes before it.
_DRAFT = ".draft"
# Writing takes seconds: no process is still working on a draft that is an hour old [s].
_OLD_S = 4_000.0
Json = dict[str, Any]
Noun = TypeVar("Noun")


# Longest path and longest path component [bytes] on all supported systems.
_MOST_PATH, _MOST_PART = 4_096, 255


# The beginning of a document, and how much of a file shows it.
_INPUTS = (".yaml", ".yml", ".csv", ".jsonl", ".parquet")
_TAG, _HEAD = re.compile(r'\s*\{\s*"melange"\s*:\s*"([\w-]+)/'), 500


def path_of(name: str | Path) -> Path:
    """A path that a file or a flag names, ``~`` expanded.

    Raises
    ------
    InputError
        A name that no file can have; system calls would fail with various errors.
    """
    text = str(name)
    # A pattern or NAME=PATH names no file; the caller handles those.
    encoded = os.fsencode(text)
    if "\0" in text or len(encoded) > _MOST_PATH or any(len(part) > _MOST_PART for part in encoded.split(b"/")):
        raise InputError(f"{shown(text)}: no file can have this name")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{shown(text)}: the home folder is not known", hint="write the path without ~") from error


def path_in(folder: Path, name: str) -> Path:
    """A path that a file names, relative to the file's folder.

    Where ``MELANGE_WITHIN`` names folders, nothing outside of them is read: servers plan services of others.

    Raises
    ------
    InputError
        Such a path, or a name that no file can have.
    """
    found = folder / path_of(name)
    if (within := confined_to()) and not any(found.resolve().is_relative_to(one) for one in within):
        raise InputError(f"{shown(name)}: files outside of the service's folder are not read here")
    return found


def confined_to() -> tuple[Path, ...]:
    """The only folders whose files may be read, as ``MELANGE_WITHIN`` says, separated as in ``PATH``; none: all."""
    return tuple(Path(one).resolve() for one in os.environ.get("MELANGE_WITHIN", "").split(os.pathsep) if one)


def check_remote(place: str, what: str) -> None:
    """Refuse to read what is on other machines, with the user's own rights, for a service of somebody else.

    Parameters
    ----------
    place
        The key that names it.
    what
        What it names, in the plural.

    Raises
    ------
    InputError
        Where files are confined to a folder, unless ``MELANGE_REMOTE=1``.
    """
    if confined_to() and os.environ.get("MELANGE_REMOTE") != "1":
        raise InputError(f"{place}: {what} are not read here", hint="upload the log as a file, or give its workload")


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` to ``path`` atomically: a reader sees the old file or the new one, never a part.

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
            hint="choose a path in an existing folder that you can write to",
        ) from error
    draft = draft_by_target[target] = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            # Without this, a power failure may leave the new name without the new content.
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        draft.chmod(0o666 & ~umask)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from error


def _is_device(path: Path) -> bool:
    """Whether a path is a device or a pipe (``/dev/stdout``), which must not be replaced by a file."""
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
    """Remove drafts of a file that killed runs have left; drafts of running processes stay."""
    with contextlib.suppress(OSError):
        for draft in folder.glob(f"{glob.escape(prefix)}*{_DRAFT}"):
            process = draft.name.removeprefix(prefix).partition(".")[0]
            is_old = time.time() - draft.stat().st_mtime > _OLD_S  # its process id may have been reused
            if process.isdecimal() and (is_old or not _is_running(int(process))):
                draft.unlink()


def _is_running(process: int) -> bool:
    if sys.platform == "win32":
        return True  # signal 0 does not probe a process there: go by the draft's age alone
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # another user's process
    return True


def _sync_folder(folder: Path) -> None:
    """Sync the new name to disk too, where folders can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_document(path: str | Path, kind: str, content: Json) -> Path:
    """Write one stage's document: its kind and format, then its content.

    Raises
    ------
    InputError
        As :func:`write_text`; a file of another kind is there, which may be the only copy of what somebody made.
    """
    _refuse_other_kind(Path(path), kind)
    return write_text(path, dump_document(kind, content) + "\n")


def _refuse_other_kind(path: Path, kind: str) -> None:
    """Refuse to replace a document of another kind, and what is an input by its name: a service, a log, a table."""
    try:
        if not path.is_file():
            return
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return  # writing says what is wrong
    found = _TAG.match(head.decode("utf-8", "replace"))
    if found is not None and found[1] != kind:
        what = f"{_one(found[1])} file"
    elif found is None and head.strip() and path.suffix.lower() in _INPUTS:
        what = "no melange file"
    else:
        return
    raise InputError(f"{path}: is {what}, which {_one(kind)} would replace", hint="choose another name, or remove it")


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
        raise InputError(f"{path}: not a melange {kind} file: the key 'melange' is missing")
    name, _, version = str(tag).partition("/")
    if name != kind:
        raise InputError(f"{path}: is {_one(name)} file; {_one(kind)} is needed")
    if version != "1":
        raise InputError(
            f"{path}: {kind} format {version} is newer than this release reads (1)", hint="upgrade melange"
        )
    return content


def _one(kind: str) -> str:
    """A kind of document with its article."""
    return f"an {kind}" if kind[:1] in "aeiou" else f"a {kind}"


def read_as(path: str | Path, kind: str, parse: Callable[[Json], Noun]) -> Noun:
    """Read one stage's document into its dataclass.

    Raises
    ------
    InputError
        As :func:`read_document`; also when something in the document is missing or has the wrong type.
    """
    content = read_document(path, kind)
    with reading(f"{path}", f"{_one(kind)} that melange wrote"):
        return parse(content)


def read_json(path: str | Path, *, infinity: bool = False) -> Json:
    """Read a JSON object, with infinite numbers if allowed; errors name the file and, for bad JSON, the line."""
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
