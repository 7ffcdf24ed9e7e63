"""Run the same function on many inputs: in this process, on all cores, or on a Ray cluster."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from melange.errors import InputError, MelangeError
from melange.installed import how_to_add

J = TypeVar("J")
R = TypeVar("R")

# How many times a job is repeated after its worker died: its machine was reclaimed or ran out of memory.
_RETRIES = 3
# How often a connection to Ray is tried. Ray forks beside threads that use gRPC, so that a node or the server for a
# client sometimes ends while it starts; the next one nearly always comes up.
_CONNECTIONS = 4
# What Ray says then. Anything else, an address without a server above all, is an error at once.
_FAILED_STARTS = ("timed out during startup", "Starting Ray client server failed", "Initialization failure from server")


class Workers(Protocol):
    """Something that runs jobs in parallel."""

    def each_of(self, function: Callable[[J], R], jobs: Sequence[J]) -> Iterator[R]:
        """Results of a function for each job, in order."""


class RayCluster:
    """A Ray cluster."""

    def __init__(self, ray: Any, address: str) -> None:
        """Use an open connection."""
        self._ray, self._address = ray, address
        self._run = ray.remote(max_retries=_RETRIES)(_alone)

    def each_of(self, function: Callable[[J], R], jobs: Sequence[J]) -> Iterator[R]:
        """Results in order; if a worker dies, its job is repeated.

        After an error the other jobs continue until the connection ends, and their results are ignored. They are not
        canceled: if a job ends while Ray cancels it, Ray ends the whole process (a failed check, seen in 2.60).
        """
        ray = self._ray
        kept = ray.put(function)
        waiting = [self._run.remote(kept, job) for job in jobs]
        try:
            for reference in waiting:
                yield ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise InputError(
                f"--on {self._address}: a job failed {1 + _RETRIES} times with its worker: "
                f"{str(error).strip().partition(chr(10))[0]}",
                hint="look at the cluster's memory and logs, or run without --on",
            ) from error


def _alone(function: Callable[[J], R], job: J) -> R:
    """Run a job on a worker. It starts no processes of its own: the cluster has a worker for each core."""
    _IS_WORKER.set(True)
    return function(job)


_WORKERS: ContextVar[Workers | None] = ContextVar("workers", default=None)
_IS_WORKER: ContextVar[bool] = ContextVar("is_worker", default=False)


def is_on_cluster() -> bool:
    """Whether jobs run on a cluster: then it pays to run jobs in advance that may be needed soon."""
    return _WORKERS.get() is not None


@contextmanager
def running_on(workers: Workers) -> Iterator[None]:
    """Run all jobs on these workers within the ``with`` block."""
    token = _WORKERS.set(workers)
    try:
        yield
    finally:
        _WORKERS.reset(token)


@contextmanager
def on_cluster(address: str | None) -> Iterator[None]:
    """Run large sets of jobs on a Ray cluster within the ``with`` block.

    Parameters
    ----------
    address
        ``ray://host:10001``, or ``local`` for a cluster that is started here; None: use this machine, without Ray.

    Raises
    ------
    InputError
        The cluster cannot be reached, or Ray is not installed.
    """
    if address is None:
        yield
        return
    try:
        import ray
    except ImportError as error:
        raise InputError("--on needs Ray, which is not installed", hint=how_to_add("ray")) from error
    was_there = ray.is_initialized()
    if not was_there:
        _connect(ray, address)
    try:
        with running_on(RayCluster(ray, address)):
            yield
    finally:
        if not was_there:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    """Connect to a cluster; try again where Ray failed to start its part.

    Raises
    ------
    InputError
        The cluster cannot be reached, or Ray failed every time.
    """
    for attempt in range(1, _CONNECTIONS + 1):
        try:
            ray.init(log_to_driver=False, **_where(address))
            return
        except Exception as error:  # Ray raises a plain Exception if a node does not start in time
            ray.shutdown()
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
            if not any(sign in str(error) for sign in _FAILED_STARTS):
                raise InputError(
                    f"--on {address}: no Ray cluster at this address: {lines[0]}",
                    hint="start one with ray start --head",
                ) from error
            if attempt == _CONNECTIONS:
                raise InputError(
                    f"--on {address}: Ray failed to start {_CONNECTIONS} times: {lines[-1]}",
                    hint="look at the cluster's logs, or run without --on",
                ) from error


def _where(address: str) -> dict[str, Any]:
    """A cluster's address for Ray; ``local`` starts one here, on the loopback interface, without usage reports."""
    if address != "local":
        return {"address": address}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}


def each_of(function: Callable[[J], R], jobs: Sequence[J], worth: int, processes: int | None = None) -> Iterator[R]:
    """Results of a function for each job, in order: in this process, or in a process pool if there are ``worth`` jobs.

    Within :func:`on_cluster` the cluster runs the jobs, whatever their number. Processes are spawned, not forked: a
    fork would copy threads and locks of libraries.
    """
    workers = _WORKERS.get()
    if workers is not None:
        yield from workers.each_of(function, jobs)
        return
    most = 1 if _IS_WORKER.get() else min(processes or os.cpu_count() or 1, len(jobs))
    if most <= 1 or len(jobs) < worth:
        yield from map(function, jobs)
        return
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with ProcessPoolExecutor(most, get_context("spawn"), _end_on_interrupt) as pool:
        try:
            with _interrupts_held():
                results = pool.map(function, jobs)
            yield from results
        except BrokenProcessPool as error:
            raise MelangeError(
                f"one of {most} worker processes was killed, probably because the machine ran out of memory",
                hint="use a machine with more memory, or let other programs end first",
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends, also in the processes started in it, which inherit this."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_on_interrupt() -> None:
    """Let Ctrl-C end this worker at once: Python would print a traceback. Until now it was held back."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
