"""Whether a file has changed since the last check."""

from __future__ import annotations

import contextlib
from pathlib import Path


def stamp_of(path: Path | None) -> tuple[int, int, int] | None:
    """A value that changes when a file is written or replaced; None if the file does not exist."""
    if path is not None:
        with contextlib.suppress(OSError):
            found = path.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
    return None
