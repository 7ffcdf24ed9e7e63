"""Results of inference-perf, genai-perf and LLMPerf, in the shapes that they write; figures that a test lacks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from melange.errors import InputError
from melange.profile.formats.measurement_files import read_measurements
from melange.profile.measurement import Measurement

GENAI_PERF: dict[str, Any] = {
    "request_throughput": {"unit": "requests/sec", "avg": 2.0},
    "request_latency": {"unit": "ms", "avg": 4000.0, "p50": 3900.0, "p99": 5000.0, "std": 12.0},
    "time_to_first_token": {"unit": "ms", "avg": 200.0, "p99": 400.0},
    "inter_token_latency": {"unit": "ms", "avg": 40.0},
    "output_sequence_length": {"unit": "tokens", "avg": 96.0},
    "input_sequence_length": {"unit": "tokens", "avg": 500.0},
    "request_count": {"unit": "count", "avg": 100.0},
    "input_config": {
        "model_names": ["llama"],
        "endpoint": {"backend": "vllm", "service_kind": "openai"},
        "perf_analyzer": {"path": "perf_analyzer", "stimulus": {"concurrency": 8}},
    },
}
INFERENCE_PERF: dict[str, Any] = {
    "load_summary": {"count": 91, "requested_rate": 2.0, "achieved_rate": 1.98, "send_duration": 45.5},
    "successes": {
        "count": 90,
        "latency": {
            "request_latency": {"mean": 4.0, "median": 3.9, "p90": 6.0, "p99": 5.0},
            "normalized_time_per_output_token": {"mean": 0.0417, "median": 0.041},
            "time_per_output_token": {"mean": 0.04, "p90": 0.05},
            "time_to_first_token": {"mean": 0.2, "p90": 0.4},
            "inter_token_latency": {"mean": 0.041, "p0p1": 0.001},
        },
        "throughput": {"requests_per_sec": 1.95, "input_tokens_per_sec": 990.0, "output_tokens_per_sec": 190.0},
        "prompt_len": {"mean": 500.0, "p99": 600.0},
        "output_len": {"mean": 96.0},
    },
    "failures": {"count": 1, "request_latency": None},
}
LLMPERF: dict[str, Any] = {
    "version": "2023-08-31",
    "name": "llama_500_100_summary",
    "model": "llama",
    "mean_input_tokens": 550,
    "mean_output_tokens": 100,
    "num_concurrent_requests": 8,
    "results_inter_token_latency_s_quantiles_p50": 0.0405,
    "results_inter_token_latency_s_mean": 0.0417,
    "results_inter_token_latency_s_stddev": 0.001,
    "results_ttft_s_quantiles_p99": 0.4,
    "results_ttft_s_mean": 0.2,
    "results_end_to_end_latency_s_mean": 4.0,
    "results_number_input_tokens_mean": 500.0,
    "results_number_input_tokens_min": "480",
    "results_number_output_tokens_mean": 96.0,
    "results_num_requests_started": 101,
    "results_number_errors": 1,
    "results_num_completed_requests": 100,
    "results_num_completed_requests_per_min": 120.0,
    "timestamp": 1_746_619_200,
}


def read(folder: Path, content: object) -> Measurement:
    """The one point of a file."""
    path = folder / "result.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    (point,) = read_measurements(path)
    return point


@pytest.mark.parametrize("content", [GENAI_PERF, INFERENCE_PERF, LLMPERF])
def test_every_tool_says_the_same_of_one_test(content: dict[str, Any], tmp_path: Path) -> None:
    """Sizes, latency and the time to the first token, in seconds."""
    point = read(tmp_path, content)
    assert (point.input_tokens, point.output_tokens) == (500, 96)
    assert point.ttft_s["mean"] == pytest.approx(0.2)
    assert point.latency_s["mean"] == pytest.approx(4.0)
    assert point.achieved_rate == pytest.approx(2.0, rel=0.03)
    step_s = point.tpot_s.get("mean") or (point.latency_s["mean"] - point.ttft_s["mean"]) / 95
    assert step_s == pytest.approx(0.04)


def test_genai_perf_says_its_load_in_two_ways(tmp_path: Path) -> None:
    """Under its stimulus, and before that beside everything else, also as a list of one; a rate too."""
    point = read(tmp_path, GENAI_PERF)
    assert (point.model, point.concurrency, point.offered_rate, point.samples) == ("llama", 8, math.inf, 100)
    assert point.latency_s == {"mean": 4.0, "p50": 3.9, "p99": 5.0}
    flat = {"model": ["llama"], "service_kind": "openai", "concurrency": [16], "request_rate": None}
    point = read(tmp_path, GENAI_PERF | {"input_config": flat})
    assert (point.model, point.concurrency, point.offered_rate) == ("llama", 16, math.inf)
    paced = {"model_names": ["llama"], "perf_analyzer": {"stimulus": {"request_rate": 2.5}}}
    point = read(tmp_path, GENAI_PERF | {"input_config": paced})
    assert (point.concurrency, point.offered_rate) == (None, 2.5)


def test_inference_perf_says_all_five_latencies(tmp_path: Path) -> None:
    """In seconds as they stand, the median under either name."""
    point = read(tmp_path, INFERENCE_PERF)
    assert point.tpot_s == {"mean": 0.04, "p90": 0.05}
    assert point.ntpot_s == {"mean": 0.0417, "p50": 0.041}
    assert point.itl_s == {"mean": 0.041}
    assert point.latency_s == {"mean": 4.0, "p50": 3.9, "p90": 6.0, "p99": 5.0}
    assert (point.offered_rate, point.achieved_rate, point.samples, point.failed) == (2.0, 1.95, 90, 1)
    assert point.duration_s == 45.5


def test_llmperf_s_gap_counts_the_first_token(tmp_path: Path) -> None:
    """All of a request's time over its tokens: our NTPOT, and no step."""
    point = read(tmp_path, LLMPERF)
    assert point.ntpot_s == {"mean": 0.0417, "p50": 0.0405}
    assert point.itl_s == point.tpot_s == {}
    assert (point.concurrency, point.achieved_rate, point.failed, point.duration_s) == (8, 2.0, 1, 50.0)


def without(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The same without a key."""
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return dict(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without(INFERENCE_PERF, "load_summary", "requested_rate"), "it summarizes stages of different loads"),
        (without(INFERENCE_PERF, "successes", "prompt_len"), "successes.prompt_len.mean is missing"),
        (
            without(INFERENCE_PERF, "successes", "latency") | {"load_summary": {"requested_rate": "fast"}},
            "requested_rate",
        ),
        (
            without(GENAI_PERF, "input_config", "perf_analyzer", "stimulus"),
            "input_config.perf_analyzer.stimulus gives neither",
        ),
        (GENAI_PERF | {"input_config": {"concurrency": [8, 16]}}, "input_config.concurrency must be one load"),
        (without(LLMPERF, "num_concurrent_requests"), "the key num_concurrent_requests is missing"),
        (LLMPERF | {"results_ttft_s_mean": "soon"}, "results_ttft_s_mean must be a number, got 'soon'"),
        ({"some": "tool"}, "unknown format"),
    ],
)
def test_what_is_absent_is_named(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    """File, key, and for a sum of stages what to give instead."""
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert message in str(caught.value)
    assert "result.json" in str(caught.value)


BENCH_SERVE = {
    "request_rate": "inf",
    "max_concurrency": 8,
    "duration": 20.0,
    "completed": 100,
    "total_input_tokens": 50_000,
    "total_output_tokens": 10_000,
    "request_throughput": 5.0,
    "mean_ttft_ms": 80.0,
    "mean_tpot_ms": 40.0,
    "std_itl_ms": 1.0,
}


@pytest.mark.parametrize("key", ["mean_ttft_ms", "mean_tpot_ms", "request_throughput", "duration"])
def test_a_figure_that_the_test_does_not_have_is_named(key: str, tmp_path: Path) -> None:
    """NaN, as Python writes it; the hint is about load tests."""
    with pytest.raises(InputError, match=rf"result\.json: {key} is NaN: the load test has no value for it") as caught:
        read(tmp_path, BENCH_SERVE | {key: math.nan})
    assert "remove the key, or repeat the test so that it has one" in caught.value.hint


def test_a_figure_that_nobody_asks_for_may_be_anything(tmp_path: Path) -> None:
    """A deviation that is NaN keeps no point from being read."""
    assert read(tmp_path, BENCH_SERVE | {"std_itl_ms": math.nan}).tpot_s == {"mean": 0.04}


CASES = Path(__file__).parents[3] / "shared" / "cases" / "load_tests"


@pytest.mark.skipif(not CASES.exists(), reason="needs the folder ../shared/cases")
@pytest.mark.parametrize("name", ["genai_perf.json", "inference_perf_summary.json"])
def test_results_that_were_refused_are_read(name: str) -> None:
    """Files of tools that were not known, or taken for another."""
    (point,) = read_measurements(CASES / name)
    assert (point.input_tokens, point.output_tokens, point.tpot_s["mean"]) == (500, 100, 0.04)
