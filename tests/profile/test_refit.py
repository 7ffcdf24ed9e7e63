"""Coefficients fitted to step times from elsewhere."""

from dataclasses import replace

import numpy as np
import pytest

from melange.catalog.bundled import accelerators, find_model
from melange.profile.refit import Steps, misfit, predicted_s, refit
from melange.replica.era import find_era
from melange.replica.step import StepCost, step_cost

GRID = np.array(
    [(batch, context, chunk) for batch in (1, 8, 64, 256) for context in (256, 1024, 8192) for chunk in (0, 512, 4096)],
    float,
)
MODELS = ["meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-120b"]


def cost_of(model: str, tensor_parallel: int = 2) -> StepCost:
    """A model on two H100 under vLLM."""
    constants = find_era("vllm").constants
    return step_cost(
        find_model(model), accelerators()["H100-80GB"], tensor_parallel=tensor_parallel, constants=constants
    )


def steps_of(cost: StepCost, noise: float = 0.0) -> Steps:
    """Its steps on the grid, each off by a random factor."""
    batch, context, chunk = GRID.T
    place = {"batch": batch, "context_tokens": batch * context, "prefill_tokens": chunk, "position": context / 2}
    times = predicted_s(cost, **place)
    return Steps(**place, time_s=times * np.exp(noise * np.random.default_rng(3).standard_normal(len(times))))


@pytest.mark.parametrize("model", MODELS)
def test_steps_of_another_machine_are_found_again(model: str) -> None:
    """Where some coefficient group explains the difference, hardly any of it is left."""
    ours = cost_of(model)
    other = replace(ours, weights_s=ours.weights_s * 1.4, token_s=ours.token_s * 0.7, output_s=ours.output_s * 0.7)
    other = replace(other, experts_s=ours.experts_s * 1.4, context_s=ours.context_s * 2, host_s=ours.host_s * 0.5)
    other = replace(other, window_context_s=ours.window_context_s * 2)
    steps = steps_of(other)
    assert misfit(ours, steps) > 0.1
    assert misfit(refit(ours, steps), steps) < 0.02


def test_noise_is_averaged_and_not_followed() -> None:
    """Of 10 % of noise on the right steps the fit keeps far less."""
    ours = cost_of(MODELS[0])
    fitted = refit(ours, steps_of(ours, noise=0.1))
    assert misfit(fitted, steps_of(ours)) < 0.05


def test_what_no_step_tells_stays() -> None:
    """Host work of a request is in no step's time; without a link there is none to fit."""
    ours = cost_of(MODELS[0], tensor_parallel=1)
    fitted = refit(ours, steps_of(replace(ours, host_s=ours.host_s * 3)))
    assert fitted.request_s == ours.request_s
    assert fitted.one_shot_s == fitted.ring_token_s == 0.0
    assert fitted.window == ours.window


def test_one_step_is_enough() -> None:
    """A single point moves the coefficients that it depends on."""
    ours = cost_of(MODELS[0])
    whole = steps_of(ours)
    point = Steps(
        **{name: getattr(whole, name)[5:6] for name in ("batch", "context_tokens", "prefill_tokens", "position")},
        time_s=whole.time_s[5:6] * 1.3,
    )
    assert misfit(refit(ours, point), point) < 0.01
