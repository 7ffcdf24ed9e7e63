"""The simulation against queueing theory, and what must hold whatever the traffic."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from simulated import cost, engine, fleet
from test_batching import ENGINES, drawn

from melange.replica.simulated.cluster import play
from melange.replica.simulated.outcome import SERVED, Outcome

# One step takes a millisecond whatever runs in it, so a request of 1,000 tokens keeps its sequence for a second.
STEP_S, TOKENS = 1e-3, 1000
COUNT, COUNTED = 250_000, slice(5_000, None)


def queue(load: float, sequences: int, tokens: np.ndarray, seed: int = 1) -> Outcome:
    """Poisson arrivals at a load of this many sequences."""
    server = engine(cost=cost(host_s=STEP_S), max_sequences=sequences, kv_tokens=1e12, max_context=10**9)
    random = np.random.default_rng(seed)
    arrival_s = np.cumsum(random.exponential(tokens.mean() * STEP_S / (load * sequences), len(tokens)))
    return play([server], fleet([0]), 0, arrival_s, np.ones(len(tokens), int), tokens)


def waits_s(outcome: Outcome) -> np.ndarray:
    """Time from arrival to the first step of each request."""
    return (outcome.admitted_s - outcome.arrival_s)[COUNTED]


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_constant_service_and_one_sequence_wait_as_m_d_1(load: float) -> None:
    """Mean wait ``load service / (2 (1 - load))`` (Pollaczek and Khinchine)."""
    outcome = queue(load, 1, np.full(COUNT, TOKENS))
    assert waits_s(outcome).mean() == pytest.approx(load * TOKENS * STEP_S / (2 * (1 - load)), rel=0.05)


@pytest.mark.parametrize(("load", "sequences"), [(0.5, 1), (0.8, 1), (0.8, 4), (0.9, 16)])
def test_exponential_sizes_wait_as_m_m_c(load: float, sequences: int) -> None:
    """Mean wait ``C(c, a) service / (c (1 - load))`` (Erlang)."""
    tokens = np.ceil(np.random.default_rng(7).exponential(TOKENS, COUNT)).astype(int)
    outcome = queue(load, sequences, tokens)
    offered = tokens.mean() * STEP_S / np.diff(outcome.arrival_s).mean()  # as drawn: near 1 a little makes much
    load = offered / sequences
    terms = [offered**k / math.factorial(k) for k in range(sequences)]
    last = offered**sequences / math.factorial(sequences) / (1 - load)
    expected = last / (sum(terms) + last) * tokens.mean() * STEP_S / (sequences * (1 - load))
    assert waits_s(outcome).mean() == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("kind", ENGINES)
def test_littles_law_holds_and_nothing_is_lost_or_made(kind: str) -> None:
    """Requests in the system over time are rate times residence; every token that was asked for was made once."""
    requests = drawn(4, 400, 4.0)
    outcome = play([engine(**ENGINES[kind])], fleet([0]), 0, **requests)
    assert (outcome.status == SERVED).all()
    assert outcome.made_tokens.sum() == requests["output_tokens"].sum()
    assert outcome.prompt_tokens.sum() - outcome.recomputed_tokens.sum() >= (
        requests["input_tokens"] - requests["cached_tokens"]
    ).sum() - 2000 * (outcome.preemptions.sum() > 0)
    moments = np.concatenate([outcome.arrival_s, outcome.finish_s])
    change = np.concatenate([np.ones(400), -np.ones(400)])[np.argsort(moments)]
    inside = float((np.cumsum(change)[:-1] * np.diff(np.sort(moments))).sum())
    assert inside == pytest.approx(outcome.latency_s.sum(), rel=1e-9)
    order = [outcome.arrival_s, outcome.admitted_s, outcome.first_token_s, outcome.finish_s]
    assert all((earlier <= later).all() for earlier, later in itertools.pairwise(order))


def test_more_capacity_is_never_slower() -> None:
    """Faster steps, more sequences, more KV cache, one replica more: mean latency does not rise."""
    requests = drawn(6, 300, 6.0)

    def mean_s(replicas: int, **settings: object) -> float:
        outcome = play([engine(**settings)] * replicas, fleet([0] * replicas), 3, **requests)
        return float(outcome.latency_s.mean())

    usual = mean_s(1)
    assert mean_s(1, cost=engine().scaled(0.8).cost) < usual
    assert mean_s(1, max_sequences=16) <= usual
    assert mean_s(1, kv_tokens=4 * 8000.0) <= mean_s(1, kv_tokens=4 * 900.0)
    assert mean_s(2) < usual


def test_cached_prefixes_are_not_read_again() -> None:
    """Prompt tokens read are those that the cache does not hold, and the first token comes sooner."""
    inputs, outputs = np.full(50, 200), np.full(50, 20)
    arrivals = np.arange(50.0)
    cold = play([engine()], fleet([0]), 0, arrivals, inputs, outputs)
    warm = play([engine()], fleet([0]), 0, arrivals, inputs, outputs, np.full(50, 150))
    assert cold.prompt_tokens.sum() == 50 * 200
    assert warm.prompt_tokens.sum() == 50 * 50
    assert (warm.ttft_s < cold.ttft_s).all()


def test_utilization_is_what_was_served() -> None:
    """A replica of one sequence is busy for its load's share of the time."""
    outcome = queue(0.6, 1, np.full(20_000, TOKENS))
    assert outcome.busy_s[0] / outcome.until_s == pytest.approx(0.6, rel=0.03)
