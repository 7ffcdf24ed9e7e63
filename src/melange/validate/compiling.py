"""How the simulator's functions are compiled, and when what was compiled before is still good."""

from __future__ import annotations

import contextlib
import hashlib
from functools import partial
from pathlib import Path

from numba import njit

# Division by zero gives infinity as in NumPy: nothing here divides by what may be 0, and checks take time to compile.
compiled = partial(njit, cache=True, error_model="numpy")
# What only compiled code calls needs no way in from Python, which would take as long to compile as the function.
inner = partial(compiled, no_cpython_wrapper=True, no_cfunc_wrapper=True)

_HERE = Path(__file__).parent
_FOLDERS = (_HERE, _HERE.parent / "balance")


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
