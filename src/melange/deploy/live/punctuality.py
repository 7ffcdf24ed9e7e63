"""Detect when this process itself is late: a replica that seems silent may then not be at fault."""

from __future__ import annotations

from collections.abc import Callable

# How late a beat may be, and how long a late beat counts [s]. To a process that is scheduled rarely, a wait of 0.1 s
# may appear to have exceeded a limit of 2 s; a busy process is late by milliseconds.
_LATE_S, _COUNTS_S = 0.5, 5.0


class Punctuality:
    """Beats at a regular interval, and their delays.

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
        """A beat; called when an interval should have passed."""
        now_s = self._now()
        if now_s - self._beat_s > self._every_s + _LATE_S:
            self._late_s = now_s
        self._beat_s = now_s

    @property
    def is_late(self) -> bool:
        """Whether a beat was late in the last seconds, or the next one is late now."""
        now_s = self._now()
        return now_s - self._late_s < _COUNTS_S or now_s - self._beat_s > self._every_s + _LATE_S
