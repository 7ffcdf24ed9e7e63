"""Detect when this process itself is late, because a replica that seems silent may then be its own delay."""

from __future__ import annotations

from collections.abc import Callable

# How late a beat may come, and for how long a late one counts [s]. A process that is scheduled now and then sees waits
# of 2 s end that have lasted 0.1 s; a busy one is late by milliseconds.
_LATE_S, _COUNTS_S = 0.5, 5.0


class Punctuality:
    """Beats at a steady interval, and how late they came.

    Parameters
    ----------
    now
        A clock [s].
    every_s
        The interval [s].
    """

    def __init__(self, now: Callable[[], float], every_s: float) -> None:
        self._now, self._every_s = now, every_s
        self._beat_s, self._late_s = now(), float("-inf")

    def beat(self) -> None:
        """An interval should be over."""
        now_s = self._now()
        if now_s - self._beat_s > self._every_s + _LATE_S:
            self._late_s = now_s
        self._beat_s = now_s

    @property
    def is_late(self) -> bool:
        """Whether a beat was late in the last seconds, or is by now."""
        now_s = self._now()
        return now_s - self._late_s < _COUNTS_S or now_s - self._beat_s > self._every_s + _LATE_S
