"""The files passed between stages: one JSON document each, replaced atomically."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from melange.errors import InputError
from melange.parsing import parse_json
from melange.paths import check_names_a_file, is_pipe
from melange.records import reading, shown

# Largest text file that is read whole [bytes]. The largest in practice are load-test reports with every request;
# parsed, the worst text of this length takes 1.5 GB.
_MOST_BYTES = 64 << 20
# Suffix of draft files; the id of the writing process comes before it.
_DRAFT = ".draft"
# Age of abandoned drafts [s]: writing takes seconds, so that no process still works on a draft that is an hour old.
_OLD_S = 4_000.0
# Documents of several plans: what each plan is for, and the key with their names; `melange plan` writes every plan to a
# file of its own beside the document.
_PARTS = {"disaggregated": ("pool", ""), "fleet": ("service", "services"), "regions": ("region", "plans")}
_POOLS = ("prefill", "decode")
Json = dict[str, Any]
Noun = TypeVar("Noun")


# Longest path and longest path component [bytes] on all supported systems.
_MOST_PATH, _MOST_PART = 4_096, 255


# Suffixes of inputs; the beginning of a document, and how many bytes of a file contain it.
_INPUTS = (".yaml", ".yml", ".csv", ".jsonl", ".parquet")
_TAG, _HEAD = re.compile(r'\s*\{\s*"melange"\s*:\s*"([\w-]+)/'), 500


def path_of(name: str | Path) -> Path:
    """The path that a file or a flag names, with ``~`` expanded.

    Raises
    ------
    InputError
        The text cannot be a file name; system calls would fail with various errors.
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
    """The path that a file names, relative to the folder of that file.

    If ``MELANGE_WITHIN`` names folders, no file outside of them is read: a server plans services of other people.

    Raises
    ------
    InputError
        The path is outside of these folders, or the text cannot be a file name.
    """
    found = folder / path_of(name)
    if (within := confined_to()) and not any(found.resolve().is_relative_to(one) for one in within):
        raise InputError(f"{shown(name)}: files outside of the service's folder are not read here")
    return found


def confined_to() -> tuple[Path, ...]:
    """The only folders whose files may be read, from ``MELANGE_WITHIN``, separated as in ``PATH``; empty: no limit."""
    return tuple(Path(one).resolve() for one in os.environ.get("MELANGE_WITHIN", "").split(os.pathsep) if one)


def check_remote(place: str, what: str) -> None:
    """Refuse to read data on other machines with this user's rights for a service of another person.

    Parameters
    ----------
    place
        The key in the service file that names the data.
    what
        The data, in the plural.

    Raises
    ------
    InputError
        Files are confined to a folder, and ``MELANGE_REMOTE=1`` is not set.
    """
    if confined_to() and os.environ.get("MELANGE_REMOTE") != "1":
        raise InputError(f"{place}: {what} are not read here", hint="upload the log as a file, or give its workload")


def write_text(path: str | Path, text: str) -> Path:
    """Write ``text`` to ``path`` atomically: a reader sees the old file or the new one, never a part.

    The draft is synced to disk before it replaces the file. If a run was killed, the next run removes its draft.

    Raises
    ------
    InputError
        The folder is absent or not writable, or the disk is full; no draft is left behind.
    """
    target = Path(path)
    # A symbolic link stays: the file that it names is replaced.
    is_link = target.is_symlink() and not _is_device(target)
    write_texts({Path(os.path.realpath(target)) if is_link else target: text})
    return target


def write_texts(text_by_path: Mapping[Path, str]) -> None:
    """Write several files, each atomically; all drafts are on disk before the first file is replaced.

    A symbolic link is replaced too, so that files of one folder stay in it.

    Raises
    ------
    InputError
        As for :func:`write_text`; if the disk is full, no file is replaced.
    """
    draft_by_target: dict[Path, Path] = {}
    try:
        for path, text in text_by_path.items():
            check_names_a_file(path)
            if _is_device(path):
                _write_into(path, text)
            else:
                _draft(path, text, draft_by_target)
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
    """Write the new content to a draft beside the file, and record the draft's name as soon as the draft exists."""
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
        _give_mode(draft, target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from error


def _give_mode(draft: Path, target: Path) -> None:
    """Give a draft the mode and, where allowed, the owner of the file that it replaces; a new file's by the umask."""
    try:
        before = target.stat()
    except OSError:
        umask = os.umask(0)
        os.umask(umask)
        draft.chmod(0o666 & ~umask)
        return
    now = draft.stat()
    if hasattr(os, "chown") and (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with contextlib.suppress(OSError):  # only root may give a file away
            os.chown(draft, before.st_uid, before.st_gid)
    draft.chmod(stat.S_IMODE(before.st_mode))


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
    """Remove drafts of a file that killed runs left behind; keep drafts of running processes."""
    with contextlib.suppress(OSError):
        for draft in folder.glob(f"{glob.escape(prefix)}*{_DRAFT}"):
            process = draft.name.removeprefix(prefix).partition(".")[0]
            is_old = time.time() - draft.stat().st_mtime > _OLD_S  # its process id may have been reused
            if process.isdecimal() and (is_old or not _is_running(int(process))):
                draft.unlink()


def _is_running(process: int) -> bool:
    if sys.platform == "win32":
        return True  # signal 0 does not probe a process on this system: only the draft's age decides
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
        As for :func:`write_text`; or the path holds a file of another kind, which may be the only copy.
    """
    _refuse_other_kind(Path(path), kind)
    return write_text(path, dump_document(kind, content) + "\n")


def _refuse_other_kind(path: Path, kind: str) -> None:
    """Refuse to replace a document of another kind, or an input by its suffix: a service, a log, a table."""
    try:
        if not path.is_file():
            return
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return  # the write reports the error
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
        hint = _parts_beside(path, content) if kind == "plan" else ""
        raise InputError(f"{path}: is {_one(name)} file; {_one(kind)} is needed", hint=hint)
    if version != "1":
        raise InputError(
            f"{path}: {kind} format {version} is newer than this release reads (1)", hint="upgrade melange"
        )
    return content


def _parts_beside(path: str | Path, content: Json) -> str:
    """Which plans were written beside a document of several plans; empty if this is another document."""
    kind = str(content["melange"]).partition("/")[0]
    if kind not in _PARTS:
        return ""
    one_of_them, key = _PARTS[kind]
    listed = content.get(key) if key else _POOLS
    names = [
        one.get("name") if isinstance(one, dict) else one for one in (listed if isinstance(listed, Iterable) else ())
    ]
    place = Path(path)
    plain = [one for one in names if isinstance(one, str) and re.fullmatch(r"[\w.-]{1,100}", one)]
    files = [place.with_name(f"{place.stem}-{one}.json") for one in plain]
    if found := [str(one) for one in files if one.is_file()]:
        return f"give the plan of one {one_of_them}: {' or '.join(found)}"
    return f"melange plan service.yaml --out FILE also writes the plan of each {one_of_them}, beside FILE"


def _one(kind: str) -> str:
    """A kind of document with its article."""
    return f"an {kind}" if kind.startswith(tuple("aeiou")) else f"a {kind}"


def read_as(path: str | Path, kind: str, parse: Callable[[Json], Noun]) -> Noun:
    """Read one stage's document into its dataclass.

    Raises
    ------
    InputError
        As for :func:`read_document`; or a part of the document is missing or has the wrong type.
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
    # Opening a named pipe would wait for a program that writes to it; a pipe of this process has one.
    if is_pipe(path) and not os.path.realpath(path).startswith(("/proc/", "/dev/")):
        raise InputError(f"{path}: is a pipe, not a regular file", hint="save its content to a file")
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
        raise InputError(
            f"{path}: not a text file (byte {error.start} is not UTF-8)", hint="save it as text in UTF-8"
        ) from error
