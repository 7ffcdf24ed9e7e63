"""Why requests miss: each cause provoked, and told."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import cost, engine, fleet

from melange.replica.engine import Engine
from melange.replica.simulated.cluster import Event, play
from melange.replica.simulated.outcome import Outcome
from melange.slo import Slo
from melange.validate.causes import CAUSE_NAMES, alone_s, causes, share_by_cause

TYPES = np.zeros(1000, np.int32)


def told(one: Engine, slo: Slo, requests: list[tuple[float, int, int]], **more: object) -> list[str]:
    """The cause of each request on one replica; "" where it met the SLO."""
    arrival_s, inputs, outputs = (np.array(column) for column in zip(*requests, strict=True))
    outcome = play([one], fleet([0]), 0, arrival_s.astype(float), inputs, outputs, **more)  # type: ignore[arg-type]
    return [CAUSE_NAMES[c] if c >= 0 else "" for c in of(outcome, slo, one)]


def of(outcome: Outcome, slo: Slo, one: Engine) -> list[int]:
    """Causes by number."""
    return causes(outcome, slo, (one,), TYPES[: len(outcome.arrival_s)], None).tolist()


def test_a_request_that_misses_even_alone_is_too_large() -> None:
    """A prompt that takes longer than the limit by itself; one that does not fit; and a short one that is fine."""
    small = engine(cost=cost(host_s=0.01, token_s=1e-3), max_context=1500)
    slo = Slo(ttft_s=0.5)
    assert told(small, slo, [(0, 1000, 2), (10, 1490, 50), (20, 100, 2)]) == ["too large", "too large", ""]


def test_a_request_that_waits_for_a_sequence_was_queueing() -> None:
    """One at a time, each for a second: all but the first wait."""
    one_at_a_time = engine(cost=cost(host_s=0.01), max_sequences=1)
    requests = [(0.0, 10, 100)] * 4
    assert told(one_at_a_time, Slo(latency_s=1.5), requests) == ["", *["queueing"] * 3]


def test_a_request_whose_tokens_wait_for_prompts_of_others_suffers_interference() -> None:
    """One request decodes while long prompts arrive."""
    reading = engine(cost=cost(host_s=0.01, token_s=1e-3), max_context=10**6)
    requests = [(0.0, 10, 50), *((0.1 + 0.05 * k, 500, 1) for k in range(8))]
    assert told(reading, Slo(tpot_s=0.03), requests)[0] == "prefill interference"


def test_a_request_whose_cache_was_taken_was_preempted() -> None:
    """KV cache for one and a half requests: the later one is taken out and starts again."""
    tight = engine(cost=cost(host_s=0.01), kv_tokens=4 * 272.0, block_tokens=16)
    found = told(tight, Slo(tpot_s=0.012), [(0.0, 60, 150), (0.0, 60, 150)])
    assert found == ["", "preemption"]


def test_a_request_in_a_large_batch_missed_by_batching() -> None:
    """A millisecond more a step for every request that runs, none of which reads a long prompt."""
    slow = engine(cost=cost(host_s=0.01, sequence_s=1e-3))
    found = told(slow, Slo(tpot_s=0.015), [(0.0, 1, 100)] * 30)
    assert set(found) == {"batching"}


def test_a_request_whose_replica_was_lost_says_so() -> None:
    """Sent again it takes too long, and sent again a second time it has failed."""
    usual = engine(cost=cost(host_s=0.01))
    arrival_s, sizes = np.zeros(2), np.full(2, 100)
    events = (Event(at_s=0.5, replica=0, is_up=False), Event(at_s=0.8, replica=1, is_up=False))
    outcome = play([usual, usual], fleet([0, 0]), 3, arrival_s, sizes, sizes, events=events)
    assert {CAUSE_NAMES[c] for c in of(outcome, Slo(latency_s=1.2), usual)} == {"lost replica"}


def test_what_a_request_takes_alone_is_what_the_simulation_says() -> None:
    """First token and latency in closed form, for prompts of part of a chunk, of one and of several."""
    for kind in ({}, {"is_chunked": False}):
        one = engine(**kind)
        inputs, outputs = np.array([1, 50, 256, 257, 700]), np.array([1, 2, 30, 60, 10])
        outcome = play([one], fleet([0]), 0, np.arange(5) * 100.0, inputs, outputs)
        ttft_s, latency_s = alone_s(outcome, (one,), TYPES[:5])
        assert ttft_s == pytest.approx(outcome.ttft_s, rel=0.02)
        assert latency_s == pytest.approx(outcome.latency_s, rel=0.02)


def test_shares_of_causes_are_of_all_requests() -> None:
    """Of four one was queueing, and one met its limits."""
    cause = np.array([CAUSE_NAMES.index("queueing"), -1, CAUSE_NAMES.index("batching"), CAUSE_NAMES.index("batching")])
    assert share_by_cause(cause) == {"queueing": 0.25, "batching": 0.5}
