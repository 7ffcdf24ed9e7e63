"""Whether a file has changed since it was last looked at."""

from __future__ import annotations

import contextlib
from pathlib import Path


def stamp_of(path: Path | None) -> tuple[int, int, int] | None:
    """What changes when a file is written or replaced; None where there is none to be seen."""
    if path is not None:
        with contextlib.suppress(OSError):
            found = path.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino
    return None
