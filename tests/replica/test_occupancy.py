"""The closed form of one engine: the same batches as of the model it serves, and limits that differ by size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.catalog.bundled import accelerators, find_model
from melange.replica.capacity import Sizes, largest_batch, max_request_rate, prompt_times_s, rate_within
from melange.replica.engine import Engine, engines_of
from melange.replica.era import find_era
from melange.replica.hardware import Hardware, replicas_of
from melange.replica.occupancy import largest_batch_of, replicas_like, running_at

# Full attention, five windows in six layers, latent.
MODELS = ["meta-llama/Llama-3.1-8B", "google/gemma-3-27b-it", "deepseek-ai/DeepSeek-V2-Lite"]
ENGINES = ["vllm", "vllm-0.2", "trtllm"]
ROWS, COLUMNS = np.meshgrid([20.0, 900.0, 3000.0, 30_000.0, 120_000.0], [1.0, 50.0, 900.0, 8000.0], indexing="ij")
SIZES = Sizes(inputs=ROWS[None], outputs=COLUMNS[None])


def engine_of(name: str, era: str) -> tuple[Engine, np.ndarray, np.ndarray]:
    """The engine of a model on an H100, its largest batches and its rates within 60 ms a token and 2 s to the first."""
    model, card, found = find_model(name), accelerators()["H100-80GB"], find_era(era)
    replicas = replicas_of(model, [Hardware(accelerator=card.name)], {card.name: card}, found)
    (engine,) = engines_of(replicas, [model.kv_shape()], [found.residuals], found, "estimated")
    assert engine is not None
    limits = {"ttft": 2.0, "tpot": 0.06}
    return engine, largest_batch(replicas, model, SIZES), max_request_rate(replicas, model, SIZES, limits)


@pytest.mark.parametrize("era", ENGINES)
@pytest.mark.parametrize("name", MODELS)
def test_an_engine_holds_as_many_requests_as_the_model_it_serves(name: str, era: str) -> None:
    """With sliding windows and without: what a profile knows of an engine says all that the model says."""
    engine, batch, rate = engine_of(name, era)
    assert batch.max() > 0
    assert largest_batch_of(engine, SIZES) == pytest.approx(batch, rel=1e-12)
    again = rate_within(replicas_like(engine), SIZES, {"ttft": 2.0, "tpot": 0.06}, batch)
    assert again == pytest.approx(rate, rel=1e-12)


def test_a_window_holds_more_long_requests() -> None:
    """Layers with a window of 1024 tokens keep no more of a prompt of 30,000."""
    assert find_model(MODELS[1]).sliding_layers > 0
    engine, _, _ = engine_of(MODELS[1], "vllm")
    layers = engine.full_layers + engine.sliding_layers
    full = replace(engine, full_layers=layers, sliding_layers=0, window=0)
    assert (largest_batch_of(engine, SIZES) >= largest_batch_of(full, SIZES)).all()
    assert largest_batch_of(engine, SIZES)[0, 3, 1] > 2 * largest_batch_of(full, SIZES)[0, 3, 1]
    assert largest_batch_of(engine, SIZES)[0, 0, 1] == pytest.approx(largest_batch_of(full, SIZES)[0, 0, 1])


def test_limits_that_differ_by_size_bind_their_own_size_alone() -> None:
    """Each size has the rate that it has where its limits are those of all."""
    engine, batch, _ = engine_of(MODELS[0], "vllm")
    times = np.linspace(0.5, 4.0, ROWS.size).reshape(SIZES.inputs.shape)
    limits = {"ttft": 0.5, "ntpot": 0.05}
    found = rate_within(replicas_like(engine), SIZES, {key: limit * times for key, limit in limits.items()}, batch)
    assert 3 < np.count_nonzero(found) < found.size
    for place, factor in np.ndenumerate(times):
        alike = {key: limit * float(factor) for key, limit in limits.items()}
        assert found[place] == pytest.approx(rate_within(replicas_like(engine), SIZES, alike, batch)[place], rel=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_no_more_run_than_an_engine_has_room_for(name: str) -> None:
    """At its maximum rate and at a thousand times that: running requests end at the largest batch."""
    engine, batch, rate = engine_of(name, "vllm")
    served = rate > 0
    for times in (1.0, 1000.0):
        found = running_at(engine, SIZES, rate * times)
        own_s, _ = prompt_times_s(replicas_like(engine), SIZES, batch)
        assert (found[served] <= (batch + rate * times * own_s)[served] * 1.02).all()
    assert (found[served] >= batch[served] * (1 - 1e-6)).all()
