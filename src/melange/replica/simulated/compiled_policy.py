"""The policies compiled for the simulator, from the same source as :mod:`melange.replica.policy`."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from types import FunctionType, ModuleType

from melange.replica import policy
from melange.replica.simulated.compiled_index import is_any_up, least_full, least_work
from melange.replica.simulated.compiling import compiled, inner

_NAME = "melange.replica._compiled_policy"
# Functions that scan all replicas, and what takes their place.
_ON_INDEX = {"_least_work": least_work, "_least_full": least_full, "_is_any_up": is_any_up}


@cache
def compiled_policy() -> ModuleType:
    """A second copy of the module of policies whose functions Numba compiles when they are first called.

    The functions of the copy call each other within the copy, so that compiled functions call compiled ones. They
    take a state with an index over its replicas, instead of scanning them.
    """
    spec = importlib.util.spec_from_file_location(_NAME, policy.__file__)
    if spec is None or spec.loader is None:
        raise ImportError(f"{policy.__file__} cannot be loaded again")
    copy = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = copy
    spec.loader.exec_module(copy)
    for name, value in list(vars(copy).items()):
        if isinstance(value, FunctionType) and value.__module__ == _NAME:
            # Tests call the public functions from Python.
            one = _ON_INDEX.get(name, value)
            setattr(copy, name, inner(one) if name.startswith("_") else compiled(one))
    return copy
