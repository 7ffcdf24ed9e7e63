"""Terms of the step that explain old engines, and constants of classes of hardware."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import accelerators, find_model
from melange.catalog.model import Model
from melange.replica.era import find_era
from melange.replica.hardware import Hardware, replicas_of
from melange.replica.step import step_cost, step_time_s

LLAMA = find_model("meta-llama/Llama-3.1-8B")
A100 = accelerators()["A100-80GB"]
CONSTANTS = find_era("vllm").constants
MIXTURE = find_model("mistralai/Mixtral-8x7B-v0.1")  # 2 of 8 experts


def test_sampling_grows_with_the_vocabulary_and_with_each_request() -> None:
    """Its time is not divided among accelerators."""
    constants = replace(CONSTANTS, t_logit_s=1e-9)
    for degree in (1, 4):
        plain, sampled = (
            step_cost(LLAMA, A100, tensor_parallel=degree, constants=one) for one in (CONSTANTS, constants)
        )
        more = [
            float(
                step_time_s(sampled, batch=batch, context_tokens=0) - step_time_s(plain, batch=batch, context_tokens=0)
            )
            for batch in (1, 10)
        ]
        assert more == pytest.approx([1e-9 * LLAMA.vocabulary_size, 1e-8 * LLAMA.vocabulary_size])


def test_unpacking_integers_slows_the_arithmetic_and_not_the_reading() -> None:
    """Half the share of peak doubles what tokens take, and leaves a lone request as it was."""
    constants, int4 = replace(CONSTANTS, mfu_int4=0.5), LLAMA.quantized(weights="int4")
    whole, half = (step_cost(int4, A100, constants=one) for one in (CONSTANTS, constants))
    assert half.weights_s == whole.weights_s
    assert half.token_s == pytest.approx(2 * whole.token_s, rel=1e-6)
    for other in (LLAMA, LLAMA.quantized(weights="int8"), LLAMA.quantized(weights="fp8")):
        assert step_cost(other, A100, constants=constants) == step_cost(other, A100, constants=CONSTANTS)


def test_every_expert_with_tokens_computes_half_a_tile_more() -> None:
    """With many tokens all 8 experts are padded; with one token its 2 are; a dense model has no padding."""
    assert CONSTANTS.expert_padding == 16
    cost = step_cost(MIXTURE, A100, constants=CONSTANTS)
    rate = A100.flops("bf16") * CONSTANTS.mfu * CONSTANTS.mfu_experts
    assert cost.padding_s == pytest.approx(2 * 16 * MIXTURE.routed_parameters() / rate)
    bare = replace(cost, weights_s=0.0, experts_s=1e-12)  # arithmetic alone
    many, one = (
        float(step_time_s(bare, batch=0, context_tokens=0, prefill_tokens=tokens))
        - float(step_time_s(replace(bare, padding_s=0.0), batch=0, context_tokens=0, prefill_tokens=tokens))
        for tokens in (1000.0, 1.0)
    )
    assert many == pytest.approx(cost.padding_s)
    assert one == pytest.approx(cost.padding_s * 2 / 8)
    assert step_cost(MIXTURE, A100, tensor_parallel=2, constants=CONSTANTS).padding_s == cost.padding_s / 2
    assert step_cost(LLAMA, A100, constants=CONSTANTS).padding_s == 0.0


def test_quantizing_the_inputs_of_experts_takes_time_in_each_layer() -> None:
    """Only for experts in fp8 that are multiplied in fp8: an A100 has no units for it, and dense models do not pay."""
    quantizing = replace(CONSTANTS, t_quantize_layer_s=20e-6)
    without = replace(CONSTANTS, t_quantize_layer_s=0.0)
    h100, fp8 = accelerators()["H100-80GB"], MIXTURE.quantized(weights="fp8")

    def more_s(model: Model, card: Accelerator) -> float:
        return step_cost(model, card, constants=quantizing).host_s - step_cost(model, card, constants=without).host_s

    assert more_s(fp8, h100) == pytest.approx(20e-6 * MIXTURE.layers)
    assert more_s(fp8, A100) == more_s(MIXTURE, h100) == more_s(LLAMA.quantized(weights="fp8"), h100) == 0.0


def test_replicas_take_what_is_otherwise_on_their_class() -> None:
    """The closed form and the simulator get the same steps, slower by what was not measured."""
    era = find_era("vllm")
    hardware = [Hardware(accelerator=name) for name in ("MI300X", "H100-80GB")]
    cost = replicas_of(LLAMA, hardware, accelerators(), era).cost
    for place, one in enumerate(hardware):
        fact = accelerators()[one.accelerator]
        own = step_cost(LLAMA, fact, constants=era.constants_on(fact))
        slower = np.broadcast_to(cost.weights_s, (2, 1, 1))[place, 0, 0] / own.weights_s
        assert slower == pytest.approx(era.slowdown(LLAMA, fact))
