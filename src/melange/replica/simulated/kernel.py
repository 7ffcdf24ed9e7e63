"""The compiled simulation that ships with the package, so that the first run need not wait for a compiler.

Numba takes ten seconds to compile ``compiled_loop.run`` to machine code, nearly all of them to produce LLVM's optimized
intermediate code. That code is stored in ``kernel.bin``, stripped and compressed. LLVM compiles it to machine code in a
quarter of a second, once per process and without Numba. Its results are identical to the bit.

A shipped kernel is used only if it is known to fit: the sources are those that it was made from, LLVM is not older
than the version that made it, and the arrays have the types that it was made for. Otherwise Numba compiles, as it
does after a change of the sources; ``make kernel`` writes the file (:mod:`melange.replica.simulated.make_kernel`).
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.replica.simulated.outcome import BINS, FAILED, GROWTH, LEAST_GAP_S, REFUSED, SERVED
from melange.replica.step import StepCost

_HERE = Path(__file__).parent
FILE = _HERE / "kernel.bin"
# All files whose text determines the kernel: functions, constants, and how they are compiled.
SOURCES = (
    "../policy.py",
    "../policy_state.py",
    "batching.py",
    "blocks.py",
    "columns.py",
    "compiled_index.py",
    "compiled_loop.py",
    "compiled_policy.py",
    "compiled_step.py",
    "compiling.py",
    "gaps.py",
    "heaps.py",
    "replica_index.py",
)
# Values that these files import from modules that are not compiled: the columns of step costs, and constants.
GIVEN = {
    "StepCost": [field.name for field in fields(StepCost)],
    "SERVED": SERVED,
    "REFUSED": REFUSED,
    "FAILED": FAILED,
    "LEAST_GAP_S": LEAST_GAP_S,
    "GROWTH": GROWTH,
    "BINS": BINS,
}
# Functions that the kernel calls: those of the C library, and those that LLVM may turn into a call of it.
EXTERNALS = ("ceil", "expm1", "log", "memcpy", "memmove", "memset", "pow", "sqrt")
# The kernel's entry point: it takes the address of 8-byte words (see :func:`words_of`).
ENTRY = "run"
_NUMBERS = {"int": int, "float": float}
# If set to 1, Numba compiles here even if a kernel is shipped.
_COMPILE = "MELANGE_COMPILE"


Kind = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The content of ``kernel.bin``.

    Parameters
    ----------
    sources
        Digest of the sources that it was made from.
    llvm
        Version of the LLVM that made it.
    arguments
        The kinds of its arguments, as from :func:`kinds`.
    bitcode
        LLVM's bitcode, for any 64-bit little-endian processor.
    """

    sources: str
    llvm: tuple[int, ...]
    arguments: tuple[Kind, ...]
    bitcode: bytes

    def to_bytes(self) -> bytes:
        """The stored form: a line of JSON and the bitcode, compressed."""
        head = {"sources": self.sources, "llvm": self.llvm, "arguments": self.arguments}
        return zlib.compress(json.dumps(head).encode() + b"\n" + self.bitcode, 9)

    @classmethod
    def from_bytes(cls, content: bytes) -> Kernel:
        """From the result of :meth:`to_bytes`."""
        line, _, bitcode = zlib.decompress(content).partition(b"\n")
        head = json.loads(line)
        return cls(
            sources=head["sources"],
            llvm=tuple(head["llvm"]),
            arguments=tuple(map(tuple, head["arguments"])),
            bitcode=bitcode,
        )


def sources_digest() -> str:
    """Digest of the current sources, independent of the line ends of the checkout."""
    texts = [(_HERE / name).read_bytes().replace(b"\r\n", b"\n") for name in SOURCES]
    texts.append(json.dumps(GIVEN).encode())
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def run(*arguments: Any) -> None:
    """``compiled_loop.run``: the shipped kernel if it fits these arguments, otherwise compiled by Numba."""
    loaded = shipped()
    words = words_of(loaded.arguments, arguments) if loaded is not None else None
    if loaded is not None and words is not None:
        status = loaded.function(words.ctypes.data)
        if status != 0:
            raise RuntimeError(f"the simulation's kernel ended with {status}")
        return
    from melange.replica.simulated.compiled_loop import run as compiled

    compiled(*arguments)


@contextlib.contextmanager
def compilation_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Report the number of functions compiled while Numba compiles; nothing if all were compiled before."""
    if shipped() is not None:
        yield
        return
    from melange.replica.simulated.compiling import compilation_told as told

    with told(tell):
        yield


def kinds(arguments: Sequence[Any]) -> tuple[Kind, ...]:
    """Type and axes of each array (``("<f8", 2)``) and each number (``("float", 0)``); tuples are flattened."""
    return tuple(
        (one.dtype.str, one.ndim) if isinstance(one, np.ndarray) else (type(one).__name__, 0)
        for one in _flat(arguments)
    )


def _flat(arguments: Sequence[Any]) -> Iterator[Any]:
    for one in arguments:
        if isinstance(one, tuple):
            yield from one
        else:
            yield one


def words_of(expected: Sequence[tuple[Any, int]], arguments: Sequence[Any]) -> npt.NDArray[np.int64] | None:
    """Arguments in the order and form of Numba's own calls: an array is seven words or more, a number one.

    None if they are not what the kernel expects: it works on raw addresses, and would write out of bounds.
    """
    words: list[int] = []
    given = tuple(_flat(arguments))
    if len(given) != len(expected):
        return None
    for (kind, axes), one in zip(expected, given, strict=True):
        if kind is float:
            words += struct.unpack("<q", struct.pack("<d", one))
        elif kind is int:
            words.append(one)
        elif not isinstance(one, np.ndarray) or one.dtype != kind or one.ndim != axes or not one.flags.carray:
            return None
        else:
            address = one.__array_interface__["data"][0]
            words += (0, 0, one.size, one.itemsize, address, *one.shape, *one.strides)
    return np.array(words, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """A kernel's machine code, and the types of its arguments: dtypes with their axes, int or float."""

    arguments: tuple[tuple[Any, int], ...]
    function: Callable[[int], int]
    engine: object  # its memory holds the code


@cache
def shipped() -> _Loaded | None:
    """The shipped kernel; None if it must not be used."""
    if os.environ.get(_COMPILE) == "1" or sys.byteorder != "little" or sys.maxsize != 2**63 - 1:
        return None
    try:
        kernel = Kernel.from_bytes(FILE.read_bytes())
        return _load(kernel) if kernel.sources == sources_digest() else None
    except (ImportError, AttributeError, OSError, RuntimeError, KeyError, TypeError, ValueError, zlib.error):
        return None  # Numba reports the error, if it fails too


def _load(kernel: Kernel) -> _Loaded:
    """Machine code of a kernel for this processor; raises ``RuntimeError`` if LLVM cannot compile it."""
    import llvmlite.binding as llvm

    if llvm.llvm_version_info < kernel.llvm:
        raise RuntimeError("LLVM reads what older ones wrote, and not what newer ones did")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # LLVM ends the process if it cannot find a function, so each function is resolved for it.
    library = ctypes.CDLL("ucrtbase" if os.name == "nt" else None)
    for name in EXTERNALS:
        llvm.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(  # for a generic processor: as fast, and identical everywhere
        opt=3,
        reloc="static" if target.name.startswith("x86") else "default",  # as in Numba
        codemodel="jitdefault",
        jit=True,
    )
    module = llvm.parse_bitcode(kernel.bitcode)
    module.triple, module.data_layout = llvm.get_process_triple(), str(machine.target_data)
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return _Loaded(
        arguments=tuple((_NUMBERS.get(name) or np.dtype(name), axes) for name, axes in kernel.arguments),
        function=ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(engine.get_function_address(ENTRY)),
        engine=engine,
    )
