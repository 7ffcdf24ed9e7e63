"""Results of load tests as other tools write them, converted to seconds and requests per second.

============================= ================================================== ====================================
tool (versions read)          told by                                            units and meaning
============================= ================================================== ====================================
vllm bench serve (0.6-0.32)   ``total_input_tokens``, ``duration``               ``*_ms``; TPOT is per request,
SGLang bench_serving (0.4-5)  the same; ``*_e2e_latency_ms``                     without the first token
aiperf (0.2-0.13)             ``input_sequence_length``                          every metric says its unit; its
                                                                                 inter-token latency is our TPOT
guidellm (0.3-0.8)            ``benchmarks[].metrics``                           ``*_ms``, request latency in seconds;
                                                                                 its TPOT counts the first token: our
                                                                                 NTPOT; its inter-token latency is our
                                                                                 TPOT
AIBrix gpu_benchmark (0.2-5)  ``metric``, one a line                             seconds; its TPOT is the mean of all
                                                                                 gaps: our ITL
============================= ================================================== ====================================

None says which accelerator was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from melange.errors import InputError
from melange.files import Json
from melange.profile.measurement import Measurement
from melange.records import number, shown, whole
from melange.units import MS_PER_S, S_PER_MS, S_PER_NS, S_PER_US

_SECONDS_BY_UNIT = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": S_PER_MS, "us": S_PER_US, "ns": S_PER_NS}
_RATE_UNITS = ("requests/sec", "req/s", "requests/s")
# Of each metric's statistics, those that are kept, by their name in the file.
_STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def points_of(objects: Sequence[Json], path: str) -> list[Measurement] | None:
    """The load points of a file of a known tool; None where it is none of them."""
    first = objects[0]
    if "metric" in first and "request_rate" in first:
        return _aibrix(objects, path)
    readers: dict[Callable[[Json], bool], Callable[[Json, str], list[Measurement]]] = {
        lambda one: isinstance(one.get("benchmarks"), list): _guidellm,
        lambda one: "input_sequence_length" in one: _aiperf,
        lambda one: "total_input_tokens" in one and "duration" in one: _bench_serve,
    }
    for is_its, read in readers.items():
        if is_its(first):
            places = [path] if len(objects) == 1 else [f"{path}[{index}]" for index in range(len(objects))]
            return [point for one, place in zip(objects, places, strict=True) for point in read(one, place)]
    return None


def _bench_serve(content: Json, place: str) -> list[Measurement]:
    """``vllm bench serve`` and SGLang's ``bench_serving``: totals over completed requests, latencies in ms."""
    completed = _positive(content, "completed", place)
    rate = content.get("request_rate")
    latency = "e2el" if "mean_e2el_ms" in content else "e2e_latency"
    return [
        Measurement(
            input_tokens=_positive(content, "total_input_tokens", place) / completed,
            output_tokens=_positive(content, "total_output_tokens", place) / completed,
            model=_text(content.get("model_id")),
            offered_rate=math.inf if rate in (None, "inf", math.inf) else number(rate, f"{place}: request_rate"),
            achieved_rate=_positive(content, "request_throughput", place),
            concurrency=_optional(content, "max_concurrency", place),
            ttft_s=_milliseconds(content, "ttft", place),
            tpot_s=_milliseconds(content, "tpot", place),
            itl_s=_milliseconds(content, "itl", place),
            latency_s=_milliseconds(content, latency, place),
            duration_s=_positive(content, "duration", place),
            samples=whole(completed, f"{place}: completed"),
            failed=_count(content, "failed", place),
            source=place,
        )
    ]


def _milliseconds(content: Json, metric: str, place: str) -> dict[str, float]:
    """Statistics of one metric, ``mean_tpot_ms`` and the like [s]."""
    keys = {name: f"{name}_{metric}_ms" for name in _STATISTICS} | {"p50": f"median_{metric}_ms"}
    return {
        name: number(content[key], f"{place}: {key}") / MS_PER_S
        for name, key in keys.items()
        if content.get(key) is not None
    }


def _aiperf(content: Json, place: str) -> list[Measurement]:
    """``profile_export_aiperf.json``: a mapping of statistics and a unit for every metric."""
    config = _object(content.get("input_config"))
    rate, concurrency = _aiperf_load(config, place)
    throughput = _metric(content, "request_throughput", place, dict.fromkeys(_RATE_UNITS, 1.0))
    count = _metric(content, "request_count", place, {"requests": 1.0}, needed=False)
    failed = _metric(content, "error_request_count", place, {"requests": 1.0}, needed=False)
    tokens = {"tokens": 1.0}
    return [
        Measurement(
            input_tokens=_metric(content, "input_sequence_length", place, tokens)["mean"],
            output_tokens=_metric(content, "output_sequence_length", place, tokens)["mean"],
            model=_aiperf_model(config),
            offered_rate=rate if rate is not None else math.inf,
            achieved_rate=throughput["mean"],
            concurrency=concurrency,
            ttft_s=_metric(content, "time_to_first_token", place, _SECONDS_BY_UNIT, needed=False),
            tpot_s=_metric(content, "inter_token_latency", place, _SECONDS_BY_UNIT, needed=False),
            latency_s=_metric(content, "request_latency", place, _SECONDS_BY_UNIT, needed=False),
            duration_s=_metric(content, "benchmark_duration", place, _SECONDS_BY_UNIT, needed=False).get("mean"),
            samples=whole(count["mean"], f"{place}: request_count.avg") if count else None,
            failed=whole(failed["mean"], f"{place}: error_request_count.avg") if failed else None,
            source=place,
        )
    ]


def _aiperf_load(config: Json, place: str) -> tuple[float | None, float | None]:
    """Rate [1/s] and concurrency that it sent with; 0.13 tells them by phase, of which the warm-up is none of ours."""
    phases = config.get("phases")
    if isinstance(phases, list):
        counted = [one for one in map(_object, phases) if not one.get("exclude_from_results")]
        if len(counted) != 1:
            raise InputError(f"{place}: input_config.phases must hold one phase with results, got {len(counted)}")
        load, where, key = counted[0], f"{place}: input_config.phases", "rate"
    else:
        load, where, key = _object(config.get("loadgen")), f"{place}: input_config.loadgen", "request_rate"
    rate, concurrency = _optional(load, key, where), _optional(load, "concurrency", where)
    if rate is None and concurrency is None:
        raise InputError(
            f"{where} says neither at what rate nor with what concurrency requests were sent",
            hint="run aiperf with --request-rate or --concurrency",
        )
    return rate, concurrency


def _aiperf_model(config: Json) -> str:
    """The model's name, where the version says it."""
    names = _object(config.get("endpoint")).get("model_names")
    items = _object(config.get("models")).get("items")
    first: Any = next((found[0] for found in (names, items) if isinstance(found, list) and found), "")
    return _text(first.get("name") if isinstance(first, dict) else first)


def _metric(content: Json, name: str, place: str, factor_by_unit: dict[str, float], *, needed: bool = True) -> Any:
    """Statistics of one of aiperf's metrics, in our unit."""
    value = content.get(name)
    if value is None and not needed:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{place}: {name} must be a metric with unit and avg, got {value!r}")
    unit = value.get("unit")
    if not isinstance(unit, str) or unit not in factor_by_unit:
        raise InputError(f"{place}: {name}.unit must be one of {', '.join(factor_by_unit)}, got {shown(unit)}")
    keys = {name: name for name in _STATISTICS} | {"mean": "avg"}
    if value.get("avg") is None:
        raise InputError(f"{place}: {name}.avg is absent")
    return {
        ours: number(value[key], f"{place}: {name}.{key}") * factor_by_unit[unit]
        for ours, key in keys.items()
        if value.get(key) is not None
    }


def _guidellm(content: Json, place: str) -> list[Measurement]:
    """A report of guidellm: a load point a benchmark, statistics of successful requests."""
    points = []
    for index, benchmark in enumerate(content["benchmarks"]):
        where = f"{place}: benchmarks[{index}]"
        metrics = benchmark.get("metrics") if isinstance(benchmark, dict) else None
        if not isinstance(metrics, dict):
            raise InputError(f"{where}.metrics must be an object")
        totals = _object(metrics.get("request_totals"))
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
                duration_s=_optional(benchmark, "duration", where),
                samples=_count(totals, "successful", f"{where}.metrics.request_totals"),
                failed=_count(totals, "errored", f"{where}.metrics.request_totals"),
                source=where,
            )
        )
    if not points:
        raise InputError(f"{place}: benchmarks must hold at least one")
    return points


def _guidellm_model(content: Json, benchmark: Json) -> str:
    """The model's name, where the report's version says it."""
    for owner, keys in ((content, ("args", "model")), (benchmark, ("config", "backend", "model"))):
        value: Any = owner
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            return value
    return ""


def _distribution(metrics: Json, name: str, place: str, factor: float) -> dict[str, float]:
    """Statistics of successful requests in our unit; empty where the metric is absent."""
    metric = metrics.get(name)
    successful = metric.get("successful") if isinstance(metric, dict) else None
    if not isinstance(successful, dict):
        return {}
    percentiles = successful.get("percentiles")
    given = {"mean": successful.get("mean")} | (percentiles if isinstance(percentiles, dict) else {})
    return {
        statistic: number(given[statistic], f"{place}.metrics.{name}.successful.{statistic}") * factor
        for statistic in _STATISTICS
        if given.get(statistic) is not None
    }


def _mean(metrics: Json, name: str, place: str) -> float:
    found = _distribution(metrics, name, place, 1.0)
    if "mean" not in found:
        raise InputError(f"{place}.metrics.{name}.successful.mean is absent")
    return found["mean"]


def _aibrix(objects: Sequence[Json], path: str) -> list[Measurement]:
    """AIBrix's benchmark: lines that agree in everything but the metric are one load point."""
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
        # Percentiles of a rate are those of no metric at all.
        kept = {"mean": "mean"} if metric in ("TPUT", "TT") else keys
        by_metric[metric] = {
            ours: number(one[key], f"{path}:{line}: {key}") for ours, key in kept.items() if one.get(key) is not None
        }
    if not by_metric.get("TPUT"):
        raise InputError(f"{place}: the line with the metric TPUT is absent")
    rate = first.get("request_rate")
    return Measurement(
        input_tokens=_positive(first, "input_tokens", place),
        output_tokens=_positive(first, "output_tokens", place),
        model=_text(first.get("model")),
        offered_rate=math.inf if rate in (None, math.inf, 0) else number(rate, f"{place}: request_rate"),
        achieved_rate=by_metric["TPUT"]["mean"],
        ttft_s=by_metric.get("TTFT", {}),
        itl_s={} if by_metric.get("TPOT", {}).get("mean") == 0 else by_metric.get("TPOT", {}),
        latency_s=by_metric.get("E2E", {}),
        samples=_count(first, "samples", place),
        source=place,
    )


def _positive(content: Json, key: str, place: str) -> float:
    if key not in content:
        raise InputError(f"{place}: the key {key} is absent")
    value = number(content[key], f"{place}: {key}")
    if not value > 0:
        raise InputError(f"{place}: {key} must be > 0, got {value:g}")
    return value


def _optional(content: Json, key: str, place: str) -> float | None:
    return None if content.get(key) is None else number(content[key], f"{place}: {key}")


def _count(content: Json, key: str, place: str) -> int | None:
    return None if content.get(key) is None else whole(content[key], f"{place}: {key}")


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
