"""How the simulator's functions are compiled."""

from __future__ import annotations

from functools import partial

from numba import njit

# Division by zero gives infinity as in NumPy: nothing here divides by what may be 0, and checks take time to compile.
compiled = partial(njit, cache=True, error_model="numpy")
# What only compiled code calls needs no way in from Python, which would take as long to compile as the function.
inner = partial(compiled, no_cpython_wrapper=True, no_cfunc_wrapper=True)
