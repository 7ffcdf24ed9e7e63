"""Processes that answer while users drag: started once, warmed up, and restarted after a failure."""

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
# Answers that may wait: a user has at most a few outstanding.
_MOST_WAITING = 64
# Weight of a page of curves, in answers: it takes as long as about ten, and answers go to the shortest queue.
_CURVES = 10


class WorkerPool:
    """A few processes that run functions of :mod:`melange.ui.in_workers`.

    Each process caches capacities, so one user's answers use the same process, the first idle one. Curves and reports
    use the last idle one.

    Parameters
    ----------
    opened
        The file that processes are warmed up with.
    count
        Number of processes.
    memory_bytes
        Memory limit of each process [bytes].
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
        """Run a function in the least loaded process; among equals, the first.

        Raises
        ------
        BusyError
            Too many requests are waiting.
        InputError
            The process failed: the question needs more memory than allowed.
        """
        if named:
            raise TypeError("arguments are given by position")
        at = min(range(len(self._busy)), key=self._busy.__getitem__)
        return await self._run_at(at, 1, partial(function, *given))

    async def run_aside(self, function: Callable[..., _ResultT], *given: Any) -> _ResultT:
        """Run a function that takes a second or more in the least loaded process; among equals, the last."""
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
        """Finish running answers, then end the processes."""
        for one in self._processes:
            with contextlib.suppress(OSError):
                one.shutdown(wait=True, cancel_futures=True)


def _prepare(memory_bytes: int) -> None:
    """Initialize a process: it ends when the server ends, and its memory is limited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
