"""Run the same function on many inputs, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def each_of(function: Callable[[J], R], jobs: Sequence[J], worth: int, processes: int | None = None) -> Iterator[R]:
    """Results of a function for each job, in order: in this process, or on a process pool from ``worth`` jobs on.

    Processes are spawned, not forked: a fork would copy threads and locks of libraries.
    """
    most = min(processes or os.cpu_count() or 1, len(jobs))
    if most <= 1 or len(jobs) < worth:
        yield from map(function, jobs)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(most, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(function, jobs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
