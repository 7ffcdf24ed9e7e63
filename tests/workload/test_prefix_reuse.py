"""What prompts share, against caches that are played out block by block."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from melange.errors import InputError
from melange.workload.arrivals import draw, read_arrivals
from melange.workload.prefix_reuse import PrefixReuse, reuse_of
from melange.workload.traces import read_trace
from melange.workload.workload import Workload

BLOCK = 64
MOONCAKE = Path(__file__).parents[3] / "shared" / "data" / "traces" / "mooncake_conversation.parquet"


def conversations(seed: int, requests: int = 1200) -> tuple[list[list[int]], np.ndarray]:
    """Blocks of prompts and their lengths: conversations that grow, some used often, behind common system prompts."""
    random = np.random.default_rng(seed)
    held: dict[int, list[int]] = {}
    prompts, lengths, fresh = [], [], 1000
    for _ in range(requests):
        name = int(200 * random.random() ** 2)
        before = held.get(name, [name % 3])
        length = len(before) * BLOCK + int(random.integers(1, 400))
        if length > 8000:
            before, length = [name % 3], BLOCK + int(random.integers(1, 400))
        count = -(-length // BLOCK)
        blocks = [*before[: length // BLOCK], *range(fresh, fresh + count - len(before[: length // BLOCK]))]
        fresh += count
        held[name] = blocks
        prompts.append(blocks)
        lengths.append(length)
    return prompts, np.array(lengths)


def replayed(prompts: list[list[int]], lengths: np.ndarray, size: int, block: int = BLOCK) -> float:
    """Share of prompt tokens that a cache of this many blocks holds, which drops the least recently used one."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for blocks, length in zip(prompts, lengths.tolist(), strict=True):
        for place, one in enumerate(blocks):
            if one in cache:
                cache.move_to_end(one)
                hits += min(block, length - place * block)
            else:
                cache[one] = None
                if len(cache) > size:
                    cache.popitem(last=False)
    return hits / lengths.sum()


def found_in(prompts: list[list[int]], lengths: np.ndarray, block: int = BLOCK) -> PrefixReuse:
    """What they share."""
    counts = np.array([len(one) for one in prompts])
    return reuse_of(
        *(np.concatenate(prompts), counts, lengths, np.zeros(len(lengths), int), 1),
        block_tokens=block,
        duration_s=float(len(lengths)),
    )


@pytest.mark.parametrize("seed", range(4))
def test_hit_rates_are_those_of_a_replayed_cache(seed: int) -> None:
    """Within 3 points, for caches from a few prompts to all of them; a prompt has 125 blocks at most."""
    prompts, lengths = conversations(seed)
    reuse = found_in(prompts, lengths)
    for size in (300, 1000, 3000, 10_000):
        assert reuse.hit_share(size * BLOCK) == pytest.approx(replayed(prompts, lengths, size), abs=0.03), size


def test_spread_over_caches_each_holds_less() -> None:
    """Against caches among which requests are drawn at random, each with its own share of the traffic."""
    prompts, lengths = conversations(7)
    reuse, random = found_in(prompts, lengths), np.random.default_rng(1)
    for caches in (2, 4, 16):
        chosen = random.integers(caches, size=len(prompts))
        total = 0.0
        for one in range(caches):
            places = np.flatnonzero(chosen == one)
            part = [prompts[place] for place in places]
            total += replayed(part, lengths[places], 600) * lengths[places].sum()
        share = float(reuse.reusable_share[0]) * reuse.kept_share(600 * BLOCK, 1.0 / caches, caches)
        assert share == pytest.approx(total / lengths.sum(), abs=0.03), caches


@pytest.mark.heavy
@pytest.mark.skipif(not MOONCAKE.exists(), reason="the trace is not there")
def test_hit_rates_on_the_mooncake_conversations() -> None:
    """Its file has the tokens that each prompt shares: with the latest earlier one that has as many blocks."""
    import pandas as pd

    table = pd.read_parquet(MOONCAKE)
    lengths, shared = table.input_tokens.to_numpy(), table.prefix_cached_tokens.to_numpy() // 512
    prompts: list[list[int]] = []
    latest: dict[int, int] = {}
    fresh = 0
    for length, blocks in zip(lengths.tolist(), shared.tolist(), strict=True):
        count = -(-length // 512)
        source = prompts[latest[min((n for n in latest if n >= blocks), default=blocks)]] if blocks else []
        new = count - min(blocks, count)
        prompts.append([*source[: min(blocks, count)], *range(fresh, fresh + new)])
        fresh += new
        latest[length // 512] = len(prompts) - 1
    reuse = found_in(prompts, lengths, 512)
    for size in (2_000, 8_000, 30_000, 100_000):
        assert reuse.hit_share(size * 512.0) == pytest.approx(replayed(prompts, lengths, size, 512), abs=0.03)


def log_of(tmp_path: Path, rows: list[dict[str, object]]) -> Path:
    """A log in lines of JSON."""
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_block_hashes_of_a_log_are_read(tmp_path: Path) -> None:
    """The size of a block follows from the prompts' lengths; replays get each request's own tokens."""
    prompts, lengths = conversations(3, 400)
    rows = [
        {"timestamp": 1000 * n, "input_length": int(length), "output_length": 20, "hash_ids": blocks}
        for n, (blocks, length) in enumerate(zip(prompts, lengths, strict=True))
    ]
    path = log_of(tmp_path, rows)
    reuse = read_trace(path).prefix_reuse
    assert reuse is not None
    assert "blocks of 64 tokens" in reuse.source
    tokens = np.bincount(np.searchsorted(read_trace(path).buckets.input_edges, lengths), weights=lengths, minlength=13)
    assert reuse.hit_share(1e9, tokens) == pytest.approx(replayed(prompts, lengths, 10**9), abs=0.03)
    arrivals = read_arrivals(path)
    assert arrivals.cached_tokens is not None
    assert arrivals.cached_tokens.sum() / lengths.sum() == pytest.approx(replayed(prompts, lengths, 10**9), abs=0.03)
    assert arrivals.keys is not None
    assert len(set(arrivals.keys.tolist())) > 50


def test_turns_of_conversations_begin_as_the_turn_before_ended(tmp_path: Path) -> None:
    """By hand: a prompt of 640 tokens, an answer of 64, then 1,280 of which 704 were there; others share none."""
    rows = [
        {"arrival_s": 0, "input_tokens": 640, "output_tokens": 64, "session_id": "a"},
        {"arrival_s": 1, "input_tokens": 900, "output_tokens": 64, "session_id": "b"},
        {"arrival_s": 2, "input_tokens": 1280, "output_tokens": 64, "session_id": "a"},
    ]
    reuse = read_trace(log_of(tmp_path, rows)).prefix_reuse
    assert reuse is not None
    assert reuse.reusable_share[5] == pytest.approx(704 / 1280)
    assert reuse.reusable_share[:5].sum() == 0
    cached = read_arrivals(log_of(tmp_path, rows)).cached_tokens
    assert cached is not None
    assert cached.tolist() == [0, 0, 704]


def test_tokens_that_a_server_has_counted_hold_for_any_cache(tmp_path: Path) -> None:
    """By bucket of the prompt; more than the prompt has is the wrong column."""
    row = {"arrival_s": 0, "input_tokens": 400, "output_tokens": 64, "prefix_cached_tokens": 100}
    rows = [row, row | {"arrival_s": 9, "prefix_cached_tokens": 300}, row | {"arrival_s": 10, "input_tokens": 3000}]
    workload = read_trace(log_of(tmp_path, rows))
    reuse = workload.prefix_reuse
    assert reuse is not None
    assert not reuse.depends_on_cache
    assert reuse.reusable_share[[3, 6]] == pytest.approx([0.5, 100 / 3000])
    assert Workload.from_json(workload.to_json()).prefix_reuse.reusable_share.tolist() == reuse.reusable_share.tolist()
    wrong = log_of(tmp_path, [row, row | {"arrival_s": 1, "prefix_cached_tokens": 401}])
    (caution,) = [one for one in read_trace(wrong).cautions if one.kind == "prefixes-unread"]
    assert "must be 0 to the prompt's tokens, got 401" in caution.message
    named = {
        "arrival": "arrival_s",
        "input": "input_tokens",
        "output": "output_tokens",
        "cached": "prefix_cached_tokens",
    }
    with pytest.raises(InputError, match="got 401"):
        read_trace(wrong, columns=named)


def test_drawn_requests_share_as_much(tmp_path: Path) -> None:
    """Some nearly all of their prompt and others nothing, in sum as the workload says."""
    row = {"arrival_s": 0, "input_tokens": 400, "output_tokens": 64, "prefix_cached_tokens": 160}
    drawn = draw(read_trace(log_of(tmp_path, [row, row | {"arrival_s": 9}])), 4000, seed=2)
    assert drawn.cached_tokens is not None
    assert drawn.cached_tokens.sum() / drawn.input_tokens.sum() == pytest.approx(0.4, abs=0.02)
    assert (drawn.cached_tokens < drawn.input_tokens).all()
