"""Request logs in object storage: ``s3://`` files are copied into a temporary folder, once a process, and read there.

Credentials come from where AWS tools look for them: environment, profile, role of the machine. Nothing of them is
printed or kept.
"""

from __future__ import annotations

import atexit
import fnmatch
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
from urllib.parse import unquote

from melange.errors import InputError, MelangeError
from melange.files import check_remote
from melange.units import GIB, MIB
from melange.workload.warehouse import without_secrets

Progress = Callable[[float], None]

# A path that a command line was given has lost one of the slashes.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?=[^/])")
_WILD = re.compile(r"[*?\[]")
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
_AT_A_TIME = 8
_PART = 8 * MIB


@dataclass(frozen=True, slots=True)
class Fetched:
    """Copies of remote files.

    Parameters
    ----------
    folder
        Where they are; removed when the process ends.
    files
        The copies, in the order of their addresses.
    address
        What stands for the folder in messages.
    """

    folder: Path
    files: tuple[Path, ...]
    address: str

    def named(self, message: str) -> str:
        """A message in which files have their addresses, and not the places of their copies."""
        return message.replace(str(self.folder), self.address)


_fetched: dict[str, Fetched] = {}
_one_at_a_time = threading.Lock()


def remote_url(trace: object) -> str | None:
    """The address of a log that is not on this machine; None: it is a path, or a table.

    >>> remote_url(Path("s3://bucket/logs/*.parquet")), remote_url("logs/requests.csv")
    ('s3://bucket/logs/*.parquet', None)
    """
    if not isinstance(trace, str | Path) or not (found := _URL.match(str(trace))):
        return None
    return f"{found[1].lower()}://{str(trace)[found.end() :]}"


def fetch(url: str, is_log: Callable[[Path], bool], progress: Progress | None = None) -> Fetched:
    """The files of an address: one file, a folder, or a pattern such as ``s3://bucket/logs/2026-*/*.parquet``.

    Parameters
    ----------
    url
        The address.
    is_log
        Whether a name is that of a log, of those in a folder.
    progress
        Called with the fraction that is copied (0-1).

    Raises
    ------
    InputError
        Another kind of storage, no such bucket or file, no access, no room for the copies; and where services of others
        are planned.
    """
    scheme, _, rest = url.partition("://")
    if scheme != "s3":
        raise InputError(
            f"{url}: {scheme}:// is not supported",
            hint="download the file, or use an S3 address: other stores have one, too (AWS_ENDPOINT_URL)",
        )
    if "@" in rest.partition("/")[0]:
        raise InputError(
            "an s3:// address must not hold credentials", hint="export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=..."
        )
    check_remote(url, "logs in object storage")
    with _one_at_a_time:
        if (known := _fetched.get(url)) is None:
            known = _fetched[url] = _fetch(url, rest.rstrip("/"), is_log, progress)
    return known


def _fetch(url: str, path: str, is_log: Callable[[Path], bool], progress: Progress | None) -> Fetched:
    said, bucket = "", path.partition("/")[0]
    try:
        storage = _storage(bucket)
        found = _found(storage, path, is_log)
        if not found and _is_absent(storage, bucket):
            raise _refused(url, bucket, "NoSuchBucket")
        if not found:
            raise InputError(
                f"{url}: no file matches", hint="give a file, a folder or a pattern: s3://bucket/logs/*.parquet"
            )
        return _copied(storage, url, path, found, progress)
    except MelangeError:
        raise
    except OSError as error:  # Arrow raises no other
        said = without_secrets(f"{error}", tuple(filter(None, map(os.environ.get, _SECRETS))))
    raise _refused(url, bucket, said)


def _storage(bucket: str) -> Any:
    """Arrow's client of the region and the endpoint that the environment names, or of the bucket's own region."""
    from pyarrow import fs

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        scheme, is_url, host = endpoint.rpartition("://")
        return fs.S3FileSystem(region=region, endpoint_override=host.rstrip("/"), scheme=scheme if is_url else "https")
    if region is None and not os.environ.get("AWS_PROFILE"):
        region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(region=region)


def _is_absent(storage: Any, bucket: str) -> bool:
    from pyarrow import fs

    return bool(storage.get_file_info(bucket).type == fs.FileType.NotFound)


def _found(storage: Any, path: str, is_log: Callable[[Path], bool]) -> list[Any]:
    """The files that a path, a folder or a pattern stands for, sorted."""
    from pyarrow import fs

    if _WILD.search(path):
        found = list(_matching(storage, "", path.split("/")))
    else:
        one = storage.get_file_info(path)
        if one.type == fs.FileType.File:
            found = [one]
        else:
            inside = storage.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found="/" in path))
            found = [file for file in inside if is_log(Path(file.path)) and not file.base_name.startswith((".", "_"))]
    return sorted((file for file in found if file.type == fs.FileType.File), key=lambda file: file.path)


def _matching(storage: Any, folder: str, parts: Sequence[str]) -> Iterator[Any]:
    """What matches a pattern, part by part, so that only folders that may match are listed; ``**`` is any depth."""
    from pyarrow import fs

    part, rest = parts[0], parts[1:]
    if not _WILD.search(part):
        here = f"{folder}/{part}" if folder else part
        yield from _matching(storage, here, rest) if rest else [storage.get_file_info(here)]
        return
    if not folder:
        address = f"s3://{'/'.join(parts)}"
        raise InputError(f"{address}: the bucket must be named", hint="for example s3://bucket/logs/*.parquet")
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


def _copied(storage: Any, url: str, path: str, found: Sequence[Any], progress: Progress | None) -> Fetched:
    """The files, several at a time, in a folder of the process."""
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
                        progress(done / size)

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(copy, zip(found, places, strict=True)))
    return Fetched(folder, tuple(places), f"s3://{above}")


def _remove(folder: Path, process: int) -> None:
    """Remove the copies, in the process that made them: the ones that it has started share them."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


# What Arrow says, what we say, and what to do.
_REFUSALS = (
    (
        re.compile(r"NO_SUCH_BUCKET|bucket does not exist|Bucket '.*' not found|NoSuchBucket", re.IGNORECASE),
        "there is no such bucket",
        "check its name, and AWS_PROFILE, AWS_REGION and AWS_ENDPOINT_URL",
    ),
    (
        re.compile(
            r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|INVALID_CLIENT_TOKEN|TOKEN|\b403\b|FORBIDDEN", re.IGNORECASE
        ),
        "access is denied",
        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; permission to list and to get objects is "
        "needed",
    ),
)


def _refused(url: str, bucket: str, said: str) -> InputError:
    for sign, what, hint in _REFUSALS:
        if sign.search(said):
            return InputError(f"{url}: {what}: {unquote(bucket)}" if "bucket" in what else f"{url}: {what}", hint=hint)
    return InputError(
        f"{url}: cannot be read: {said}", hint="check the address, the network, AWS_REGION and AWS_ENDPOINT_URL"
    )
