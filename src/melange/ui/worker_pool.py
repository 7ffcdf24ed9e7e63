"""Processes that answer while people drag: started once, warm, and started again if one is lost."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import resource
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from melange.errors import InputError
from melange.serve.queue import BusyError
from melange.ui.in_workers import warm_up
from melange.ui.opened import Opened

_Given = ParamSpec("_Given")
_ResultT = TypeVar("_ResultT")
# Answers that may wait: a person has at most a handful on the way.
_MOST_WAITING = 64


class WorkerPool:
    """A few processes that run functions of :mod:`melange.ui.in_workers`.

    Parameters
    ----------
    opened
        What they are warmed up with.
    count
        How many there are.
    memory_bytes
        Most memory of each [bytes].
    """

    def __init__(self, opened: Opened, *, count: int, memory_bytes: float) -> None:
        self._opened, self._count, self._memory_bytes = opened, count, memory_bytes
        self._waiting = 0
        self._pool = self._started()

    def _started(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self._count, context, _prepare, (int(self._memory_bytes),))
        for _ in range(self._count):
            pool.submit(warm_up, self._opened)
        return pool

    async def run(self, function: Callable[_Given, _ResultT], *given: _Given.args, **named: _Given.kwargs) -> _ResultT:
        """Run a function in one of the processes.

        Raises
        ------
        BusyError
            Too many wait.
        InputError
            The process ended: the question needs more memory than it may take.
        """
        if named:
            raise TypeError("arguments are given by position")
        if self._waiting >= _MOST_WAITING:
            raise BusyError("too many requests at once", hint="try again in a few seconds")
        self._waiting += 1
        pool = self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, function, *given)
        except (BrokenProcessPool, MemoryError) as error:
            if pool is self._pool and isinstance(error, BrokenProcessPool):
                self._pool = self._started()
                pool.shutdown(wait=False)
            raise InputError(
                "this needs more memory than the page allows", hint="raise --memory, or use the command line"
            ) from error
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the processes once they have answered."""
        with contextlib.suppress(OSError):
            self._pool.shutdown(wait=True, cancel_futures=True)


def _prepare(memory_bytes: int) -> None:
    """In each process: the server's own end is its end, and its memory is bounded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
