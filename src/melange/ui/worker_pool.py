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
from functools import partial
from typing import Any, ParamSpec, TypeVar

from melange.errors import InputError
from melange.serve.queue import BusyError
from melange.ui.in_workers import warm_up
from melange.ui.opened import Opened

_Given = ParamSpec("_Given")
_ResultT = TypeVar("_ResultT")
# Answers that may wait: a person has at most a handful on the way.
_MOST_WAITING = 64
# Answers that a page of curves counts as: it takes as long as about ten, and an answer waits behind the shorter queue.
_CURVES = 10


class WorkerPool:
    """A few processes that run functions of :mod:`melange.ui.in_workers`.

    Each keeps the capacities that it has met, so one person's answers come from one process, the first that is free,
    and curves and reports from the last.

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
        self._opened, self._memory_bytes = opened, memory_bytes
        self._waiting = 0
        self._processes = [self._started() for _ in range(count)]
        self._busy = [0] * count

    def _started(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        process = ProcessPoolExecutor(1, context, _prepare, (int(self._memory_bytes),))
        process.submit(warm_up, self._opened)
        return process

    async def run(self, function: Callable[_Given, _ResultT], *given: _Given.args, **named: _Given.kwargs) -> _ResultT:
        """Run a function in one of the processes, the first of those with the least to do.

        Raises
        ------
        BusyError
            Too many wait.
        InputError
            The process ended: the question needs more memory than it may take.
        """
        if named:
            raise TypeError("arguments are given by position")
        at = min(range(len(self._busy)), key=self._busy.__getitem__)
        return await self._run_at(at, 1, partial(function, *given))

    async def run_aside(self, function: Callable[..., _ResultT], *given: Any) -> _ResultT:
        """Run a function that takes a second or more, in the last process of those with the least to do."""
        at = min(reversed(range(len(self._busy))), key=self._busy.__getitem__)
        return await self._run_at(at, _CURVES, partial(function, *given))

    async def _run_at(self, at: int, weight: int, job: Callable[[], _ResultT]) -> _ResultT:
        if self._waiting >= _MOST_WAITING:
            raise BusyError("too many requests at once", hint="try again in a few seconds")
        self._waiting += 1
        self._busy[at] += weight
        process = self._processes[at]
        try:
            return await asyncio.get_running_loop().run_in_executor(process, job)
        except (BrokenProcessPool, MemoryError) as error:
            if process is self._processes[at] and isinstance(error, BrokenProcessPool):
                self._processes[at] = self._started()
                process.shutdown(wait=False)
            raise InputError(
                "this needs more memory than the page allows", hint="raise --memory, or use the command line"
            ) from error
        finally:
            self._waiting -= 1
            self._busy[at] -= weight

    def close(self) -> None:
        """End the processes once they have answered."""
        for one in self._processes:
            with contextlib.suppress(OSError):
                one.shutdown(wait=True, cancel_futures=True)


def _prepare(memory_bytes: int) -> None:
    """In each process: the server's own end is its end, and its memory is bounded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
