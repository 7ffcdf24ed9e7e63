"""How weights are stored: low-bit values with scales for groups of them, by module and by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from melange.catalog.layers import BYTES_BY_DTYPE
from melange.catalog.module_rules import ModuleRules
from melange.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The storage format of weights, and the data type of their multiplication.

    Parameters
    ----------
    dtype
        Data type, as in :class:`~melange.catalog.layers.Weights`.
    bits
        Bits of a value with scales and zeros; 0: the usual number for the data type.
    multiplied
        Data type of multiplication; empty: that of the model as published.
    """

    dtype: str
    bits: float = 0.0
    multiplied: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """The quantization of a checkpoint.

    Parameters
    ----------
    published
        Data type of weights that are not quantized.
    default
        Format of all linear layers without a rule; None: as published.
    rules
        Patterns of modules with their formats; the first that matches decides. None: as published.
    kept
        Patterns of modules that stay as published.
    kv_dtype
        Data type of the KV cache.
    routed
        Format of routed experts without a rule, if it is not ``default``.
    """

    published: str
    default: Stored | None = None
    rules: tuple[tuple[str, Stored | None], ...] = ()
    kept: tuple[str, ...] = ()
    kv_dtype: str = ""
    routed: Stored | None = None

    def reader(self) -> Callable[[int, str, bool], Stored]:
        """A function that gives the format of a matrix by layer, name and whether it belongs to routed experts."""
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
    """A number from a configuration, or an error that names its place."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
        raise InputError(f"{place}: must be a number >= {least:g}, got {value!r}")
    return float(value)


def integer(
    bits: float, group: float, *, has_zeros: bool, place: str, multiplied: str = "", scale: float = 16
) -> Stored:
    """Low-bit integers with a scale and possibly a zero per group; without a group, per channel."""
    if not 2 <= bits <= 8 or bits != int(bits):
        raise InputError(f"{place}: must be 2 to 8 bits, got {bits:g}")
    extra = (scale + (bits if has_zeros else 0)) / group if group > 0 else 0.0
    dtype = "int8" if bits > 4 else "int4"
    return Stored(dtype=dtype, bits=_unless_usual(bits + extra, dtype), multiplied=multiplied)


def floating(bits: float, group: float, *, scale: float, multiplied: str, place: str) -> Stored:
    """Floating point of four or eight bits with a scale per group; without a group, per channel or block."""
    if bits not in (4, 6, 8):
        raise InputError(f"{place}: floating point of {bits:g} bits is not supported")
    dtype = "fp4" if bits == 4 else "fp8"
    extra = scale / group if group > 0 else 0.0
    return Stored(dtype=dtype, bits=_unless_usual(bits + extra, dtype), multiplied=multiplied)


def _unless_usual(bits: float, dtype: str) -> float:
    """0 if this is the usual number of bits for the data type; otherwise the number of bits."""
    return 0.0 if abs(bits / 8 - BYTES_BY_DTYPE[dtype]) < 1e-9 else bits


def part_of(value: Any, place: str) -> dict[str, Any]:
    """An object from a configuration, empty if it is absent, or an error that names its place."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{place}: must be an object, got {value!r}")
    return value
