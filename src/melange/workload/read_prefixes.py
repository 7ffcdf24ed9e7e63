"""The common prefixes of a log's prompts: from block hashes, from conversations, or as counted by a server."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.errors import InputError
from melange.workload.prefix_reuse import PrefixReuse, reuse_of
from melange.workload.rows import Rows
from melange.workload.workload import Buckets

# Names of these fields in logs, in lower case; the first that exists counts.
_NAMES: Mapping[str, Sequence[str]] = {
    "hashes": ("hash_ids", "block_hashes", "block_hash_ids"),
    "conversation": (
        "conversation_id",
        "session_id",
        "chat_id",
        "conversation",
        "session",
        "thread_id",
        "gen_ai.conversation.id",
    ),
    "cached": (
        *("prefix_cached_tokens", "cached_tokens", "num_cached_tokens", "cache_read_input_tokens"),
        *("usage.prompt_tokens_details.cached_tokens", "prompt_tokens_details.cached_tokens"),
        *("usage.input_tokens_details.cached_tokens", "usage.cache_read_input_tokens"),
        *("response.body.usage.prompt_tokens_details.cached_tokens", "usagedetails.input_cached_tokens"),
        *("usage_details.input_cached_tokens", "gen_ai.usage.cache_read.input_tokens"),
    ),
}
ROLES = tuple(_NAMES)
# Most requests of a log that are read, from its start. Chosen by judgment: a second per hundred thousand.
_MOST_REQUESTS = 100_000
# Tokens of the blocks into which turns of a conversation are divided; engines use 16, and published hashes 512.
_TURN_BLOCK = 64
_LEAST_BLOCK, _MOST_BLOCK = 8, 4096
# Blocks in more than this share of the prompts belong to a system prompt, not to a conversation.
_COMMON = 0.02


def prefix_fields(found: Sequence[str], named: Mapping[str, str] | None = None) -> dict[str, str]:
    """The field of a log about common prefixes, by its role: ``hashes``, ``conversation`` or ``cached``.

    Fields named by the user come first, then block hashes, conversations, and counts of cached tokens.
    """
    if given := {role: name for role, name in (named or {}).items() if role in ROLES}:
        return given
    by_folded = {name.casefold().strip(): name for name in found}
    for role in ROLES:
        for name in _NAMES[role]:
            if name in by_folded:
                return {role: by_folded[name]}
    return {}


def prefix_reuse_in(rows: Rows, grid: Buckets, duration_s: float) -> PrefixReuse | None:
    """The common prefixes of the selected rows' prompts; None if the log does not say.

    Parameters
    ----------
    rows
        Rows that have the columns of :func:`prefix_fields` in addition to the sizes.
    grid
        The buckets, for shares by input size.
    duration_s
        Duration of the rows [s].

    Raises
    ------
    InputError
        Hashes are not lists of numbers or text, or do not match the lengths of the prompts.
    """
    role = next((role for role in ROLES if role in rows.table.columns), "")
    if not role:
        return None
    table = rows.table.mutate(arrival_s=rows.seconds(rows.raw) * (rows.unit_s or 1.0))
    table = table.filter(table.input >= 1, table.output >= 1).order_by("arrival_s")
    found = table.limit(_MOST_REQUESTS).select("arrival_s", "input", "output", role).to_pyarrow()
    inputs = found["input"].to_numpy().astype(np.int64)
    name = rows.layout.shared[role]
    place = f"{rows.log.place}: {name}"
    bucket = np.minimum(np.searchsorted(grid.input_edges, inputs), grid.shape[0] - 1)
    if role == "cached":
        return _as_counted(_counted(found[role], inputs, place), inputs, bucket, grid.shape[0], name)
    if not duration_s > 0:
        return None
    lists, block = _blocks(found, role, place)
    how = f"block hashes ({name}, blocks of {block} tokens)" if role == "hashes" else f"conversations ({name})"
    counts = np.array([len(one) for one in lists], np.int64)
    if not counts.any():
        return None
    blocks = np.fromiter((one for row in lists for one in row), np.int64, int(counts.sum()))
    at_s = found["arrival_s"].to_numpy().astype(float)
    part = f"the first {len(inputs):,} requests, " if len(inputs) == _MOST_REQUESTS else ""
    span_s = float(at_s[-1] - at_s[0]) if part else duration_s
    return reuse_of(
        *(blocks, counts, inputs, bucket, grid.shape[0]),
        block_tokens=block,
        duration_s=span_s,
        source=f"{part}{how}",
    )


def reusable_tokens(
    found: Any, shared: Mapping[str, str], log: str
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64] | None] | None:
    """First tokens of each prompt that earlier prompts also began with, and its key (N,); None if the log does not say.

    A key is a number in [0, 1), equal for requests whose prompts share a prefix beyond the blocks that very many
    prompts share; None if only token counts are known.

    Parameters
    ----------
    found
        The log's requests in the order of time: an Arrow table with ``input``, ``output`` and the fields in ``shared``.
    shared, log
        The field about common prefixes by its role, and the name of the log.
    """
    if not shared:
        return None
    role = next(iter(shared))
    inputs, place = found["input"].to_numpy().astype(np.int64), f"{log}: {shared[role]}"
    if role == "cached":
        return _counted(found[role], inputs, place).astype(np.int32), None
    try:
        lists, block = _blocks(found, role, place)
    except InputError:
        return None  # the workload has a caution about it
    seen: set[int] = set()
    reused = np.zeros(len(inputs), np.int64)
    for n, blocks in enumerate(lists):
        reused[n] = next((k for k, one in enumerate(blocks) if one not in seen), len(blocks))
        seen.update(blocks)
    return np.asarray(np.minimum(reused * block, np.maximum(inputs - 1, 0)), np.int32), _keys(lists)


def _keys(lists: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """A number in [0, 1) from the first block of each prompt that is not too frequent (N,)."""
    often = Counter(one for blocks in lists for one in blocks)
    most = max(_COMMON * len(lists), 2.0)
    firsts = [next((one for one in blocks if often[one] <= most), n) for n, blocks in enumerate(lists)]
    return np.array([zlib.crc32(one.to_bytes(8, "little", signed=True)) / 2**32 for one in firsts])


def _blocks(found: Any, role: str, place: str) -> tuple[list[list[int]], int]:
    """The blocks of each prompt, and the number of tokens per block."""
    values, inputs = found[role].to_pylist(), found["input"].to_numpy().astype(np.int64)
    if role == "conversation":
        return _turns(values, inputs, found["output"].to_numpy().astype(np.int64)), _TURN_BLOCK
    lists = [_hashes(value, place) for value in values]
    return lists, _block_tokens(lists, inputs, place)


def _counted(column: Any, inputs: npt.NDArray[np.int64], place: str) -> npt.NDArray[np.float64]:
    """Cached tokens as a server has counted them (N,), after checks."""
    counted = np.nan_to_num(np.asarray(column.to_pylist(), float))
    if (counted < 0).any() or (counted > inputs).any():
        worst = float(counted[(counted < 0) | (counted > inputs)][0])
        raise InputError(f"{place}: must be 0 to the prompt's tokens, got {worst:,.0f}", hint="name the right column")
    return np.asarray(counted, np.float64)


def _as_counted(
    counted: npt.NDArray[np.float64], inputs: npt.NDArray[np.int64], bucket: Any, buckets: int, name: str
) -> PrefixReuse:
    """Hit rates as a server has counted them, independent of the size of its cache."""
    total = np.bincount(bucket, weights=inputs.astype(float), minlength=buckets)
    held = np.bincount(bucket, weights=np.minimum(counted, inputs - 1), minlength=buckets)
    share = np.divide(held, total, out=np.zeros(buckets), where=total > 0)
    return PrefixReuse.fixed(share, f"cached tokens as counted ({name})")


def _hashes(value: Any, place: str) -> list[int]:
    """The hashes of one prompt's blocks as integers."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if value is None:
        return []
    if not isinstance(value, list) or any(isinstance(one, list | dict | bool | float) for one in value):
        raise InputError(f"{place}: must be a list of whole numbers or strings, got {str(value)[:60]!r}")
    return [one if isinstance(one, int) and abs(one) < 2**62 else hash(str(one)) >> 2 for one in value]


def _block_tokens(lists: Sequence[Sequence[int]], inputs: npt.NDArray[np.int64], place: str) -> int:
    """Tokens per block: the power of two for which most prompts have the number of blocks that fits their length."""
    counts = np.array([len(one) for one in lists])
    known = counts > 0
    if not known.any():
        return _LEAST_BLOCK
    sizes = [1 << power for power in range(_LEAST_BLOCK.bit_length() - 1, _MOST_BLOCK.bit_length())]
    off = [np.abs(np.ceil(inputs[known] / size) - counts[known]).sum() for size in sizes]
    best = sizes[int(np.argmin(off))]
    if min(off) > 0.1 * counts[known].sum():
        raise InputError(
            f"{place}: the number of blocks does not match the prompts' lengths",
            hint="every block but the last must have as many tokens as another",
        )
    return best


def _turns(
    conversations: Sequence[Any], inputs: npt.NDArray[np.int64], outputs: npt.NDArray[np.int64]
) -> list[list[int]]:
    """Blocks of requests that are turns of conversations, including the blocks of their answers.

    A turn begins with the prompt and the answer of the previous turn.
    """
    held: dict[Any, list[int]] = {}
    found, fresh = [], 0
    for name, tokens, made in zip(conversations, inputs.tolist(), outputs.tolist(), strict=True):
        # Whole blocks of the previous turn are the first blocks of this prompt, up to its length.
        before = held.get(name, []) if name is not None else []
        blocks = before[: tokens // _TURN_BLOCK]
        new = -(-(tokens + made) // _TURN_BLOCK) - len(blocks)
        blocks = [*blocks, *range(fresh, fresh + new)]
        fresh += new
        found.append(blocks)
        held[name] = blocks[: (tokens + made) // _TURN_BLOCK]
    return found
