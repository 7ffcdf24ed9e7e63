"""Compile the simulator's functions with Numba, and decide when cached results of an earlier compilation are valid."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from numba import njit
from numba.core import event

from melange.replica.simulated.kernel import sources_digest

_FUNCTIONS = 80  # number of functions that a simulation compiles, for the progress message
# Division by zero gives infinity as in NumPy: no divisor here can be 0, and checks take time to compile.
# No memory manager (nrt): compiled functions allocate no arrays, and code without it runs without Numba.
FLAGS = {"error_model": "numpy", "_nrt": False}


def compiled(function: Callable[..., Any]) -> Any:
    """A function that Numba compiles when it is first called, and caches for later processes.

    The cached result is used as long as no source changes; Numba itself only checks the time and size of a function's
    own file, not of the files of functions compiled into it. If Numba has no folder to write to (neither the package's
    nor the user's), or its cache has changed its form, each process compiles the function itself.
    """
    try:
        dispatcher = njit(cache=True, **FLAGS)(function)
        file = dispatcher._cache._cache_file
        file._source_stamp = (file._source_stamp, sources_digest())
    except (AttributeError, RuntimeError):
        return njit(**FLAGS)(function)
    return dispatcher


def inner(function: Callable[..., Any]) -> Any:
    """The same for a function that only compiled functions call: it is cached as a part of them, without a wrapper.

    A wrapper for calls from Python would take as long to compile as the function.
    """
    return njit(**FLAGS, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


@contextlib.contextmanager
def compilation_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Report the number of functions compiled while Numba compiles; nothing if all were compiled before."""
    with event.install_listener("numba:compile", _Told(tell)):
        yield


class _Told(event.Listener):  # type: ignore[misc]
    """Counts the functions that Numba has compiled."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._compiled = tell, 0

    def on_start(self, _: object) -> None:
        """Do nothing: a compilation is counted when it ends."""

    def on_end(self, _: object) -> None:
        """Count one more function."""
        self._compiled += 1
        self._tell(f"compiling once, {self._compiled} of about {_FUNCTIONS} functions")
