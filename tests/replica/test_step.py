"""The step time, term by term, with numbers by hand."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_cases import IDEAL

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import accelerators, find_model
from melange.catalog.model import Model
from melange.replica.era import find_era
from melange.replica.step import StepCost, mean_time_s, scaled, stack, step_cost, step_time_s, windowed_position

MATRICES = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)  # attention and feed-forward of Llama-2-7b
HEAD = 32000 * 4096


def test_one_token_takes_as_long_as_reading_the_weights(llama: Model, plain: Accelerator) -> None:
    """At batch 1 the weights (without the input embedding) are read once, and 2 bytes each at 1 TB/s is the time."""
    cost = step_cost(llama, plain, constants=IDEAL)
    time_s = step_time_s(cost, batch=1, context_tokens=0)
    assert time_s == pytest.approx(2 * (MATRICES + HEAD) / 1e12)


def test_large_batches_are_bound_by_arithmetic(llama: Model, plain: Accelerator) -> None:
    """Past the ridge a step takes two operations for each weight and token; prompt tokens skip the output head."""
    cost = step_cost(llama, plain, constants=IDEAL)
    time_s = step_time_s(cost, batch=500, context_tokens=0, prefill_tokens=1000)
    assert time_s == pytest.approx((2 * MATRICES * 1500 + 2 * HEAD * 500) / 100e12)


def test_attention_reads_the_cache(llama: Model, plain: Accelerator) -> None:
    """Half a MiB for each cached token at 1 TB/s."""
    cost = step_cost(llama, plain, constants=IDEAL)
    extra_s = step_time_s(cost, batch=1, context_tokens=2000) - step_time_s(cost, batch=1, context_tokens=0)
    assert extra_s == pytest.approx(2000 * 2**19 / 1e12)


def test_prompts_attend_to_what_came_before(llama: Model, plain: Accelerator) -> None:
    """A prompt of 4000 tokens attends to 2000 on average: 4 x 4096 operations a pair in each of 32 layers."""
    cost = step_cost(llama, plain, constants=IDEAL)
    near_s = step_time_s(cost, batch=0, context_tokens=0, prefill_tokens=4000)
    far_s = step_time_s(cost, batch=0, context_tokens=0, prefill_tokens=4000, position=2000)
    assert far_s - near_s == pytest.approx(4000 * 2000 * 4 * 4096 * 32 / 100e12)


def test_host_terms_add_up(llama: Model, plain: Accelerator) -> None:
    """A step, its layers, its running requests and its new ones each cost the host what the constants say."""
    constants = replace(IDEAL, t_step_s=1.0, t_layer_s=0.1, t_sequence_s=0.01, t_request_s=0.001)
    idle_s = step_time_s(step_cost(llama, plain, constants=IDEAL), batch=2, context_tokens=0)
    time_s = step_time_s(step_cost(llama, plain, constants=constants), batch=2, context_tokens=0, admitted=3)
    assert time_s - idle_s == pytest.approx(1.0 + 32 * 0.1 + 2 * 0.01 + 3 * 0.001)


def test_two_accelerators_share_weights_and_talk(llama: Model, plain: Accelerator) -> None:
    """Each of two reads half the weights; 64 all-reduces move 8 KiB for each token over 100 GB/s, or 10 over PCIe."""
    alone_s = step_time_s(step_cost(llama, plain, constants=IDEAL), batch=1, context_tokens=0)
    for is_pcie, bytes_per_s in ((False, 100e9), (True, 10e9)):
        cost = step_cost(llama, plain, tensor_parallel=2, is_pcie=is_pcie, constants=IDEAL)
        talk_s = 64 * 2 * 4096 / bytes_per_s
        assert step_time_s(cost, batch=1, context_tokens=0) == pytest.approx(alone_s / 2 + talk_s)


def test_small_messages_go_in_one_exchange_and_large_ones_around_a_ring(llama: Model, plain: Accelerator) -> None:
    """With latency 1 us and 8 accelerators: 7 n / rate + 1 us for one token, 7 us + 14/8 n / rate for very many."""
    constants = replace(IDEAL, link_latency_s=1e-6)
    cost = step_cost(llama, plain, tensor_parallel=8, constants=constants)
    silent = step_cost(llama, replace(plain, link_bandwidth_bytes_per_s=math.inf), tensor_parallel=8, constants=IDEAL)
    for tokens, each_s in ((1, 1e-6 + 7 * 8192 / 100e9), (10_000, 7e-6 + 14 / 8 * 8192 * 10_000 / 100e9)):
        talk_s = step_time_s(cost, batch=tokens, context_tokens=0) - step_time_s(silent, batch=tokens, context_tokens=0)
        assert talk_s == pytest.approx(64 * each_s)


def test_fp8_halves_the_weights_and_doubles_the_arithmetic(llama: Model, plain: Accelerator) -> None:
    """On a card with fp8 units both linear terms halve, but for the output head, which stays in 16 bits."""
    quantized = replace(llama, weight_dtype="fp8", activation_dtype="fp8")
    cost = step_cost(quantized, plain, constants=IDEAL)
    assert cost.weights_s == pytest.approx((MATRICES + 2 * HEAD) / 1e12)
    assert cost.token_s == pytest.approx(2 * MATRICES / 200e12)


def test_without_fp8_units_only_the_weights_shrink(llama: Model, plain: Accelerator) -> None:
    """A card without fp8 units holds the weights in fp8 and multiplies in bf16, as weight-only kernels do."""
    card = replace(plain, flops_by_dtype={"bf16": 100e12})
    cost = step_cost(replace(llama, weight_dtype="fp8", activation_dtype="fp8"), card, constants=IDEAL)
    assert cost.weights_s == pytest.approx((MATRICES + 2 * HEAD) / 1e12)
    assert cost.token_s == pytest.approx(2 * MATRICES / 100e12)


def test_without_bf16_units_fp16_ones_serve() -> None:
    """A T4 computes in fp16: 65 TFLOPS."""
    cost = step_cost(find_model("meta-llama/Llama-2-7b-hf"), accelerators()["T4"], constants=IDEAL)
    assert cost.token_s == pytest.approx(2 * MATRICES / 65e12)


def test_a10g_is_not_an_a10() -> None:
    """The A10G has about 70 dense TFLOPS, and so takes 125/70 of an A10's time over a long prompt."""
    llama = find_model("meta-llama/Llama-2-7b-hf")
    a10g, a10 = (step_cost(llama, accelerators()[name], constants=IDEAL) for name in ("A10G", "A10"))
    assert a10g.token_s / a10.token_s == pytest.approx(125 / 70, rel=0.01)


def test_experts_are_read_as_far_as_a_batch_touches_them(plain: Accelerator) -> None:
    """Mixtral: one token reads 2 of 8 experts, four 8 (1 - 0.75^4) = 5.47; arithmetic counts active ones."""
    mixtral = find_model("mistralai/Mixtral-8x7B-v0.1")
    slow = replace(plain, flops_by_dtype={"bf16": 1e20})
    cost = step_cost(mixtral, slow, constants=IDEAL)
    for tokens in (1, 4, 64):
        read_s = step_time_s(cost, batch=tokens, context_tokens=0)
        assert read_s == pytest.approx(mixtral.weight_bytes_read(tokens) / 1e12)
    assert cost.token_s == pytest.approx(2 * mixtral.active_parameters(output_head=False) / 1e20)


def test_a_sliding_window_ends_the_read(plain: Accelerator) -> None:
    """Gemma 3: past the window only the full layers' attention grows with the context."""
    gemma = find_model("google/gemma-3-27b-it")
    cost = step_cost(gemma, plain, constants=IDEAL)
    full = gemma.layers - gemma.sliding_layers
    times = [float(step_time_s(cost, batch=1, context_tokens=tokens)) for tokens in (10_000, 11_000)]
    assert times[1] - times[0] == pytest.approx(1000 * full * gemma.kv_bytes_per_layer() / 1e12)


def test_mean_position_within_a_window() -> None:
    """Brute force over a prompt of 100 tokens and a window of 30: within one token of the formula."""
    exact = np.mean([min(position, 30) for position in range(100)])
    assert windowed_position(np.array(50.0), 30.0) == pytest.approx(exact, abs=1)
    assert windowed_position(np.array(10.0), 30.0) == pytest.approx(10.0)


def test_latent_attention_is_bound_by_arithmetic_when_absorbed(plain: Accelerator) -> None:
    """DeepSeek-V3: 128 heads x 2 (2 x 512 + 64) operations over 1152 bytes: on this card arithmetic takes longer."""
    deepseek = find_model("deepseek-ai/DeepSeek-V3")
    cost = step_cost(replace(deepseek, kv_dtype="bf16"), plain, constants=IDEAL)
    assert cost.context_s == pytest.approx(61 * 128 * 2 * (2 * 512 + 64) / 100e12)


def test_a_stack_gives_what_its_parts_give(llama: Model, cards: dict[str, Accelerator]) -> None:
    """Stacked coefficients broadcast; every replica's time is its own."""
    constants = find_era("vllm").constants
    costs = [step_cost(llama, cards[name], constants=constants) for name in ("L4", "A10G", "H100-80GB")]
    together = step_time_s(stack(costs), batch=8.0, context_tokens=4000.0, prefill_tokens=100.0, position=250.0)
    apart = [
        step_time_s(cost, batch=8.0, context_tokens=4000.0, prefill_tokens=100.0, position=250.0) for cost in costs
    ]
    assert np.asarray(together)[:, 0, 0] == pytest.approx(apart)


def test_coefficients_are_plain_floats(llama: Model, plain: Accelerator) -> None:
    """A compiled loop can take them as they are."""
    cost = step_cost(llama, plain, constants=find_era("vllm").constants)
    assert all(type(getattr(cost, field.name)) is float for field in fields(StepCost))


@given(
    batch=st.floats(1, 500),
    context=st.floats(0, 1e6),
    prefill=st.floats(0, 1e4),
    more=st.floats(1, 3),
    name=st.sampled_from(("meta-llama/Llama-2-7b-hf", "openai/gpt-oss-20b", "deepseek-ai/DeepSeek-V3")),
)
def test_more_work_never_takes_less_time(batch: float, context: float, prefill: float, more: float, name: str) -> None:
    """Time grows with each of batch, context and prompt tokens, and in proportion when all times are scaled."""
    cost = step_cost(find_model(name), accelerators()["H200"], tensor_parallel=8, constants=find_era("vllm").constants)
    work = {"batch": batch, "context_tokens": context, "prefill_tokens": prefill, "position": 100.0}
    time_s = float(step_time_s(cost, **work))
    for key in ("batch", "context_tokens", "prefill_tokens"):
        assert float(step_time_s(cost, **(work | {key: work[key] * more}))) >= time_s * (1 - 1e-12)
    assert float(step_time_s(scaled(cost, more), **work)) == pytest.approx(more * time_s)


def test_the_mean_step_is_that_of_both_kinds() -> None:
    """With experts, windows, drafts and two cards that talk: steps with a prompt and without, by their share."""
    for name, drafts in (
        ("openai/gpt-oss-120b", 0.0),
        ("google/gemma-3-27b-it", 3.0),
        ("deepseek-ai/DeepSeek-V3", 0.0),
    ):
        cost = step_cost(
            find_model(name), accelerators()["H100-80GB"], tensor_parallel=2, constants=find_era("vllm").constants
        )
        cost = replace(cost, draft_tokens=drafts, accepted_tokens=drafts / 2, batch_power=0.1)
        running = {"batch": 20.0, "context_tokens": 30_000.0}
        prompt = {"prefill_tokens": 900.0, "position": 450.0, "admitted": 0.5}
        with_prompt, without = step_time_s(cost, **running, **prompt), step_time_s(cost, **running)
        expected = 0.3 * with_prompt + 0.7 * without
        assert mean_time_s(cost, **running, **prompt, share=0.3) == pytest.approx(expected)


def test_quantized_products_have_shares_of_their_own(llama: Model, plain: Accelerator) -> None:
    """fp8 at half its peak on a card that has it; weights in four bits multiply in fp8 where fp4 units are."""
    constants = replace(IDEAL, mfu_fp8=0.5)
    eight = replace(llama, weight_dtype="fp8", activation_dtype="fp8")
    four = replace(llama, weight_dtype="fp4", activation_dtype="bf16")
    blackwell = replace(plain, flops_by_dtype={"bf16": 100e12, "fp8": 200e12, "fp4": 400e12})
    assert step_cost(eight, plain, constants=constants).token_s == pytest.approx(2 * MATRICES / 100e12)
    assert step_cost(four, plain, constants=constants).token_s == pytest.approx(2 * MATRICES / 100e12)
    assert step_cost(four, blackwell, constants=constants).token_s == pytest.approx(2 * MATRICES / 100e12)
    assert step_cost(four, blackwell, constants=IDEAL).token_s == pytest.approx(2 * MATRICES / 200e12)


def test_layers_with_experts_and_latent_caches_take_longer(plain: Accelerator) -> None:
    """DeepSeek-V3 has 61 layers, all with a latent cache and 58 with experts, which reach half of the arithmetic."""
    deepseek = find_model("deepseek-ai/DeepSeek-V3")
    constants = replace(IDEAL, t_layer_s=1.0, t_moe_layer_s=0.1, t_latent_layer_s=0.01, mfu_experts=0.5)
    cost = step_cost(deepseek, plain, tensor_parallel=8, constants=constants)
    assert cost.host_s == pytest.approx(61 * 1.01 + 58 * 0.1)
    ideal = step_cost(deepseek, plain, tensor_parallel=8, constants=IDEAL)
    routed = deepseek.routed_parameters() * 8 / 256
    assert cost.token_s - ideal.token_s == pytest.approx(2 * routed / (plain.flops(deepseek.activation_dtype) * 8))
