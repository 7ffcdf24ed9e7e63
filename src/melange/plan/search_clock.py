"""What a search stops by: the machine's clock, or the work that it has done.

By the machine's clock a search ends in time, with the best that it has by then: a fast or an idle machine has more.
By its work it ends later on a busy machine, and what it finds follows from its input alone, unless it takes far longer
than its work should: then the clock ends it all the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Work of the solver [s]: what it takes in the median on one core of a server. 152 mixed-integer programs of 39 to 816
# rows took 10 to 28 us for each of their rows between two points where they may be stopped (10th and 90th percentile).
# Linear ones take a millisecond with what is done around them, and time for each iteration and row.
_PAUSE_S, _START_S, _ITERATION_S = 17e-6, 1e-3, 2e-7


# A search by its work that takes this many times as long ends by the clock: a solver that does not return, or loops
# around it that count no work. Less, and a busy machine decides what is found. A judgment.
STUCK_TIMES = 60.0


class _Work:
    """What was done so far [s], and when it began on the machine's clock [s]."""

    def __init__(self) -> None:
        self.done_s, self.began_s = 0.0, time.monotonic()


_WORK: ContextVar[_Work | None] = ContextVar("work", default=None)


@contextmanager
def by_work() -> Iterator[None]:
    """Let searches stop by their work meanwhile, counted from 0, and no longer by the machine's clock."""
    token = _WORK.set(_Work())
    try:
        yield
    finally:
        _WORK.reset(token)


def is_by_work() -> bool:
    """Whether searches stop by their work."""
    return _WORK.get() is not None


def now_s() -> float:
    """The time that deadlines of searches are compared with [s]."""
    work = _WORK.get()
    if work is None:
        return time.monotonic()
    return max(work.done_s, (time.monotonic() - work.began_s) / STUCK_TIMES)


def count_linear(rows: int, iterations: int) -> None:
    """Count the work of a linear program."""
    _count(_START_S + _ITERATION_S * rows * max(iterations, 0))


def count_whole(rows: int, pauses: int) -> None:
    """Count the work of a mixed-integer program, with the number of times that it could have been stopped."""
    _count(_START_S + _PAUSE_S * rows * pauses)


def pauses_within(rows: int, limit_s: float) -> float:
    """How many times a mixed-integer program may be asked whether to stop, within its limit [s]."""
    return limit_s / (_PAUSE_S * max(rows, 1))


def _count(seconds: float) -> None:
    if (work := _WORK.get()) is not None:
        work.done_s += seconds
