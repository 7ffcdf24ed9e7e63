"""How the simulator's functions are compiled, and when what was compiled before is still good."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from numba import njit
from numba.core import event

# Division by zero gives infinity as in NumPy: nothing here divides by what may be 0, and checks take time to compile.
# No memory manager (nrt): compiled functions make no arrays, and what needs none runs without Numba.
FLAGS = {"error_model": "numpy", "_nrt": False}
compiled = partial(njit, cache=True, **FLAGS)
# What only compiled code calls needs no way in from Python, which would take as long to compile as the function.
inner = partial(compiled, no_cpython_wrapper=True, no_cfunc_wrapper=True)

_HERE = Path(__file__).parent
_FOLDERS = (_HERE, _HERE.parent)


def forget_outdated() -> None:
    """Remove compiled functions whose sources have changed.

    Numba looks at the file of a function and not at those of the functions that it calls, which are compiled into it.
    Where the package's folder cannot be written, Numba keeps them elsewhere, by the time of the package's own files.
    """
    sources = [path for folder in _FOLDERS for path in sorted(folder.glob("*.py"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    mark = _HERE / "__pycache__" / "compiled-sources.txt"
    with contextlib.suppress(OSError):
        if mark.exists() and mark.read_text(encoding="utf-8") == digest:
            return
        for folder in _FOLDERS:
            for path in [*folder.glob("__pycache__/*.nbi"), *folder.glob("__pycache__/*.nbc")]:
                path.unlink(missing_ok=True)
        mark.write_text(digest, encoding="utf-8")


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
        self._tell(f"{self._compiled} functions")
