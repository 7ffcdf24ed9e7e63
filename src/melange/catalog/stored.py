"""How weights are stored: numbers of a few bits with scales for groups of them, by module and by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from melange.catalog.layers import BYTES_BY_DTYPE
from melange.catalog.module_rules import ModuleRules
from melange.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """How weights are stored and multiplied.

    Parameters
    ----------
    dtype
        Data type, as :class:`~melange.catalog.layers.Weights` has it.
    bits
        Bits of a value with scales and zeros; 0: as usual for the data type.
    multiplied
        Data type in which they are multiplied; empty: that of the model as published.
    """

    dtype: str
    bits: float = 0.0
    multiplied: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a checkpoint is quantized.

    Parameters
    ----------
    published
        Data type of what is not quantized.
    default
        What every linear layer is stored in that no rule names; None: as published.
    rules
        Patterns of modules, and what they are stored in; the first that matches decides. None: as published.
    kept
        Patterns of modules that stay as published.
    kv_dtype
        Data type of the KV cache.
    routed
        What routed experts are stored in that no rule names, where that is not ``default``.
    """

    published: str
    default: Stored | None = None
    rules: tuple[tuple[str, Stored | None], ...] = ()
    kept: tuple[str, ...] = ()
    kv_dtype: str = ""
    routed: Stored | None = None

    def reader(self) -> Callable[[int, str, bool], Stored]:
        """What a matrix is stored in, by its layer, its name there and whether it is of routed experts."""
        kept = ModuleRules(self.kept)
        rules = ModuleRules([pattern for pattern, _ in self.rules])

        def stored(layer: int, matrix: str, is_routed: bool) -> Stored:
            found = None
            if kept.rule_of(layer, matrix) is None:
                rule = rules.rule_of(layer, matrix)
                if rule is not None:
                    found = self.rules[rule][1]
                else:
                    found = self.routed if is_routed and self.routed is not None else self.default
            if found is None:
                return Stored(dtype=self.published, multiplied=self.published)
            return Stored(dtype=found.dtype, bits=found.bits, multiplied=found.multiplied or self.published)

        return stored


def checked(value: Any, place: str, least: float = 0.0) -> float:
    """A number as a configuration has it, or an error that names its place."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
        raise InputError(f"{place}: must be a number >= {least:g}, got {value!r}")
    return float(value)


def integer(
    bits: float, group: float, *, has_zeros: bool, place: str, multiplied: str = "", scale: float = 16
) -> Stored:
    """Whole numbers of a few bits, with a scale and perhaps a zero for each group; no group: for each channel."""
    if not 2 <= bits <= 8 or bits != int(bits):
        raise InputError(f"{place}: must be 2 to 8 bits, got {bits:g}")
    extra = (scale + (bits if has_zeros else 0)) / group if group > 0 else 0.0
    dtype = "int8" if bits > 4 else "int4"
    return Stored(dtype=dtype, bits=_unless_usual(bits + extra, dtype), multiplied=multiplied)


def floating(bits: float, group: float, *, scale: float, multiplied: str, place: str) -> Stored:
    """Floating point of four or eight bits, with a scale for each group; no group: for each channel or block."""
    if bits not in (4, 6, 8):
        raise InputError(f"{place}: floating point of {bits:g} bits is not supported")
    dtype = "fp4" if bits == 4 else "fp8"
    extra = scale / group if group > 0 else 0.0
    return Stored(dtype=dtype, bits=_unless_usual(bits + extra, dtype), multiplied=multiplied)


def _unless_usual(bits: float, dtype: str) -> float:
    """0 where the data type means these bits anyway."""
    return 0.0 if abs(bits / 8 - BYTES_BY_DTYPE[dtype]) < 1e-9 else bits


def part_of(value: Any, place: str) -> dict[str, Any]:
    """An object as a configuration has it, empty where it is absent, or an error that names its place."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{place}: must be an object, got {value!r}")
    return value
