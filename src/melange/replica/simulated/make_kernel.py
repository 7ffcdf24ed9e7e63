"""Write ``kernel.bin``, the compiled simulation that ships with the package, or check that it is up to date.

    python -m melange.replica.simulated.make_kernel            # half a minute
    python -m melange.replica.simulated.make_kernel --check

Numba compiles ``compiled_loop.run`` for a generic processor: without vector instructions, which some processors lack,
and without a memory manager or exceptions, which would require Numba at run time. The functions that it calls are
checked.
"""

from __future__ import annotations

import re
import sys
import tempfile
from typing import Any, get_type_hints

import llvmlite.binding as llvm
import numpy as np
from numba import config, njit, typeof

from melange.replica.engine import Engine
from melange.replica.policy_state import Ints, PolicyState
from melange.replica.simulated.cluster import requests_of, script_of, world_of
from melange.replica.simulated.kernel import ENTRY, EXTERNALS, FILE, Kernel, kinds, sources_digest
from melange.replica.simulated.replica_index import indexed
from melange.replica.step import StepCost

# Functions that LLVM turns into instructions; others (``llvm.pow.f64``) become calls of EXTERNALS.
_INSTRUCTIONS = ("smax", "smin", "umax", "umin", "abs", "fabs", "lifetime", "assume")


def made() -> Kernel:
    """The kernel from the current sources."""
    with tempfile.TemporaryDirectory() as folder:
        config.CACHE_DIR = folder
        config.CPU_NAME, config.CPU_FEATURES = "generic", ""
        config.LOOP_VECTORIZE = config.SLP_VECTORIZE = 0
        from melange.replica.simulated.compiled_loop import run
        from melange.replica.simulated.compiling import FLAGS

        arguments = _any_arguments()
        entry = njit(**FLAGS, no_cpython_wrapper=True, no_cfunc_wrapper=True)(run.py_func)
        entry.compile(tuple(map(typeof, arguments)))
        (result,) = entry.overloads.values()
        bitcode, version = _stripped(result.library.get_llvm_str(), result.fndesc.llvm_func_name)
    return Kernel(sources=sources_digest(), llvm=version, arguments=kinds(arguments), bitcode=bitcode)


def _any_arguments() -> tuple[Any, ...]:
    """Arguments as ``play`` passes them, for one request on one replica: the kernel is compiled for their types."""
    cost = StepCost(**dict.fromkeys(StepCost.__dataclass_fields__, 1.0))
    one = np.ones(1, np.int64)
    world = world_of(
        [Engine(cost=cost, kv_tokens=1000.0, full_layers=1)], *requests_of(np.zeros(1), one, one, None, None)
    )
    fleet = PolicyState(
        **{name: np.ones(1, int if kind == Ints else float) for name, kind in get_type_hints(PolicyState).items()}
    )
    return world, script_of((), 0.0, 1), indexed(fleet), 0, np.zeros(1), np.zeros(1), 0, 1, 0.0


def _stripped(assembly: str, function: str) -> tuple[bytes, tuple[int, ...]]:
    """A function's bitcode with all functions that it calls and nothing else, and LLVM's version."""
    unnamed = re.sub(r'!"_ZN[^"]*"', '!"scope"', assembly)  # scope names of arguments are longer than the rest together
    module = llvm.parse_assembly(unnamed + _entry(assembly, function))
    for one in [*module.functions, *module.global_variables]:
        if not one.is_declaration and one.name != ENTRY:
            one.linkage = "internal"
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.slp_vectorization = False
    passes = llvm.create_pass_builder(llvm.Target.from_default_triple().create_target_machine(), tuning)
    passes.getModulePassManager().run(module, passes)
    defined = [one for one in module.functions if not one.is_declaration and one.name != ENTRY]
    for number, one in enumerate(defined):
        one.name = f"part_{number}"
    called = [one.name for one in module.functions if one.is_declaration]
    plain = [name.removeprefix("llvm.").partition(".")[0] for name in called]
    foreign = [name for name in plain if name not in (*EXTERNALS, *_INSTRUCTIONS)]
    foreign += [one.name for one in module.global_variables if one.is_declaration]
    if foreign:
        raise SystemExit(f"the kernel would need {', '.join(sorted(foreign))}, which is not there without Numba")
    return module.as_bitcode(), tuple(llvm.llvm_version_info)


def _entry(assembly: str, function: str) -> str:
    """A wrapper that reads a function's arguments from consecutive 8-byte words.

    Numba's first two arguments are the addresses of results and exceptions, which are not used.
    """
    (called,) = (one for one in llvm.parse_assembly(assembly).functions if one.name == function)
    types = [str(one.type) for one in called.arguments]
    loads = [
        f"%at{place} = getelementptr i64, ptr %words, i64 {place - 2}\n%word{place} = load {kind}, ptr %at{place}\n"
        for place, kind in enumerate(types)
        if place >= 2
    ]
    handed = ", ".join(f"{kind} {f'%word{place}' if place >= 2 else '%nowhere'}" for place, kind in enumerate(types))
    return (
        f"\ndefine i32 @{ENTRY}(ptr %words) {{\n%nowhere = alloca [2 x i64]\n"
        + "".join(loads)
        + f'%status = call i32 @"{function}"({handed})\nret i32 %status\n}}\n'
    )


def main() -> None:
    """Write the file, or report that it is out of date."""
    if "--check" in sys.argv[1:]:
        if not FILE.exists() or Kernel.from_bytes(FILE.read_bytes()).sources != sources_digest():
            sys.exit(f"{FILE.name} is out of date: run make kernel")
        return
    content = made().to_bytes()
    FILE.write_bytes(content)
    print(f"{FILE.name}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
