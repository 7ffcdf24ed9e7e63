"""Measured points that are faster than arithmetic allows: the cause is named with what shows it, and others are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from melange.catalog.bundled import accelerators, find_model
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.profile.anchor import anchor_from
from melange.profile.comparison import samples_of
from melange.profile.estimate_inputs import EstimateInputs
from melange.profile.formats.measurement_files import read_measurements
from melange.profile.measurement import Measurement
from melange.profile.profile import Profile
from melange.replica.capacity import Replicas, Sizes, mean_step_s, prompt_times_s
from melange.replica.era import find_era
from melange.replica.hardware import Hardware, replicas_of
from melange.slo import Slo
from melange.workload.workload import Buckets

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "latency_s")
MODEL = find_model("meta-llama/Llama-3.1-8B-Instruct")


def replicas(card: str) -> Replicas:
    """One accelerator with today's vLLM."""
    return replicas_of(MODEL, [Hardware(accelerator=card)], accelerators(), find_era("vllm"))


def cell(value: float) -> np.ndarray:
    """One replica, one size."""
    return np.full((1, 1, 1), float(value))


def predicted(card: str, inputs: float, outputs: float, concurrency: float, read_s: float = 1.0) -> Measurement:
    """What the model has a closed loop show, with prompts of which only this share has to be read."""
    replica = replicas(card)
    sizes = Sizes(inputs=cell(max(inputs * read_s, 1.0)), outputs=cell(outputs))
    batch = concurrency
    for _ in range(20):
        step_s = float(mean_step_s(replica, sizes, cell(batch))[0, 0, 0])
        own_s = float(prompt_times_s(replica, sizes, cell(batch))[0][0, 0, 0])
        batch = concurrency / (1 + own_s / (outputs * step_s))
    latency_s = own_s + outputs * step_s
    return Measurement(
        input_tokens=inputs,
        output_tokens=outputs,
        concurrency=concurrency,
        achieved_rate=concurrency / latency_s,
        ttft_s={"mean": own_s},
        tpot_s={"mean": step_s},
        itl_s={"mean": step_s},
        latency_s={"mean": latency_s},
        source="test",
    )


def told(card: str, point: Measurement, model: Model = MODEL) -> str:
    """What is said of a point."""
    return " ".join(caution.message for caution in samples_of(replicas(card), model, [point])[1])


@pytest.mark.parametrize("card", ["H100-80GB", "A10G", "L4", "MI300X"])
@pytest.mark.parametrize("size", [(200, 200), (1000, 500), (8000, 100), (8000, 1000)])
@pytest.mark.parametrize("concurrency", [1, 8, 32])
@pytest.mark.parametrize("factor", [0.7, 1.0, 1.4])
def test_points_as_wrong_as_the_model_is_are_left_alone(
    card: str, size: tuple[int, int], concurrency: int, factor: float
) -> None:
    """A third faster or slower throughout names no cause."""
    point = predicted(card, *size, concurrency)
    scaled = replace(
        point,
        achieved_rate=(point.achieved_rate or 0) / factor,
        **{name: {"mean": getattr(point, name)["mean"] * factor} for name in LATENCIES},
    )
    assert "likely cause" not in told(card, scaled)


@pytest.mark.parametrize("card", ["H100-80GB", "A10G", "L4"])
@pytest.mark.parametrize("cached", [0.9, 0.98])
@pytest.mark.parametrize("concurrency", [1, 8])
def test_prompts_that_were_cached_are_named(card: str, cached: float, concurrency: int) -> None:
    """The first token of 8,000 comes sooner than they can be read."""
    message = told(card, predicted(card, 8000, 200, concurrency, 1 - cached))
    assert "prefix caching is a likely cause (the first token arrives after" in message
    assert "speculative" not in message


def test_prompts_that_were_cached_show_in_the_rate_too() -> None:
    """Where the file says no time to the first token."""
    point = predicted("H100-80GB", 8000, 100, 32, 0.02)
    assert "prompts per second were answered, but only" in told("H100-80GB", replace(point, ttft_s={}, latency_s={}))


@pytest.mark.parametrize("card", ["H100-80GB", "A10G", "L4"])
@pytest.mark.parametrize("accepted", [2.0, 3.0])
def test_tokens_that_were_speculated_are_named(card: str, accepted: float) -> None:
    """Two or three tokens a step: a token takes less than a step that reads no prompt."""
    point = predicted(card, 500, 500, 4)
    fast = replace(point, tpot_s={"mean": point.tpot_s["mean"] / accepted}, itl_s={}, latency_s={}, achieved_rate=None)
    message = told(card, fast)
    assert "speculative decoding is a likely cause (a token takes" in message
    assert "prefix caching" not in message


def test_tokens_that_come_in_groups_are_named() -> None:
    """The gap between chunks is longer than the time per token."""
    point = predicted("H100-80GB", 500, 500, 4)
    grouped = replace(point, tpot_s={"mean": point.tpot_s["mean"] / 1.5}, latency_s={}, achieved_rate=None)
    assert "speculative decoding is a likely cause (tokens arrive in groups" in told("H100-80GB", grouped)


@pytest.mark.parametrize("key", ["accept_length", "spec_decode_acceptance_length"])
@pytest.mark.parametrize(("tokens", "is_named"), [(2.7, True), (1.0, False), (None, False), (0, False)])
def test_a_file_that_says_so_is_believed(key: str, tokens: float | None, is_named: bool, tmp_path: Path) -> None:
    """SGLang's and vLLM's own figure."""
    content = {
        **{"request_rate": "inf", "max_concurrency": 4, "duration": 20.0, "completed": 10, "total_input_tokens": 5000},
        **{"total_output_tokens": 1000, "request_throughput": 1.0, "mean_tpot_ms": 8.0, key: tokens},
    }
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    (point,) = read_measurements(path)
    assert point.tokens_per_step == (tokens or None)
    assert Measurement.from_json(point.to_json()) == point
    assert ("the file says 2.7 tokens per step" in told("H100-80GB", point)) is is_named


def test_a_point_that_is_far_too_slow_is_no_such_case() -> None:
    """Four times as slow as it should be: something else was measured."""
    point = predicted("H100-80GB", 500, 500, 4)
    slow = replace(point, tpot_s={"mean": point.tpot_s["mean"] * 4}, itl_s={}, latency_s={}, ttft_s={})
    assert "check that model, accelerator, degree and engine match the service" in told("H100-80GB", slow)


@pytest.mark.parametrize("card", ["H100-80GB", "A10G"])
@pytest.mark.parametrize("accepted", [2.5, 4.0])
def test_points_that_were_made_fast_correct_nothing_unless_asked(card: str, accepted: float) -> None:
    """An estimate is that without them; asked for, it is several times as fast; a sound point beside them counts."""
    sound = replace(predicted(card, 500, 500, 4), accelerator=card)
    fast = replace(sound, tpot_s={"mean": sound.tpot_s["mean"] / accepted}, itl_s={}, latency_s={}, achieved_rate=None)
    rented = [Offer(provider="p", region="r", instance_type="one", accelerator=card, accelerators=1, cost_per_h=1.0)]
    buckets = Buckets(input_edges=(500,), output_edges=(500,))
    slo = Slo(tpot_s=0.2, ttft_s=5.0, statistic="mean")
    inputs = EstimateInputs(model=MODEL, offers=rented, slo=slo, sizes=buckets)

    def rate(*points: Measurement, doubtful: bool = False) -> Profile:
        return anchor_from(inputs, points, doubtful=doubtful)

    plain, left, used = rate(), rate(fast), rate(fast, doubtful=True)
    assert left.max_request_rate.tolist() == plain.max_request_rate.tolist()
    assert "corrected" not in left.source
    (caution,) = (one for one in left.cautions if one.kind == "anchor")
    assert "speculative decoding is a likely cause" in caution.message
    assert "it is left out; profile: {doubtful_anchors: true} uses it" in caution.message
    assert used.max_request_rate[0, 0, 0] > 1.2 * plain.max_request_rate[0, 0, 0]
    assert "1 measured point" in rate(fast, sound).source


CASE = Path(__file__).parents[3] / "shared" / "cases" / "load_tests" / "prefix_cached.json"


@pytest.mark.skipif(not CASE.exists(), reason="needs the folder ../shared/cases")
@pytest.mark.parametrize("card", ["H100-80GB", "A100-80GB", "A10G"])
def test_a_result_of_a_prefix_cache(card: str) -> None:
    """8,000 tokens, the first after 60 ms."""
    (point,) = read_measurements(CASE)
    assert "prefix caching is a likely cause (the first token arrives after 60 ms" in told(card, point)
