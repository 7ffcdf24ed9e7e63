"""Prompts that begin like earlier prompts: how much of them a prefix cache holds, by the size of the cache.

A prompt is a sequence of blocks. A cache of C blocks that evicts the least recently used block still holds a block if
fewer than C different blocks were used since (Mattson et al., 1970), so one pass over a log gives the hits for every
size. Blocks of one prompt are used from end to start, as engines free them: the blocks found are then a prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.errors import InputError
from melange.files import Json
from melange.records import number, text, value_of

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

# Numbers of caches among which the requests of a log are spread at random; more caches count as the last number.
CACHES = (1, 2, 4, 16, 64)
# Number of cache sizes: neighbors differ by a tenth or less.
_SIZES = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixReuse:
    """The part of prompts that earlier prompts share, and the part of it that a prefix cache still holds.

    Parameters
    ----------
    reusable_share
        Share of the prompt tokens of each input bucket that earlier prompts also began with (I,), 0-1: the hit rate of
        an unlimited cache.
    cache_tokens
        Sizes of a cache, ascending (K,) [tokens]; empty if the times between prompts with a common prefix are unknown.
    caches, kept
        Number of caches over which requests are spread at random (N), the first 1; and the share of the reusable tokens
        that the cache of a request still holds, if each cache has that size (N, K), 0-1.
    log_rate
        Requests per second of the log [1/s]: at a higher rate, more requests arrive between two prompts with a common
        prefix.
    source
        Where the figures come from, in words.

    Raises
    ------
    InputError
        Shares outside of 0-1, tables of another shape.
    """

    reusable_share: Array
    cache_tokens: Array
    kept: Array
    caches: tuple[int, ...] = (1,)
    log_rate: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("reusable_share", "cache_tokens", "kept"):
            object.__setattr__(self, name, np.array(getattr(self, name), float))
        if self.kept.shape != (len(self.caches), len(self.cache_tokens)) or self.caches[0] != 1:
            raise InputError(f"prefix_reuse.kept: {len(self.caches)} x {len(self.cache_tokens)} shares are needed")
        for name in ("reusable_share", "kept"):
            values = getattr(self, name)
            if not ((values >= 0) & (values <= 1)).all():
                raise InputError(f"prefix_reuse.{name}: shares must be 0 to 1")

    @classmethod
    def fixed(cls, share: Sequence[float] | Array, source: str) -> PrefixReuse:
        """Hit rates by input bucket (I,) that hold for any cache size."""
        return cls(reusable_share=np.asarray(share), cache_tokens=np.empty(0), kept=np.empty((1, 0)), source=source)

    @property
    def depends_on_cache(self) -> bool:
        """Whether the hits of a cache are known by its size; otherwise the shares hold for all sizes."""
        return len(self.cache_tokens) > 0

    def kept_share(self, cache_tokens: float, request_rate: float, caches: float = 1.0) -> float:
        """Share of the reusable tokens that a replica's cache still holds, 0-1.

        Parameters
        ----------
        cache_tokens
            Size of the replica's cache [tokens].
        request_rate
            Requests per second that come to the replica [1/s].
        caches
            Number of replicas over which requests with a common prefix are spread at random; 1: all go to one replica.
        """
        if not self.depends_on_cache:
            return 1.0
        place = np.log2(min(max(caches, 1.0), self.caches[-1]))
        by_caches = [self._at(row, cache_tokens * self.log_rate / (n * request_rate)) for row, n in self._rows()]
        return float(np.interp(place, np.log2(self.caches), by_caches))

    def hit_share(self, cache_tokens: float, weight: Array | None = None) -> float:
        """Share of prompt tokens that one cache of this size holds at the log's own rate, 0-1.

        ``weight`` are the prompt tokens of each input bucket (I,); None: equal weights.
        """
        reusable = float(np.average(self.reusable_share, weights=weight))
        return reusable * self.kept_share(cache_tokens, self.log_rate or 1.0)

    def _rows(self) -> list[tuple[Array, int]]:
        return list(zip(self.kept, self.caches, strict=True))

    def _at(self, kept: Array, size: float) -> float:
        if size <= 0:
            return 0.0
        return float(np.interp(np.log(size), np.log(self.cache_tokens), kept, left=0.0))

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "reusable_share": self.reusable_share.tolist(),
            "cache_tokens": self.cache_tokens.tolist(),
            "caches": list(self.caches),
            "kept": self.kept.tolist(),
            "log_rate": self.log_rate,
            "source": self.source,
        }

    @classmethod
    def from_json(cls, content: Any) -> PrefixReuse:
        """From the JSON object that :meth:`to_json` makes."""
        place = "prefix_reuse"
        rows = [value_of(tuple[float, ...], row, f"{place}.kept") for row in content["kept"]]
        return cls(
            reusable_share=np.array(value_of(tuple[float, ...], content["reusable_share"], f"{place}.reusable_share")),
            cache_tokens=np.array(value_of(tuple[float, ...], content["cache_tokens"], f"{place}.cache_tokens")),
            caches=value_of(tuple[int, ...], content["caches"], f"{place}.caches"),
            kept=np.array(rows, float).reshape(len(rows), -1),
            log_rate=number(content["log_rate"], f"{place}.log_rate"),
            source=text(content.get("source", ""), f"{place}.source"),
        )


def reuse_of(
    blocks: Places,
    counts: Places,
    input_tokens: Places,
    input_bucket: Places,
    buckets: int,
    *,
    block_tokens: int,
    duration_s: float,
    source: str = "",
) -> PrefixReuse:
    """The prefixes that N requests have in common, in the order of their arrival.

    Parameters
    ----------
    blocks, counts
        The blocks of all prompts, each prompt from its start, one after the other (M,), and the number of blocks of
        each (N,); the blocks of its completion may follow. Equal numbers mean equal blocks after an equal prefix.
    input_tokens, input_bucket
        Prompt lengths and their buckets (N,).
    buckets
        Number of input buckets.
    block_tokens
        Tokens of a block; the last one of a prompt may have fewer.
    duration_s
        From the first request to the last [s].
    source
        Where the requests come from.
    """
    request = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(blocks)) - (np.cumsum(counts) - counts)[request]
    # The last token of a prompt is always computed.
    tokens = np.clip(input_tokens[request] - 1.0 - within * block_tokens, 0.0, block_tokens)
    cache_of = np.zeros(len(counts), np.int64)
    distance = _distances(blocks, counts, cache_of)
    reused = np.isfinite(distance)
    by_bucket = np.bincount(input_bucket, weights=input_tokens.astype(float), minlength=buckets)
    found = np.bincount(input_bucket[request], weights=np.where(reused, tokens, 0.0), minlength=buckets)
    total = float(np.unique(blocks).size) * block_tokens
    sizes = np.geomspace(block_tokens, max(total, 2.0 * block_tokens), _SIZES)
    random = np.random.default_rng(0)
    kept = []
    for caches in CACHES:
        if caches > 1:
            cache_of = random.integers(caches, size=len(counts))
            distance = _distances(blocks, counts, cache_of)
        kept.append(_kept(distance, tokens, sizes / block_tokens, float(tokens[reused].sum())))
    return PrefixReuse(
        reusable_share=np.divide(found, by_bucket, out=np.zeros(buckets), where=by_bucket > 0).clip(0, 1),
        cache_tokens=sizes,
        kept=np.array(kept),
        caches=CACHES,
        log_rate=len(counts) / duration_s if duration_s > 0 else 0.0,
        source=source,
    )


def _kept(distance: Array, tokens: Array, sizes: Array, total: float) -> Array:
    """Share of ``total`` tokens that caches of the given sizes hold (K,) [blocks]."""
    if total <= 0:
        return np.zeros(len(sizes))
    order = np.argsort(distance)
    gained = np.concatenate([[0.0], np.cumsum(tokens[order])])
    return np.minimum(gained[np.searchsorted(distance[order], np.floor(sizes), side="left")] / total, 1.0)


def _distances(blocks: Places, counts: Places, cache_of: Places) -> Array:
    """Different blocks that a cache used since each block's last use, before its request (M,); infinite if new.

    Requests of one cache follow each other; within a request, the last block comes first.
    """
    order = np.lexsort((np.arange(len(counts)), cache_of))
    starts = np.cumsum(counts) - counts
    size = counts[order]
    first = np.cumsum(size) - size
    within = np.arange(len(blocks)) - np.repeat(first, size)
    places = np.repeat(starts[order] + size - 1, size) - within  # each request from its end to its start
    _, names = np.unique(blocks, return_inverse=True)
    used = names[places] + np.repeat(cache_of[order], size) * (int(names.max(initial=0)) + 1)
    previous = _previous(used)
    # Count j < i with a last use no later than that of i: all up to that use, and one for each different block after
    # it.
    between = _no_later_before(previous) - (previous + 1.0) - within
    distance = np.empty(len(blocks))
    distance[places] = np.where(previous >= 0, np.maximum(between, 0.0), np.inf)
    return distance


def _previous(used: Places) -> Places:
    """The previous use of each block (M,); -1: never."""
    order = np.argsort(used, kind="stable")
    previous = np.full(len(used), -1)
    is_again = used[order][1:] == used[order][:-1]
    previous[order[1:][is_again]] = order[:-1][is_again]
    return previous


def _no_later_before(values: Places) -> Array:
    """For each value, how many earlier values are no larger (M,): merge sort, all pairs of a level at once."""
    count = len(values)
    size = 1 << max(count - 1, 1).bit_length()
    padded = np.concatenate([values, np.full(size - count, size)]).astype(np.int64)
    order = np.arange(size)
    found = np.zeros(size)
    width = 1
    while width < size:
        rows = order.reshape(-1, 2 * width)
        key = padded[rows]
        sort = np.argsort(key, axis=1, kind="stable")
        is_left = sort < width
        before = np.cumsum(is_left, axis=1)
        merged = np.take_along_axis(rows, sort, axis=1)
        found[merged[~is_left]] += before[~is_left]
        order = merged.ravel()
        width *= 2
    return found[:count]
