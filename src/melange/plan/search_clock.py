"""The clock that ends a search: the machine's clock, or the work that the search has done.

By the machine's clock a search ends in time, with the best answer found by then: a faster or less busy machine finds
more. By work it ends later on a busy machine, and its answer follows from its input alone, unless the search takes far
longer than its work should: then the machine's clock ends it after all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Work of the solver [s]: its median time on one core of a server. 152 mixed-integer programs of 39 to 816 rows took 10
# to 28 us per row between two points where they may be stopped (10th and 90th percentile). Linear programs take a
# millisecond including the work around them, and time for each iteration and row.
_PAUSE_S, _START_S, _ITERATION_S = 17e-6, 1e-3, 2e-7


# A search by work ends by the clock when it takes this many times as long: the solver may not return, or loops around
# it may count no work. With a smaller factor, a busy machine decides what is found. Chosen by judgment.
STUCK_TIMES = 60.0


class _Work:
    """Work done so far [s], its start on the machine's clock [s], and how many times as long it may take there."""

    def __init__(self, stuck_times: float) -> None:
        self.done_s, self.began_s, self.stuck_times = 0.0, time.monotonic(), stuck_times


_WORK: ContextVar[_Work | None] = ContextVar("work", default=None)


@contextmanager
def by_work(stuck_times: float = STUCK_TIMES) -> Iterator[None]:
    """Let searches inside the block stop by their work, counted from 0, instead of by the machine's clock.

    ``stuck_times`` as long on the machine's clock ends them too.
    """
    token = _WORK.set(_Work(stuck_times))
    try:
        yield
    finally:
        _WORK.reset(token)


def is_by_work() -> bool:
    """Whether searches stop by their work."""
    return _WORK.get() is not None


def now_s() -> float:
    """The time to compare with the deadlines of searches [s]."""
    work = _WORK.get()
    if work is None:
        return time.monotonic()
    return max(work.done_s, (time.monotonic() - work.began_s) / work.stuck_times)


def on_machine_s(limit_s: float) -> float:
    """The longest that a search with this limit may take on the machine's clock [s]."""
    work = _WORK.get()
    return limit_s if work is None else work.stuck_times * limit_s


def count_linear(rows: int, iterations: int) -> None:
    """Count the work of a linear program."""
    _count(_START_S + _ITERATION_S * rows * max(iterations, 0))


def count_whole(rows: int, pauses: int) -> None:
    """Count the work of a mixed-integer program by the number of points where it could have been stopped."""
    _count(_START_S + _PAUSE_S * rows * pauses)


def pauses_within(rows: int, limit_s: float) -> float:
    """Number of times that a mixed-integer program may be asked whether to stop, within its limit [s]."""
    return limit_s / (_PAUSE_S * max(rows, 1))


def _count(seconds: float) -> None:
    if (work := _WORK.get()) is not None:
        work.done_s += seconds
