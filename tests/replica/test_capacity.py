"""The closed form against numbers by hand, a plain loop, queueing theory and what must always hold."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_cases import IDEAL

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import accelerators, find_model
from melange.catalog.model import Model
from melange.replica.capacity import (
    Array,
    Replicas,
    Sizes,
    largest_batch,
    largest_limit_share,
    max_request_rate,
    mean_step_s,
    metrics_s,
    prompt_times_s,
)
from melange.replica.era import Era, find_era
from melange.replica.hardware import Hardware, replicas_of

# Bisection leaves this much of a batch open.
OPEN = 3e-4


def ideal(**engine: object) -> Era:
    """The default era with datasheet figures at face value."""
    return replace(find_era("vllm"), constants=IDEAL).with_settings(**engine)


def one(model: Model, card: Accelerator, era: Era) -> Replicas:
    """One replica on one card."""
    return replicas_of(model, [Hardware(accelerator=card.name)], {card.name: card}, era)


def size(inputs: float, outputs: float) -> Sizes:
    """One size (1, 1, 1)."""
    return Sizes(inputs=np.full((1, 1, 1), inputs), outputs=np.full((1, 1, 1), outputs))


def grid(inputs: list[float], outputs: list[float]) -> Sizes:
    """A grid of sizes (1, I, O)."""
    rows, columns = np.meshgrid(np.array(inputs, float), np.array(outputs, float), indexing="ij")
    return Sizes(inputs=rows[None], outputs=columns[None])


def rate(model: Model, card: Accelerator, sizes: Sizes, limits: dict[str, float], era: Era) -> Array:
    """Rates on one card (I, O)."""
    return np.asarray(max_request_rate(one(model, card, era), model, sizes, limits)[0])


def test_rate_by_hand(llama: Model, plain: Accelerator) -> None:
    """Bound by max_num_seqs of 10: 10 requests, a token each every step, prompts of others in some."""
    era = ideal(max_sequences=10)
    weights = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 32000 * 4096
    prompt = 10 * 50 / 400
    step_s = 2 * weights / 1e12 + 10 * (50 + 200) * 2**19 / 1e12 + prompt * 25 * 4 * 4096 * 32 / 100e12
    assert rate(llama, plain, size(50, 400), {"tpot": 10.0}, era)[0, 0] == pytest.approx(10 / (400 * step_s))


def test_a_prompt_hides_behind_the_weights_only_in_its_own_step(llama: Model, plain: Accelerator) -> None:
    """Of 40 steps one carries a prompt of 1000 tokens, whose arithmetic takes longer than reading the weights."""
    matrices, head = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008), 32000 * 4096
    read_s = 2 * (matrices + head) / 1e12
    mixed_s = (2 * matrices * 1010 + 2 * head * 10) / 100e12
    attention_s = 10 * (1000 + 200) * 2**19 / 1e12 + 10 / 400 * 1000 * 500 * 4 * 4096 * 32 / 100e12
    replicas = one(llama, plain, ideal())
    step_s = mean_step_s(replicas, size(1000, 400), np.full((1, 1, 1), 10.0))[0, 0, 0]
    assert step_s == pytest.approx(39 / 40 * read_s + 1 / 40 * mixed_s + attention_s)


def test_rate_under_a_tpot_limit_by_hand(llama: Model, plain: Accelerator) -> None:
    """Where reading decides, TPOT is linear in B, and the largest B solves it: limit = weights + B (i + o/2) k + ..."""
    weights_s = 2 * (32 * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 32000 * 4096) / 1e12
    each_s = (50 + 200) * 2**19 / 1e12 + 50 / 400 * 25 * 4 * 4096 * 32 / 100e12
    batch = (0.016 - weights_s) / each_s
    found = rate(llama, plain, size(50, 400), {"tpot": 0.016}, ideal())
    assert 1 < batch < 200
    assert found[0, 0] == pytest.approx(batch / (400 * 0.016), rel=OPEN)


def test_below_the_weight_read_floor_nothing_is_served(llama: Model, cards: dict[str, Accelerator]) -> None:
    """13.2 GB at an L4's 300 GB/s are 44 ms even at its peak: at 40 ms the rate is exactly 0, at 60 ms it is not."""
    assert rate(llama, cards["L4"], size(500, 100), {"tpot": 0.040}, ideal())[0, 0] == 0.0
    assert rate(llama, cards["L4"], size(500, 100), {"tpot": 0.060}, ideal())[0, 0] > 0


def test_cache_bounds_the_batch_at_mean_residency(llama: Model, cards: dict[str, Accelerator]) -> None:
    """An A10G's cache holds 6 GiB: i + o/2 of each request on average, with half a block of 16 tokens of waste."""
    replicas = one(llama, cards["A10G"], find_era("vllm"))
    tokens = replicas.kv_tokens[0, 0, 0] / 32
    assert 10_000 < tokens < 16_000
    assert largest_batch(replicas, llama, size(1000, 500))[0, 0, 0] == pytest.approx(tokens / (1250 + 8))


def test_an_engine_that_evicts_nobody_holds_fewer(llama: Model, cards: dict[str, Accelerator]) -> None:
    """TensorRT-LLM keeps room for the whole length of every request, i + o in place of i + o/2."""
    replicas = one(llama, cards["A10G"], find_era("trtllm"))
    tokens = replicas.kv_tokens[0, 0, 0] / 32
    assert largest_batch(replicas, llama, size(1000, 500))[0, 0, 0] == pytest.approx(tokens / (1500 + 8))


def test_a_front_end_limits_tokens_whatever_the_engine_does(llama: Model, plain: Accelerator) -> None:
    """At 1 ms a token one replica hands on a thousand tokens a second: ten requests of 100 tokens."""
    era = ideal(max_batched_tokens=100_000, max_context=10_000)
    slow = replace(era, constants=replace(era.constants, t_stream_s=1e-3))
    free, held = (
        max_request_rate(one(llama, plain, which), llama, size(10, 100), {"tpot": 10.0}) for which in (era, slow)
    )
    assert free[0, 0, 0] > 11
    assert held[0, 0, 0] == pytest.approx(10)


def test_one_request_must_fit_at_its_full_length(llama: Model, cards: dict[str, Accelerator]) -> None:
    """Where i + o is past the cache or past the context limit nothing fits, though i + o/2 would."""
    replicas = one(llama, cards["A10G"], find_era("vllm").with_settings(max_context=100_000))
    tokens = replicas.kv_tokens[0, 0, 0] / 32
    assert largest_batch(replicas, llama, size(tokens - 500, 1000))[0, 0, 0] == 0
    assert largest_batch(replicas, llama, size(tokens - 1500, 1000))[0, 0, 0] > 1
    assert largest_batch(one(llama, cards["A10G"], find_era("vllm")), llama, size(4000, 97))[0, 0, 0] == 0
    assert largest_batch(one(llama, cards["A10G"], find_era("vllm")), llama, size(4000, 96))[0, 0, 0] > 1


def test_chunks_share_a_step_with_running_requests(llama: Model, plain: Accelerator) -> None:
    """A budget of 2048 tokens a step: B (1 + i / o) of them at most."""
    replicas = one(llama, plain, ideal(max_batched_tokens=2048, max_context=10_000))
    assert largest_batch(replicas, llama, size(3000, 10))[0, 0, 0] == pytest.approx(2048 / 301)


def test_prompts_of_their_own_step_stop_the_others(llama: Model, plain: Accelerator) -> None:
    """Without chunks every o-th of a request's steps is followed by a prompt step, which reads the weights again."""
    era = ideal(is_chunked=False)
    replicas = one(llama, plain, era)
    batch = np.full((1, 1, 1), 5.0)
    weights_s = replicas.cost.weights_s
    prompt_s = 1000 * replicas.cost.token_s + 1000 * 500 * replicas.cost.position_s
    decode_s = weights_s + 5 * (1000 + 50) * 2**19 / 1e12
    assert mean_step_s(replicas, size(1000, 100), batch)[0, 0, 0] == pytest.approx(decode_s + 5 / 100 * prompt_s)


def test_metrics_hang_together(llama: Model, plain: Accelerator) -> None:
    """Latency = TTFT + (o - 1) TPOT, NTPOT = latency / o, and TPOT is 0 for a single token."""
    replicas = one(llama, plain, find_era("vllm"))
    sizes = grid([100, 1000], [1, 200])
    batch = np.full((1, 2, 2), 4.0)
    found = metrics_s(replicas, sizes, ("ttft", "tpot", "ntpot", "latency"), batch, np.full((1, 2, 2), 100.0))
    assert found["latency"] == pytest.approx(found["ttft"] + (sizes.outputs - 1) * found["tpot"])
    assert found["ntpot"] == pytest.approx(found["latency"] / sizes.outputs)
    assert (found["tpot"][:, :, 0] == 0).all()
    assert (found["tpot"][:, :, 1] > 0).all()


def test_an_idle_replica_answers_after_its_own_prompt(llama: Model, plain: Accelerator) -> None:
    """With next to no traffic TTFT is the time of the prompt's chunks alone: 5 chunks of 2000 tokens."""
    replicas = one(llama, plain, ideal(max_batched_tokens=2048, max_context=20_000))
    sizes, batch = size(10_000, 100), np.full((1, 1, 1), 1e-9)
    own_s, _ = prompt_times_s(replicas, sizes, batch)
    ttft_s = metrics_s(replicas, sizes, ("ttft",), batch, np.full((1, 1, 1), 10.0))["ttft"]
    cost = replicas.cost
    chunk_s = 2000 * cost.token_s + 2000 * 5000 * cost.position_s
    assert own_s[0, 0, 0] == pytest.approx(5 * chunk_s)
    assert ttft_s[0, 0, 0] == pytest.approx(5 * chunk_s, rel=1e-6)


def test_one_slot_waits_as_m_d_1(llama: Model, plain: Accelerator) -> None:
    """One slot of constant service, half busy: a mean wait of rho / (2 (1 - rho)) = half a service (Pollaczek)."""
    replicas = one(llama, plain, ideal(max_sequences=1))
    sizes, slots = size(10, 1000), np.ones((1, 1, 1))
    batch = np.full((1, 1, 1), 0.5)
    step_s = mean_step_s(replicas, sizes, batch)
    own_s, _ = prompt_times_s(replicas, sizes, batch)
    ttft_s = metrics_s(replicas, sizes, ("ttft",), batch, slots)["ttft"]
    service_s = own_s + 1000 * step_s
    assert (ttft_s / service_s)[0, 0, 0] == pytest.approx(0.5, rel=0.01)


def test_full_slots_wait_for_ever(llama: Model, plain: Accelerator) -> None:
    """A TTFT limit keeps the mean batch below the slots, however generous it is; a TPOT limit does not."""
    era = ideal(max_sequences=4)
    waiting = rate(llama, plain, size(100, 100), {"ttft": 30.0}, era)[0, 0]
    full = rate(llama, plain, size(100, 100), {"tpot": 30.0}, era)[0, 0]
    assert 0.8 * full < waiting < full


def loop(model: Model, replicas: Replicas, sizes: Sizes, limits: dict[str, float]) -> tuple[float, float]:
    """The best rate over every whole batch, one after the other, and the rate at one request more [1/s]."""
    slots = largest_batch(replicas, model, sizes)
    best, beyond = 0.0, np.inf
    for running in range(1, int(slots[0, 0, 0]) + 1):
        batch = np.full((1, 1, 1), float(running))
        if largest_limit_share(replicas, sizes, limits, batch, slots)[0, 0, 0] <= 1:
            best = max(best, float((batch / (sizes.outputs * mean_step_s(replicas, sizes, batch)))[0, 0, 0]))
            beyond = float(((batch + 1) / (sizes.outputs * mean_step_s(replicas, sizes, batch + 1)))[0, 0, 0])
    return best, beyond


@pytest.mark.parametrize("engine", ["vllm", "vllm-0.2"])
@pytest.mark.parametrize("limits", [{"tpot": 0.05}, {"ntpot": 0.1}, {"ttft": 0.5, "tpot": 0.1}, {"latency": 30.0}])
def test_agrees_with_the_loop_over_every_batch(
    llama: Model, cards: dict[str, Accelerator], engine: str, limits: dict[str, float]
) -> None:
    """Never below the best whole batch's rate, and never above the rate of one request more."""
    replicas = one(llama, cards["A100-80GB"], find_era(engine))
    for inputs, outputs in ((50, 50), (500, 200), (2000, 500)):
        sizes = size(inputs, outputs)
        looped, beyond = loop(llama, replicas, sizes, limits)
        found = float(max_request_rate(replicas, llama, sizes, limits)[0, 0, 0])
        assert 0 < looped * (1 - OPEN) <= found <= beyond


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B"])
@pytest.mark.parametrize("limits", [{"tpot": 0.04}, {"ntpot": 0.12}, {"ttft": 1.0, "tpot": 0.05}, {"latency": 60.0}])
def test_agrees_with_the_formula_written_once_more(
    plain_estimate: ModuleType, name: str, limits: dict[str, float]
) -> None:
    """The benchmark's own version, in plain floats over whole batches: never below it, in the median 1 % above."""
    model, card, era = find_model(name), accelerators()["H100-80GB"], find_era("vllm")
    sizes = grid([25, 500, 4000, 16_000], [25, 250, 2000])
    replicas = replicas_of(model, [Hardware(accelerator=card.name, tensor_parallel=2)], {card.name: card}, era)
    found = max_request_rate(replicas, model, sizes, limits)[0]
    replica = plain_estimate.PlainReplica(model, card, 2, era)
    looped = np.vectorize(replica.max_request_rate, excluded=[2])(sizes.inputs[0], sizes.outputs[0], limits)
    assert (found >= looped * (1 - OPEN)).all()
    assert np.median(found[looped > 0] / looped[looped > 0]) < 1.01
    assert (looped > 0).sum() > 8


INPUTS = [20, 300, 4000, 30_000]
OUTPUTS = [20, 300, 2000]
LIMITS = st.dictionaries(
    st.sampled_from(("ttft", "tpot", "ntpot", "latency")),
    st.floats(0.005, 5.0),
    min_size=1,
)
MODELS = st.sampled_from(("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B", "google/gemma-3-27b-it"))
ENGINES = st.sampled_from(("vllm", "vllm-0.2", "trtllm"))


@settings(max_examples=25, deadline=None)
@given(name=MODELS, engine=ENGINES, limits=LIMITS, more=st.floats(1.0, 4.0))
def test_a_looser_slo_never_lowers_a_rate(name: str, engine: str, limits: dict[str, float], more: float) -> None:
    """Every limit times the same factor, or any one of them: no rate falls."""
    model, card, era = find_model(name), accelerators()["H100-80GB"], find_era(engine)
    tight = rate(model, card, grid(INPUTS, OUTPUTS), limits, era)
    loose = rate(model, card, grid(INPUTS, OUTPUTS), {key: limit * more for key, limit in limits.items()}, era)
    assert (loose >= tight * (1 - OPEN)).all()


@settings(max_examples=25, deadline=None)
@given(name=MODELS, engine=ENGINES, limits=LIMITS, wider=st.floats(1.0, 3.0), faster=st.floats(1.0, 3.0))
def test_a_faster_card_never_lowers_a_rate(
    name: str, engine: str, limits: dict[str, float], wider: float, faster: float
) -> None:
    """More bandwidth, more arithmetic or both: no rate falls."""
    model, card, era = find_model(name), accelerators()["H100-80GB"], find_era(engine)
    flops = {dtype: value * faster for dtype, value in card.flops_by_dtype.items()}
    better = replace(card, bandwidth_bytes_per_s=card.bandwidth_bytes_per_s * wider, flops_by_dtype=flops)
    slow, fast = (rate(model, one_card, grid(INPUTS, OUTPUTS), limits, era) for one_card in (card, better))
    assert (fast >= slow * (1 - OPEN)).all()


@settings(max_examples=25, deadline=None)
@given(name=MODELS, engine=ENGINES, limit_s=st.floats(0.005, 0.5))
def test_a_longer_prompt_never_gets_a_higher_rate_under_tpot(name: str, engine: str, limit_s: float) -> None:
    """More to read and more to keep both lower it; under NTPOT and TTFT that need not be so."""
    found = rate(
        find_model(name), accelerators()["H100-80GB"], grid(INPUTS, OUTPUTS), {"tpot": limit_s}, find_era(engine)
    )
    assert (np.diff(found, axis=0) <= found[:-1] * OPEN).all()


@settings(max_examples=25, deadline=None)
@given(name=MODELS, engine=ENGINES, limit_s=st.floats(0.3, 1.0))
def test_a_longer_output_never_gets_a_higher_rate_under_a_loose_tpot(name: str, engine: str, limit_s: float) -> None:
    """More to write lowers it where the limit leaves room; near the floor short outputs add prompts to every step."""
    found = rate(
        find_model(name), accelerators()["H100-80GB"], grid(INPUTS, OUTPUTS), {"tpot": limit_s}, find_era(engine)
    )
    assert (np.diff(found, axis=1) <= found[:, :-1] * OPEN).all()
