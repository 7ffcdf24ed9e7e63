"""The compiled simulation against the plain one: the same schedule, and times within 1e-9."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from reference import Job, Replica, play_slowly
from simulated import cost, engine, fleet

from melange.replica.engine import Engine
from melange.replica.policy import POLICIES
from melange.replica.simulated.cluster import Event, play
from melange.replica.simulated.outcome import SERVED, Outcome
from melange.replica.step import step_time_s

WINDOWED = {
    "sliding_layers": 3,
    "full_layers": 1,
    "window": 64,
    "cost": replace(engine().cost, window_context_s=3e-6, window=64.0, window_position_s=2e-8),
}
ENGINES = {
    "chunked": {},
    "whole prompts": {"is_chunked": False, "max_batched_tokens": 700},
    "little KV": {"kv_tokens": 4 * 900.0},
    "little KV, whole prompts": {"kv_tokens": 4 * 900.0, "is_chunked": False, "max_batched_tokens": 900},
    "blocks of one": {"block_tokens": 1, "kv_tokens": 4 * 850.0},
    "sliding windows": WINDOWED,
    "sliding windows, little KV": WINDOWED | {"kv_tokens": 2600.0},
    "corrected, two at a time": {
        "max_sequences": 2,
        "cost": replace(engine().cost, batch_power=0.1, least_batch=2.0, most_batch=6.0),
    },
    "reserved whole": {"kv_tokens": 4 * 1500.0, "is_fully_reserved": True},
    "states beside a cache, little KV": {"state_units": 400, "kv_tokens": 4000.0},
    "states alone": {"full_layers": 0, "state_units": 1, "kv_tokens": 7.0},
    "sliding windows, reserved whole": WINDOWED | {"kv_tokens": 3600.0, "is_fully_reserved": True},
    "a slow front end": {"cost": replace(engine().cost, stream_s=6e-3, context_s=6e-6)},
    "experts on two accelerators": {
        "cost": replace(
            engine().cost,
            experts_s=0.01,
            expert_decay=-0.1,
            one_shot_s=1e-3,
            one_shot_token_s=2e-5,
            ring_s=4e-3,
            ring_token_s=1e-6,
        )
    },
}


def drawn(seed: int, count: int, rate: float) -> dict[str, np.ndarray]:
    """Requests of mixed sizes, some with cached prefixes and some with limits."""
    random = np.random.default_rng(seed)
    inputs = random.choice([1, 16, 17, 60, 200, 255, 256, 257, 500, 790], count)
    outputs = random.choice([1, 2, 16, 33, 60], count)
    return {
        "arrival_s": np.cumsum(random.exponential(1 / rate, count)),
        "input_tokens": inputs,
        "output_tokens": outputs,
        "cached_tokens": np.where(random.random(count) < 0.3, inputs // 2, 0),
        "max_tokens": np.where(random.random(count) < 0.5, outputs + 5, 0),
    }


def both(
    engines: list[Engine],
    requests: dict[str, np.ndarray],
    policy: int = 0,
    events: tuple[Event, ...] = (),
    seed: int = 0,
) -> tuple[Outcome, list[Job], list[Replica]]:
    """The same requests, compiled and plain."""
    type_of = [0] if len(engines) == 1 else [0, 0, *([1] * (len(engines) - 2))]
    quick = play(engines, fleet(type_of), policy, **requests, events=events, seed=seed)
    rows = zip(
        *(
            requests[name].tolist()
            for name in ("arrival_s", "input_tokens", "output_tokens", "cached_tokens", "max_tokens")
        ),
        strict=True,
    )
    jobs = [Job(number, *row) for number, row in enumerate(rows)]
    told = [(one.at_s, one.replica, one.is_up) for one in events]
    return quick, jobs, play_slowly(engines, fleet(type_of, "lists"), policy, jobs, told, seed)


def assert_alike(quick: Outcome, jobs: list[Job], replicas: list[Replica]) -> None:
    """The same schedule, and times within 1e-9."""
    assert quick.replica.tolist() == [job.replica for job in jobs]
    assert quick.status.tolist() == [job.status for job in jobs]
    assert quick.preemptions.tolist() == [job.preemptions for job in jobs]
    assert quick.retries.tolist() == [job.retries for job in jobs]
    for name, moments in (
        ("admitted_s", [job.admitted_s for job in jobs]),
        ("first_token_s", [job.first_s for job in jobs]),
        ("finish_s", [job.finish_s for job in jobs]),
        ("prefill_wait_s", [job.prefill_wait_s for job in jobs]),
    ):
        np.testing.assert_allclose(getattr(quick, name), moments, rtol=1e-9, atol=1e-9, err_msg=name)
    assert quick.steps.tolist() == [one.steps for one in replicas]
    assert quick.made_tokens.tolist() == [one.made for one in replicas]
    assert quick.wasted_tokens.tolist() == [one.wasted for one in replicas]
    np.testing.assert_allclose(quick.busy_s, [one.busy_s for one in replicas], rtol=1e-9)


@pytest.mark.parametrize("kind", ENGINES)
def test_the_schedule_of_one_replica_is_that_of_the_plain_simulation(kind: str) -> None:
    """Every kind of engine, from idle to overloaded."""
    preemptions = 0
    for seed, rate in enumerate((0.5, 3.0, 8.0, 30.0)):
        quick, jobs, replicas = both([engine(**ENGINES[kind])], drawn(seed, 60, rate))
        assert_alike(quick, jobs, replicas)
        preemptions += int(quick.preemptions.sum())
    assert (preemptions > 0) == ("little KV" in kind or kind == "blocks of one")


def test_a_request_that_ends_as_it_fills_its_window_leaves_nothing_behind() -> None:
    """Its last token is the window's last: later requests find the same replica as in the plain simulation."""
    count = 40
    requests = drawn(3, count, 4.0) | {"input_tokens": np.full(count, 40), "output_tokens": np.tile([24, 60], 20)}
    quick, jobs, replicas = both([engine(**WINDOWED)], requests | {"cached_tokens": np.zeros(count, np.int64)})
    assert_alike(quick, jobs, replicas)


@pytest.mark.parametrize("policy", range(len(POLICIES)), ids=POLICIES)
def test_the_schedule_of_a_fleet_is_that_of_the_plain_simulation(policy: int) -> None:
    """Every policy, over unequal replicas, one of which is lost and comes back."""
    engines = [
        engine(**ENGINES[kind]) for kind in ("chunked", "chunked", "little KV", "whole prompts", "sliding windows")
    ]
    for seed in range(4):
        requests = drawn(seed, 120, 20.0)
        events = (
            Event(at_s=1.5, replica=seed, is_up=False),
            Event(at_s=2.0, replica=4, is_up=False),
            Event(at_s=3.0, replica=seed, is_up=True),
        )
        quick, jobs, replicas = both(engines, requests, policy, events, seed)
        assert_alike(quick, jobs, replicas)
        assert quick.retries.sum() > 0


def test_a_request_lost_twice_has_failed_and_one_without_a_replica_too() -> None:
    """Both replicas go, one after the other."""
    requests = drawn(1, 20, 50.0)
    events = (Event(at_s=0.3, replica=0, is_up=False), Event(at_s=0.6, replica=1, is_up=False))
    quick, jobs, replicas = both([engine(), engine()], requests, 3, events)
    assert_alike(quick, jobs, replicas)
    assert (quick.status != SERVED).sum() > 10
    assert np.isnan(quick.finish_s[quick.status != SERVED]).all()


def test_a_step_takes_what_the_estimator_says() -> None:
    """One request, alone: its first token after the prompt's step, then one step for each token."""
    alone = engine()
    outcome = play([alone], fleet([0]), 0, np.zeros(1), np.array([200]), np.array([3]))
    first = step_time_s(alone.cost, batch=0, context_tokens=0, prefill_tokens=200, position=100, admitted=1)
    second = step_time_s(alone.cost, batch=1, context_tokens=201)
    third = step_time_s(alone.cost, batch=1, context_tokens=202)
    assert outcome.ttft_s[0] == pytest.approx(first)
    assert outcome.latency_s[0] == pytest.approx(first + second + third)


def test_what_cannot_fit_is_refused_and_the_rest_served() -> None:
    """Longer than the context limit, or than the KV cache."""
    small = engine(kv_tokens=4 * 300.0, max_context=1500)
    outcome = play([small], fleet([0]), 0, np.arange(3.0), np.array([1499, 300, 280]), np.array([2, 5, 5]))
    assert outcome.status.tolist() == [1, 1, 0]


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Two runs of a random policy."""
    requests = drawn(3, 200, 20.0)
    runs = [play([engine()] * 3, fleet([0, 0, 0]), 5, **requests, seed=9) for _ in range(2)]
    assert runs[0].finish_s.tobytes() == runs[1].finish_s.tobytes()
    assert runs[0].replica.tobytes() == runs[1].replica.tobytes()
    other = play([engine()] * 3, fleet([0, 0, 0]), 5, **requests, seed=10)
    assert runs[0].replica.tobytes() != other.replica.tobytes()


def test_what_a_server_is_started_with_changes_no_schedule() -> None:
    """The engine's era and its share of memory are for those who start it; its cache is known in tokens."""
    named = engine(era="vllm-1", memory_utilization=0.5)
    first, second = (play([one], fleet([0]), 0, **drawn(2, 60, 3.0), seed=0) for one in (engine(), named))
    np.testing.assert_array_equal(first.finish_s, second.finish_s)


def test_gaps_between_tokens_are_all_counted() -> None:
    """One gap for each token but the first, in bins that hold their mean."""
    steady = engine(cost=cost(host_s=0.02))
    outcome = play([steady], fleet([0]), 0, np.zeros(4), np.full(4, 10), np.array([1, 5, 9, 30]))
    assert outcome.gaps.sum() == 0 + 4 + 8 + 29
    edges = 1e-4 * 1.01 ** np.arange(outcome.gaps.shape[1] + 1)
    place = int(outcome.gaps[0].argmax())
    assert edges[place] <= 0.02 * (1 + 1e-9) <= edges[place + 1] * (1 + 1e-9)


def test_no_gap_between_tokens_is_lost_under_load() -> None:
    """Sums over requests and bins agree, prompts that hold decoding up included."""
    for kind in ("chunked", "whole prompts"):
        requests = drawn(2, 100, 10.0)
        outcome = play([engine(**ENGINES[kind])], fleet([0]), 0, **requests)
        assert (outcome.status == SERVED).all()
        assert not outcome.preemptions.any()
        assert outcome.gaps.sum() == (requests["output_tokens"] - 1).sum()
        middle = 1e-4 * 1.01 ** (np.arange(outcome.gaps.shape[1]) + 0.5)
        told = float((outcome.gaps[0] * middle).sum())
        seen = float((outcome.finish_s - outcome.first_token_s).sum())
        assert math.isclose(told, seen, rel_tol=0.05)
