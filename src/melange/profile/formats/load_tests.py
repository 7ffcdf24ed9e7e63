"""Load-test results of other tools, converted to seconds and requests per second.

============================= ================================================== ====================================
tool (versions read)          recognized by                                      units and meaning
============================= ================================================== ====================================
vllm bench serve (0.6-0.32)   ``total_input_tokens``, ``duration``               ``*_ms``; TPOT is per request,
SGLang bench_serving (0.4-5)  the same; ``*_e2e_latency_ms``                     without the first token
aiperf (0.2-0.13)             ``input_sequence_length``                          every metric says its unit; its
genai-perf (0.0.8-0.0.16)     the same, the load under ``perf_analyzer``         inter-token latency is our TPOT
inference-perf (0.1-0.4)      ``load_summary``, ``successes``                    seconds; TPOT without the first token
LLMPerf (2.0)                 ``results_ttft_s_...``                             seconds; its inter-token latency counts
                                                                                 the first token: our NTPOT
guidellm (0.3-0.8)            ``benchmarks[].metrics``                           ``*_ms``, request latency in seconds;
                                                                                 its TPOT counts the first token: our
                                                                                 NTPOT; its inter-token latency is our
                                                                                 TPOT
AIBrix gpu_benchmark (0.2-5)  ``metric``, one a line                             seconds; its TPOT is the mean of all
                                                                                 gaps: our ITL
============================= ================================================== ====================================

None of them names the accelerator that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from melange.errors import InputError
from melange.files import Json
from melange.profile.formats.aiperf import read_aiperf
from melange.profile.formats.inference_perf import read_inference_perf
from melange.profile.formats.llmperf import read_llmperf
from melange.profile.formats.tables import STATISTICS, count, mapping, number, optional, positive, text
from melange.profile.measurement import Measurement
from melange.records import whole
from melange.units import MS_PER_S, S_PER_MS


def points_of(objects: Sequence[Json], path: str) -> list[Measurement] | None:
    """The load points in a file of a known tool; None for other files."""
    first = objects[0]
    if "metric" in first and "request_rate" in first:
        return _aibrix(objects, path)
    readers: dict[Callable[[Json], bool], Callable[[Json, str], list[Measurement]]] = {
        lambda one: isinstance(one.get("benchmarks"), list): _guidellm,
        lambda one: "input_sequence_length" in one: read_aiperf,
        lambda one: "load_summary" in one and "successes" in one: read_inference_perf,
        lambda one: "results_ttft_s_mean" in one or "results_inter_token_latency_s_mean" in one: read_llmperf,
        lambda one: "total_input_tokens" in one and "duration" in one: _bench_serve,
    }
    for is_its, read in readers.items():
        if is_its(first):
            places = [path] if len(objects) == 1 else [f"{path}[{index}]" for index in range(len(objects))]
            return [point for one, place in zip(objects, places, strict=True) for point in read(one, place)]
    return None


def _bench_serve(content: Json, place: str) -> list[Measurement]:
    """``vllm bench serve`` and SGLang's ``bench_serving``: totals over completed requests, latencies in ms."""
    completed = positive(content, "completed", place)
    rate = content.get("request_rate")
    latency = "e2el" if "mean_e2el_ms" in content else "e2e_latency"
    return [
        Measurement(
            input_tokens=positive(content, "total_input_tokens", place) / completed,
            output_tokens=positive(content, "total_output_tokens", place) / completed,
            model=text(content.get("model_id")),
            offered_rate=math.inf if rate in (None, "inf", math.inf) else number(rate, f"{place}: request_rate"),
            achieved_rate=positive(content, "request_throughput", place),
            concurrency=optional(content, "max_concurrency", place),
            ttft_s=_milliseconds(content, "ttft", place),
            tpot_s=_milliseconds(content, "tpot", place),
            itl_s=_milliseconds(content, "itl", place),
            latency_s=_milliseconds(content, latency, place),
            # vLLM and SGLang write it if the server speculates; SGLang also writes a null, or 0.
            tokens_per_step=optional(content, "spec_decode_acceptance_length", place)
            or optional(content, "accept_length", place)
            or None,
            duration_s=positive(content, "duration", place),
            samples=whole(completed, f"{place}: completed"),
            failed=count(content, "failed", place),
            source=place,
        )
    ]


def _milliseconds(content: Json, metric: str, place: str) -> dict[str, float]:
    """Statistics of one metric, from keys such as ``mean_tpot_ms`` [s]."""
    keys = {name: f"{name}_{metric}_ms" for name in STATISTICS} | {"p50": f"median_{metric}_ms"}
    return {
        name: number(content[key], f"{place}: {key}") / MS_PER_S
        for name, key in keys.items()
        if content.get(key) is not None
    }


def _guidellm(content: Json, place: str) -> list[Measurement]:
    """A report of guidellm: one load point per benchmark, with statistics of successful requests."""
    points = []
    for index, benchmark in enumerate(content["benchmarks"]):
        where = f"{place}: benchmarks[{index}]"
        metrics = benchmark.get("metrics") if isinstance(benchmark, dict) else None
        if not isinstance(metrics, dict):
            raise InputError(f"{where}.metrics must be an object")
        totals = mapping(metrics.get("request_totals"))
        points.append(
            Measurement(
                input_tokens=_mean(metrics, "prompt_token_count", where),
                output_tokens=_mean(metrics, "output_token_count", where),
                model=_guidellm_model(content, benchmark),
                achieved_rate=_mean(metrics, "requests_per_second", where),
                concurrency=_mean(metrics, "request_concurrency", where),
                ttft_s=_distribution(metrics, "time_to_first_token_ms", where, S_PER_MS),
                tpot_s=_distribution(metrics, "inter_token_latency_ms", where, S_PER_MS),
                ntpot_s=_distribution(metrics, "time_per_output_token_ms", where, S_PER_MS),
                latency_s=_distribution(metrics, "request_latency", where, 1.0),
                duration_s=optional(benchmark, "duration", where),
                samples=count(totals, "successful", f"{where}.metrics.request_totals"),
                failed=count(totals, "errored", f"{where}.metrics.request_totals"),
                source=where,
            )
        )
    if not points:
        raise InputError(f"{place}: benchmarks must hold at least one")
    return points


def _guidellm_model(content: Json, benchmark: Json) -> str:
    """The model's name, if this version of the report states it."""
    for owner, keys in ((content, ("args", "model")), (benchmark, ("config", "backend", "model"))):
        value: Any = owner
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            return value
    return ""


def _distribution(metrics: Json, name: str, place: str, factor: float) -> dict[str, float]:
    """Statistics of successful requests in our unit; empty if the metric is absent."""
    metric = metrics.get(name)
    successful = metric.get("successful") if isinstance(metric, dict) else None
    if not isinstance(successful, dict):
        return {}
    percentiles = successful.get("percentiles")
    given = {"mean": successful.get("mean")} | (percentiles if isinstance(percentiles, dict) else {})
    return {
        statistic: number(given[statistic], f"{place}.metrics.{name}.successful.{statistic}") * factor
        for statistic in STATISTICS
        if given.get(statistic) is not None
    }


def _mean(metrics: Json, name: str, place: str) -> float:
    found = _distribution(metrics, name, place, 1.0)
    if "mean" not in found:
        raise InputError(f"{place}.metrics.{name}.successful.mean is missing")
    return found["mean"]


def _aibrix(objects: Sequence[Json], path: str) -> list[Measurement]:
    """AIBrix's benchmark: lines that differ only in their metric are one load point."""
    lines_by_point: dict[tuple[Any, ...], list[tuple[int, Json]]] = {}
    for line, one in enumerate(objects, 1):
        keys = ("input_tokens", "output_tokens", "request_rate", "seed", "model", "samples", "temperature")
        lines_by_point.setdefault(tuple(str(one.get(key)) for key in keys), []).append((line, one))
    return [_aibrix_point(lines, path) for lines in lines_by_point.values()]


def _aibrix_point(lines: Sequence[tuple[int, Json]], path: str) -> Measurement:
    line, first = lines[0]
    place = f"{path}:{line}"
    by_metric: dict[str, dict[str, float]] = {}
    for line, one in lines:
        keys = {"mean": "mean", "p50": "P50", "p90": "P90", "p99": "P99"}
        metric = str(one.get("metric"))
        # Percentiles of a rate do not correspond to any of our metrics.
        kept = {"mean": "mean"} if metric in ("TPUT", "TT") else keys
        by_metric[metric] = {
            ours: number(one[key], f"{path}:{line}: {key}") for ours, key in kept.items() if one.get(key) is not None
        }
    if "mean" not in by_metric.get("TPUT", {}):
        raise InputError(f"{place}: the line with the metric TPUT is missing, or has no mean")
    rate = first.get("request_rate")
    return Measurement(
        input_tokens=positive(first, "input_tokens", place),
        output_tokens=positive(first, "output_tokens", place),
        model=text(first.get("model")),
        offered_rate=math.inf if rate in (None, math.inf, 0) else number(rate, f"{place}: request_rate"),
        achieved_rate=by_metric["TPUT"]["mean"],
        ttft_s=by_metric.get("TTFT", {}),
        itl_s={} if by_metric.get("TPOT", {}).get("mean") == 0 else by_metric.get("TPOT", {}),
        latency_s=by_metric.get("E2E", {}),
        samples=count(first, "samples", place),
        source=place,
    )
