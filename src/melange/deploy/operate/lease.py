"""The lease that allows one controller at a time: its holder renews it, and another takes over after it expires."""

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
    """The exclusive right to act on a service."""

    def hold(self, now_s: float) -> str:
        """Take or renew the lease; returns the holder's name if another controller has it, otherwise an empty text."""
        ...

    def release(self) -> None:
        """Give up the lease."""
        ...


class FileLease:
    """A lease in a file, for controllers that share a folder.

    Parameters
    ----------
    path
        The file.
    length_s
        The lease expires if it is not renewed for this long [s].
    """

    def __init__(self, path: Path, length_s: float) -> None:
        self.path, self.length_s = path, length_s
        self.holder = f"{_machine()} {os.getpid()} {secrets.token_hex(8)}"

    def hold(self, now_s: float) -> str:
        """Take or renew the lease; returns the holder's name if another controller has it, otherwise an empty text."""
        with self._alone():
            if self.path.exists():
                content = read_document(self.path, "operate-lease")
                other = str(content["holder"])
                if other != self.holder and now_s < float(content["until_s"]) and not _is_dead(other):
                    return other
            write_document(self.path, "operate-lease", {"holder": self.holder, "until_s": now_s + self.length_s})
        return ""

    def release(self) -> None:
        """Give up the lease if this controller holds it."""
        with self._alone():
            if self.path.exists() and read_document(self.path, "operate-lease")["holder"] == self.holder:
                self.path.unlink()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the file, so that no other controller reads or writes it in between."""
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _machine() -> str:
    """Identifies the machine, its boot and the process namespace: containers may share a host name."""
    parts = [socket.gethostname().replace(" ", "-")]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


def _is_dead(holder: str) -> bool:
    """Whether the holder was a process on this machine that has ended: its lease can be taken at once."""
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
