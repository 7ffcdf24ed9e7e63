"""Releases of engines, and the era that a release belongs to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from melange.errors import InputError

# Names of engines in requirements and images.
ENGINE_BY_ALIAS = {"tensorrt-llm": "trtllm", "tensorrt_llm": "trtllm", "trt-llm": "trtllm"}
_PINNED = re.compile(r"\s*([a-z][a-z0-9._-]*?)\s*===?\s*v?(\d+(?:\.\d+)*)(?:[.+-]?[a-z][\w.+-]*)?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """The releases of an engine that belong to an era.

    Parameters
    ----------
    engine
        ``vllm``, ``sglang``, ``trtllm``.
    first, before
        The first release of the era, and the first one after it; empty: from the beginning, and until now.
    measured
        Oldest and newest release that was measured; empty if the measurements do not say.
    """

    engine: str
    first: str = ""
    before: str = ""
    measured: tuple[str, ...] = ()

    def holds(self, release: str) -> bool:
        """Whether a release belongs to the era."""
        return number_of(self.first) <= number_of(release) and (
            not self.before or number_of(release) < number_of(self.before)
        )

    def is_measured(self, release: str) -> bool:
        """Whether a release lies between the oldest and the newest measured ones, by minor version."""
        if not self.measured:
            return False
        oldest, newest = (number_of(one)[:2] for one in (self.measured[0], self.measured[-1]))
        return oldest <= number_of(release)[:2] <= newest


NO_RELEASES = Releases(engine="")


def number_of(release: str) -> tuple[int, ...]:
    """A release as comparable numbers: ``0.10`` is later than ``0.9``, and ``1.0`` equals ``1``.

    >>> number_of("0.10") > number_of("0.9.2"), number_of("1.0") == number_of("1")
    (True, True)
    """
    parts = [int(part) for part in release.split(".") if part]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def pinned(engine: str) -> tuple[str, str]:
    """Engine and release of ``vllm==0.6.4``; without a release, the name unchanged and an empty release.

    Raises
    ------
    InputError
        The release is not a version, or is a range that several releases match.

    >>> pinned("vllm==0.6.4.post1"), pinned("TensorRT-LLM==0.15"), pinned("sglang")
    (('vllm', '0.6.4'), ('trtllm', '0.15'), ('sglang', ''))
    """
    if not re.search(r"[=<>~!]", engine):
        return ENGINE_BY_ALIAS.get(engine.casefold(), engine), ""
    found = _PINNED.fullmatch(engine)
    if not found:
        raise InputError(
            f"engine: {engine!r} names no release", hint="one release, as in engine: vllm==0.6.4; or the engine alone"
        )
    name = found[1].casefold()
    return ENGINE_BY_ALIAS.get(name, name), found[2]


def era_of_release(release: str, eras: Sequence[tuple[str, Releases]]) -> tuple[str, bool]:
    """The name of the era that includes a release and True, or the name of the nearest era and False.

    If several eras include it, the era measured on this release is used, otherwise the first. The nearest era is the
    next newer one, since engines change less after a release than before it; the newest era if there is none.
    """
    holding = [(name, one) for name, one in eras if one.holds(release)]
    if holding:
        return next((name for name, one in holding if one.is_measured(release)), holding[0][0]), True
    newer = [(number_of(one.first), name) for name, one in eras if number_of(one.first) > number_of(release)]
    if newer:
        return min(newer)[1], False
    return max((number_of(one.first), name) for name, one in eras)[1], False
