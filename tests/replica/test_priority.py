"""Requests with priorities on simulated replicas: who waits for whom, and who gives up its KV cache."""

from __future__ import annotations

import numpy as np
import pytest
from simulated import engine, fleet

from melange.replica.simulated import columns as at
from melange.replica.simulated.cluster import play
from melange.replica.simulated.outcome import SERVED, Outcome


def played(levels: np.ndarray | None, seed: int, *, rate: float = 6.0, **settings: object) -> Outcome:
    """A few hundred requests on two replicas, which take them by their level."""
    random = np.random.default_rng(seed)
    count = 400
    return play(
        [engine(**settings) for _ in range(2)],
        fleet([0, 0]),
        0,
        np.cumsum(random.exponential(1 / rate, count)),
        random.integers(1, 800, count),
        random.integers(1, 300, count),
        levels=levels,
    )


def drawn_levels(seed: int, levels: int) -> np.ndarray:
    """A level for each request."""
    return np.random.default_rng(100 + seed).integers(0, levels, 400)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("settings", [{}, {"is_chunked": False}, {"max_sequences": 2}, {"is_fully_reserved": True}])
def test_no_request_enters_before_one_that_goes_first_and_waits(seed: int, settings: dict[str, object]) -> None:
    """By level and then by arrival, on each replica, among those that had come before the step began."""
    levels = drawn_levels(seed, 3)
    found = played(levels, seed, kv_tokens=1e9, **settings)
    assert (found.status == SERVED).all()
    for replica in range(2):
        here = np.flatnonzero(found.replica == replica)
        for k in here:
            waits = here[(found.arrival_s[here] < found.admitted_s[k]) & (found.admitted_s[here] > found.admitted_s[k])]
            assert all((levels[j], j) > (levels[k], k) for j in waits)


@pytest.mark.parametrize("seed", range(4))
def test_requests_of_one_level_are_served_as_without_levels(seed: int) -> None:
    """Bit for bit, whichever level it is, preemptions included."""
    plain = played(None, seed, kv_tokens=4 * 1500.0)
    assert plain.preemptions.sum() > 0
    for level in (0, 3):
        same = played(np.full(400, level), seed, kv_tokens=4 * 1500.0)
        for name in ("replica", "admitted_s", "first_token_s", "finish_s", "preemptions", "busy_s"):
            np.testing.assert_array_equal(getattr(same, name), getattr(plain, name))


@pytest.mark.parametrize("seed", range(4))
def test_what_goes_first_waits_less(seed: int) -> None:
    """Also where KV cache is short; all work is done all the same."""
    levels = drawn_levels(seed, 2)
    found, plain = played(levels, seed, kv_tokens=4 * 1500.0), played(None, seed, kv_tokens=4 * 1500.0)
    first, last = levels == 0, levels == 1
    assert (found.status == SERVED).all()
    assert found.made_tokens.sum() == found.output_tokens.sum()
    assert found.ttft_s[first].mean() < plain.ttft_s[first].mean()
    assert found.ttft_s[first].mean() < found.ttft_s[last].mean()


def test_of_two_that_outgrow_the_kv_cache_the_lower_priority_gives_way() -> None:
    """Though it was admitted first; without levels the one that was admitted last does."""
    arrival_s, tokens = np.array([0.0, 0.05]), np.array([300, 300])
    for levels, given_up in (([1, 0], [True, False]), (None, [False, True]), ([0, 1], [False, True])):
        found = play(
            [engine(kv_tokens=4 * 900.0)],
            fleet([0]),
            0,
            arrival_s,
            tokens,
            np.array([290, 290]),
            levels=None if levels is None else np.array(levels),
        )
        assert (found.status == SERVED).all()
        assert (found.preemptions > 0).tolist() == given_up


def test_the_queue_of_a_lost_replica_is_sent_elsewhere() -> None:
    """All levels of it, and none twice."""
    from melange.replica.simulated.cluster import Event

    random = np.random.default_rng(1)
    found = play(
        [engine() for _ in range(2)],
        fleet([0, 0]),
        0,
        np.cumsum(random.exponential(0.05, 200)),
        random.integers(1, 500, 200),
        random.integers(1, 100, 200),
        levels=random.integers(0, at.LEVELS, 200),
        events=[Event(at_s=5.0, replica=0, is_up=False)],
    )
    assert (found.status == SERVED).all()
    assert found.retries.sum() > 0
    assert (found.replica[found.finish_s > 5.0] == 1).all()
