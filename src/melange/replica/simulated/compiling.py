"""How Numba compiles the simulator's functions, and when what it compiled before is still good."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from numba import njit
from numba.core import event

from melange.replica.simulated.kernel import sources_digest

_FUNCTIONS = 80  # that a simulation is compiled from: a figure for those who wait
# Division by zero gives infinity as in NumPy: nothing here divides by what may be 0, and checks take time to compile.
# No memory manager (nrt): compiled functions make no arrays, and what needs none runs without Numba.
FLAGS = {"error_model": "numpy", "_nrt": False}


def compiled(function: Callable[..., Any]) -> Any:
    """A function that Numba compiles when it is first called, and keeps for the next process.

    It is kept as long as no source changes: Numba looks at the time and size of a function's own file, and not at those
    of the functions that are compiled into it. Where Numba has no folder to write to (neither the package's nor the
    user's), or keeps things in another way than it did, each process compiles for itself.
    """
    try:
        dispatcher = njit(cache=True, **FLAGS)(function)
        file = dispatcher._cache._cache_file
        file._source_stamp = (file._source_stamp, sources_digest())
    except (AttributeError, RuntimeError):
        return njit(**FLAGS)(function)
    return dispatcher


def inner(function: Callable[..., Any]) -> Any:
    """The same of a function that only compiled ones call: it is kept as a part of them, and has no way in from Python.

    That way would take as long to compile as the function.
    """
    return njit(**FLAGS, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


@contextlib.contextmanager
def compilation_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Say how many functions have been compiled, while they are; nothing where all had been compiled before."""
    with event.install_listener("numba:compile", _Told(tell)):
        yield


class _Told(event.Listener):  # type: ignore[misc]
    """Counts what Numba has compiled."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._compiled = tell, 0

    def on_start(self, _: object) -> None:
        """Nothing is done yet."""

    def on_end(self, _: object) -> None:
        """One function more."""
        self._compiled += 1
        self._tell(f"compiling once, {self._compiled} of about {_FUNCTIONS} functions")
