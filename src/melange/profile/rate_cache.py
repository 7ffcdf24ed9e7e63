"""Cache of simulated rates by all their inputs: in memory, and in a file between runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from melange.errors import InputError
from melange.files import read_json, write_text
from melange.paths import user_folder
from melange.records import number, reading, text
from melange.replica.engine import Engine
from melange.slo import Slo

# Increment when the simulator's results change, so that cached results are computed again.
_VERSION = 3
Key = tuple[Engine, tuple[int, ...], Slo, int]
Rate = tuple[float, str]


def cache_folder() -> Path:
    """The folder of cache files: ``$MELANGE_CACHE``, or ``melange`` in the user's cache folder.

    If neither exists, a folder for this user next to temporary files.
    """
    if own := os.environ.get("MELANGE_CACHE"):
        return Path(own)
    return user_folder("XDG_CACHE_HOME", ".cache")


class RateCache:
    """Rates and reasons by engine, size, SLO and seed.

    Parameters
    ----------
    file
        File to read now and to write in :meth:`save`; None: memory only. An unreadable file is replaced, an unwritable
        one is ignored: the cache only saves time.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._stored: dict[str, Rate] = {}
        self._is_changed = False
        if file is not None:
            try:
                with reading(f"{file}", "cached rates"):
                    content = read_json(file)
                    self._stored = {key: _rate(key, value) for key, value in content.items()}
            except InputError:
                self._stored = {}

    def get(self, key: Key) -> Rate | None:
        """The cached value of a key; None if there is none."""
        return self._stored.get(_digest(key))

    def keep(self, key: Key, rate: Rate) -> None:
        """Store a rate, or 0 with its reason."""
        self._stored[_digest(key)] = rate
        self._is_changed = True

    def save(self) -> None:
        """Write the file atomically, if it has changed."""
        if self._file is None or not self._is_changed:
            return
        with contextlib.suppress(OSError, InputError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._file, json.dumps(self._stored))
            self._is_changed = False


def _rate(key: str, value: Any) -> Rate:
    rate, why = value
    if not 0 <= number(rate, key) < math.inf:
        raise InputError(f"{key}: must be >= 0, got {rate:g}")
    return float(rate), text(why, key)


def _digest(key: Key) -> str:
    engine, size, slo, seed = key
    told: list[Any] = [_VERSION, engine.to_json(), size, slo.to_json(), seed]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
