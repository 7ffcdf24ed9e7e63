"""One controller at a time: a lease that its holder renews, and another takes over after it has run out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from melange.files import read_document, write_document


class Lease(Protocol):
    """The right to act."""

    def hold(self, now_s: float) -> str:
        """Take or renew it; the holder's name where somebody else has it, empty where it is ours."""
        ...

    def release(self) -> None:
        """Give it up."""
        ...


class FileLease:
    """A lease in a file, for controllers that share a folder.

    Parameters
    ----------
    path
        The file.
    length_s
        It runs out when it is not renewed for this long [s].
    """

    def __init__(self, path: Path, length_s: float) -> None:
        self.path, self.length_s = path, length_s
        self.holder = f"{_machine()} {os.getpid()} {secrets.token_hex(8)}"

    def hold(self, now_s: float) -> str:
        """Take or renew it; the holder's name where somebody else has it, empty where it is ours."""
        with self._alone():
            if self.path.exists():
                content = read_document(self.path, "operate-lease")
                other = str(content["holder"])
                if other != self.holder and now_s < float(content["until_s"]) and not _is_dead(other):
                    return other
            write_document(self.path, "operate-lease", {"holder": self.holder, "until_s": now_s + self.length_s})
        return ""

    def release(self) -> None:
        """Give it up, if it is ours."""
        with self._alone():
            if self.path.exists() and read_document(self.path, "operate-lease")["holder"] == self.holder:
                self.path.unlink()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Between reading and writing nobody else does either."""
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _machine() -> str:
    """The machine since it was started, and whose processes are seen: containers may share a host's name."""
    parts = [socket.gethostname().replace(" ", "-")]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


def _is_dead(holder: str) -> bool:
    """Whether a holder on this machine has ended: it needs no time to run out then."""
    machine, _, rest = holder.partition(" ")
    number = rest.partition(" ")[0]
    if machine != _machine() or "/" not in machine or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
