"""Default settings of engine releases, if they differ from the settings of their era."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melange.replica.releases import number_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """Defaults of an engine since a given release.

    Parameters
    ----------
    engine
        ``vllm``, ``sglang``, ``trtllm``.
    first
        The first release with these defaults; empty: all releases.
    settings
        Settings that differ, as in :class:`~melange.replica.engine_settings.EngineSettings`.
    source
        The engine's documentation of these defaults, and the date of the look-up.
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
    """Default settings of an engine release that differ from those of its era.

    Without a release, the defaults of the measured era apply, except for prefix caching, which costs nothing if prompts
    share no prefix: it is as in the newest release.

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
