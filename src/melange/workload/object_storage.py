"""Request logs in object storage: files are copied into a temporary folder once per process, and read there.

No credential is printed or stored.
"""

from __future__ import annotations

import atexit
import fnmatch
import itertools
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melange.errors import InputError, MelangeError
from melange.files import check_remote
from melange.units import GIB, MIB
from melange.workload.object_stores import STORES, Store

Progress = Callable[[float], None]

# A path on the command line has lost one of the two slashes of its URL.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?=[^/])")
_WILD = re.compile(r"[*?\[]")
_AT_A_TIME = 8
_PART = 8 * MIB


@dataclass(frozen=True, slots=True)
class Fetched:
    """Copies of remote files.

    Parameters
    ----------
    folder
        The folder of the copies; removed when the process ends.
    files
        The copies, in the order of their addresses.
    address
        The text that replaces the folder in messages.
    """

    folder: Path
    files: tuple[Path, ...]
    address: str

    def named(self, message: str) -> str:
        """A message in which the addresses of files replace the paths of their copies."""
        return message.replace(str(self.folder), self.address)


_fetched: dict[str, Fetched] = {}
_one_at_a_time = threading.Lock()


def remote_url(trace: object) -> str | None:
    """The address of a log that is not on this machine; None for a path or a table.

    >>> remote_url(Path("s3://bucket/logs/*.parquet")), remote_url("logs/requests.csv")
    ('s3://bucket/logs/*.parquet', None)
    """
    if not isinstance(trace, str | Path) or not (found := _URL.match(str(trace))):
        return None
    return f"{found[1].lower()}://{str(trace)[found.end() :]}"


def fetch(url: str, is_log: Callable[[Path], bool], progress: Progress | None = None) -> Fetched:
    """Copy the files of an address: one file, a folder, or a pattern such as ``s3://bucket/logs/2026-*/*.parquet``.

    Parameters
    ----------
    url
        The address.
    is_log
        Whether a file in a folder is a log, by its name.
    progress
        Called with the fraction that is copied (0-1).

    Raises
    ------
    InputError
        Unknown kind of storage, no such bucket or file, no access, no space for the copies; or remote data are not
        allowed because services of other people are planned.
    """
    scheme, _, rest = url.partition("://")
    if (store := STORES.get(scheme)) is None:
        raise InputError(
            f"{url}: {scheme}:// is not supported",
            hint="download the file, or use an s3:// or gs:// address: other stores have one, too (AWS_ENDPOINT_URL)",
        )
    if "@" in rest.partition("/")[0]:
        raise InputError(f"{scheme}:// addresses must not hold credentials", hint=store.credentials)
    check_remote(url, "logs in object storage")
    with _one_at_a_time:
        if (known := _fetched.get(url)) is None:
            known = _fetched[url] = _fetch(url, store, is_log, progress)
    return known


def _fetch(url: str, store: Store, is_log: Callable[[Path], bool], progress: Progress | None) -> Fetched:
    from pyarrow import ArrowException

    path, said = url.partition("://")[2].rstrip("/"), ""
    bucket = path.partition("/")[0]
    try:
        storage = store.opened(bucket)
        found = _found(storage, store, url, path, is_log)
        if not found and _is_absent(storage, bucket):
            raise store.refused(url, bucket, "NoSuchBucket")
        if not found:
            scheme = url.partition("://")[0]
            raise InputError(
                f"{url}: no file matches", hint=f"give a file, a folder or a pattern: {scheme}://bucket/logs/*.parquet"
            )
        return _copied(storage, url, found, progress)
    except MelangeError:
        raise
    except (OSError, ArrowException) as error:
        said = f"{error}"
    raise store.refused(url, bucket, said)


def _is_absent(storage: Any, bucket: str) -> bool:
    from pyarrow import fs

    return bool(storage.get_file_info(bucket).type == fs.FileType.NotFound)


def _found(storage: Any, store: Store, url: str, path: str, is_log: Callable[[Path], bool]) -> list[Any]:
    """The files in a path, a folder or a pattern, sorted."""
    from pyarrow import fs

    if _WILD.search(path):
        parts = path.split("/")
        if _WILD.search(parts[0]):
            example = f"{url.partition('://')[0]}://bucket/logs/*.parquet"
            raise InputError(f"{url}: the bucket must be named", hint=f"for example {example}")
        found = list(_matching(storage, "", parts) if store.has_folders else _matching_below(storage, parts))
    else:
        # A bucket alone is a folder; a role that may read its files may not be allowed to query the bucket.
        one = storage.get_file_info(path) if "/" in path else None
        if one is not None and one.type == fs.FileType.File:
            found = [one]
        else:
            inside = storage.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found="/" in path))
            found = [file for file in inside if is_log(Path(file.path)) and not file.base_name.startswith((".", "_"))]
    files = {file.path: file for file in found if file.type == fs.FileType.File}  # two ** match a file repeatedly
    for name in files:
        if not {"", ".", ".."}.isdisjoint(name.split("/")):  # not a valid local path, or outside the copies' folder
            raise InputError(
                f"{url}: the name {name[:200]!a} cannot be a path", hint="rename it, or name the files without it"
            )
    return [files[name] for name in sorted(files)]


def _matching(storage: Any, folder: str, parts: Sequence[str]) -> Iterator[Any]:
    """Files that match a pattern, part by part: only folders that may match are listed; ``**`` matches any depth."""
    from pyarrow import fs

    part, rest = parts[0], parts[1:]
    if not _WILD.search(part):
        here = f"{folder}/{part}" if folder else part
        yield from _matching(storage, here, rest) if rest else [storage.get_file_info(here)]
        return
    is_any_depth = part == "**"
    if is_any_depth and rest:
        yield from _matching(storage, folder, rest)
    for one in storage.get_file_info(fs.FileSelector(folder, allow_not_found="/" in folder)):
        is_folder = one.type == fs.FileType.Directory
        if not (is_any_depth or fnmatch.fnmatchcase(one.base_name, part)):
            continue
        if is_folder and (rest or is_any_depth):
            yield from _matching(storage, one.path, parts if is_any_depth else rest)
        elif not (is_folder or rest):
            yield one


def _matching_below(storage: Any, parts: Sequence[str]) -> Iterator[Any]:
    """Files that match a pattern, among all files below the folder that precedes its first wildcard."""
    from pyarrow import fs

    folder = "/".join(itertools.takewhile(lambda part: not _WILD.search(part), parts))
    for one in storage.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found="/" in folder)):
        if _is_match(one.path.split("/"), parts):
            yield one


def _is_match(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a pattern.

    >>> _is_match(["logs", "day=1", "a.csv"], ["logs", "**", "*.csv"]), _is_match(["logs", "a.csv"], ["logs", "*", "*"])
    (True, False)
    """
    if not parts or not names:
        return not names and (not parts or list(parts) == ["**"])
    if parts[0] == "**":
        return _is_match(names, parts[1:]) or _is_match(names[1:], parts)
    return fnmatch.fnmatchcase(names[0], parts[0]) and _is_match(names[1:], parts[1:])


def _copied(storage: Any, url: str, found: Sequence[Any], progress: Progress | None) -> Fetched:
    """Copy the files in parallel into a folder of this process."""
    size = sum(file.size for file in found)
    folder = Path(tempfile.mkdtemp(prefix="melange-log-"))
    atexit.register(_remove, folder, os.getpid())
    if size > (free := shutil.disk_usage(folder).free):
        raise InputError(
            f"{url}: {len(found)} files of {size / GIB:.1f} GiB, and {folder.parent} has room for {free / GIB:.1f} GiB",
            hint="name fewer files, or another folder for temporary files: export TMPDIR=...",
        )
    above = os.path.commonpath([file.path.rpartition("/")[0] for file in found])
    places = [folder / os.path.relpath(file.path, above) for file in found]
    done = 0
    lock = threading.Lock()

    def copy(one: tuple[Any, Path]) -> None:
        nonlocal done
        file, place = one
        place.parent.mkdir(parents=True, exist_ok=True)
        with storage.open_input_stream(file.path, compression=None) as stream, place.open("wb") as out:
            while part := stream.read(_PART):
                out.write(part)
                with lock:
                    done += len(part)
                    if progress is not None:
                        progress(min(1.0, done / size))  # a store may decompress files while sending

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(copy, zip(found, places, strict=True)))
    return Fetched(folder, tuple(places), f"{url.partition('://')[0]}://{above}")


def _remove(folder: Path, process: int) -> None:
    """Remove the copies, but only in the process that made them: its child processes share them."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
