"""Terms of the step that explain old engines, and constants of classes of hardware."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.catalog.bundled import accelerators, find_model
from melange.replica.era import find_era
from melange.replica.hardware import Hardware, replicas_of
from melange.replica.step import step_cost, step_time_s

LLAMA = find_model("meta-llama/Llama-3.1-8B")
A100 = accelerators()["A100-80GB"]
CONSTANTS = find_era("vllm").constants


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
