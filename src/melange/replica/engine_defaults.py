"""What releases of engines ship with, where that differs from the settings of their era."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melange.replica.releases import number_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """Defaults of an engine from a release on.

    Parameters
    ----------
    engine
        ``vllm``, ``sglang``, ``trtllm``.
    first
        The first release with them; empty: all.
    settings
        As of :class:`~melange.replica.engine_settings.EngineSettings`, what differs.
    source
        Where the engine says so, and when that was looked up.
    """

    engine: str
    first: str
    settings: Mapping[str, Any]
    source: str


# In the order of releases: later ones replace earlier ones.
_SHIPPED = (
    Shipped(
        engine="vllm",
        first="0.8",
        settings={"is_prefix_caching": True},
        source="V1, the default engine from 0.8: on unless turned off; the source of 0.8 was not looked up",
    ),
    Shipped(
        engine="vllm",
        first="0.25",
        settings={"memory_utilization": 0.92},
        source="vllm/config/cache.py at v0.25.0; 0.9 up to v0.19 (2026-11-26)",
    ),
    Shipped(
        engine="sglang",
        first="",
        settings={"is_prefix_caching": True},
        source="SGLang documents: RadixAttention unless --disable-radix-cache (2026-11-26)",
    ),
    Shipped(
        engine="trtllm",
        first="1.0",
        settings={"is_prefix_caching": True},
        source="LLM API reference, KvCacheConfig: enable_block_reuse = True (1.3; 2026-11-26)",
    ),
)


def shipped_settings(engine: str, release: str) -> dict[str, Any]:
    """Settings that a release of an engine ships with, besides those of its era.

    Without a release those of the measured era hold, but for prefix caching, which costs nothing where prompts share
    nothing: it is as in the newest release.

    >>> shipped_settings("vllm", "0.6.4"), shipped_settings("vllm", "0.25.1")
    ({}, {'is_prefix_caching': True, 'memory_utilization': 0.92})
    """
    found: dict[str, Any] = {}
    for one in _SHIPPED:
        if one.engine == engine and (not release or number_of(one.first) <= number_of(release)):
            found |= one.settings
    if not release:
        found = {name: value for name, value in found.items() if name == "is_prefix_caching"}
    return found
