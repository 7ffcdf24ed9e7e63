"""Results of NVIDIA's aiperf, and of its predecessor genai-perf: statistics and a unit for every metric."""

from __future__ import annotations

import math
from typing import Any

from melange.errors import InputError
from melange.files import Json
from melange.profile.formats.tables import STATISTICS, mapping, number, optional, text
from melange.profile.measurement import Measurement
from melange.units import S_PER_MS, S_PER_NS, S_PER_US

SECONDS_BY_UNIT = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": S_PER_MS, "us": S_PER_US, "ns": S_PER_NS}
_RATE_UNITS = ("requests/sec", "req/s", "requests/s")
_COUNT_UNITS = {"requests": 1.0, "count": 1.0}


def read_aiperf(content: Json, place: str) -> list[Measurement]:
    """``profile_export_aiperf.json`` and ``profile_export_genai_perf.json``."""
    config = mapping(content.get("input_config"))
    rate, concurrency = _load(config, place)
    throughput = _metric(content, "request_throughput", place, dict.fromkeys(_RATE_UNITS, 1.0))
    count = _metric(content, "request_count", place, _COUNT_UNITS, needed=False)
    failed = _metric(content, "error_request_count", place, _COUNT_UNITS, needed=False)
    tokens = {"tokens": 1.0}
    return [
        Measurement(
            input_tokens=_metric(content, "input_sequence_length", place, tokens)["mean"],
            output_tokens=_metric(content, "output_sequence_length", place, tokens)["mean"],
            model=_model(config),
            offered_rate=rate if rate is not None else math.inf,
            achieved_rate=throughput["mean"],
            concurrency=concurrency,
            ttft_s=_metric(content, "time_to_first_token", place, SECONDS_BY_UNIT, needed=False),
            tpot_s=_metric(content, "inter_token_latency", place, SECONDS_BY_UNIT, needed=False),
            latency_s=_metric(content, "request_latency", place, SECONDS_BY_UNIT, needed=False),
            duration_s=_metric(content, "benchmark_duration", place, SECONDS_BY_UNIT, needed=False).get("mean"),
            samples=int(count["mean"]) if count else None,
            failed=int(failed["mean"]) if failed else None,
            source=place,
        )
    ]


def _load(config: Json, place: str) -> tuple[float | None, float | None]:
    """Rate [1/s] and concurrency of the load.

    aiperf 0.13 states them by phase (the warm-up is ignored), and earlier versions under ``loadgen``; genai-perf states
    them under ``perf_analyzer.stimulus``, and before 0.0.12 at the top level.
    """
    phases, analyzer = config.get("phases"), config.get("perf_analyzer")
    if isinstance(phases, list):
        counted = [one for one in map(mapping, phases) if not one.get("exclude_from_results")]
        if len(counted) != 1:
            raise InputError(f"{place}: input_config.phases must hold one phase with results, got {len(counted)}")
        load, where, key, tool = counted[0], "input_config.phases", "rate", "aiperf"
    elif isinstance(analyzer, dict):
        stimulus = mapping(analyzer.get("stimulus"))
        load, where, key, tool = stimulus, "input_config.perf_analyzer.stimulus", "request_rate", "genai-perf"
    elif "loadgen" not in config and {"concurrency", "request_rate"} & set(config):
        load, where, key, tool = config, "input_config", "request_rate", "genai-perf"
    else:
        load, where, key, tool = mapping(config.get("loadgen")), "input_config.loadgen", "request_rate", "aiperf"
    # genai-perf may list one value for each load that it ran.
    single = {name: _only(load.get(name), f"{place}: {where}.{name}") for name in (key, "concurrency")}
    rate, concurrency = (optional(single, name, f"{place}: {where}") for name in (key, "concurrency"))
    if rate is None and concurrency is None:
        raise InputError(
            f"{place}: {where} gives neither the rate nor the concurrency of the requests",
            hint=f"run {tool} with --request-rate or --concurrency",
        )
    return rate, concurrency


def _only(value: Any, place: str) -> Any:
    """The single value of a list."""
    if not isinstance(value, list):
        return value
    if len(value) > 1:
        raise InputError(f"{place} must be one load, got {value}", hint="save the results of each load in its own file")
    return value[0] if value else None


def _model(config: Json) -> str:
    """The model's name, if this version states it."""
    names = mapping(config.get("endpoint")).get("model_names")
    items = mapping(config.get("models")).get("items")
    for found in (names, items, config.get("model_names"), config.get("model")):
        first: Any = found[0] if isinstance(found, list) and found else found
        if name := text(first.get("name") if isinstance(first, dict) else first):
            return name
    return ""


def _metric(content: Json, name: str, place: str, factor_by_unit: dict[str, float], *, needed: bool = True) -> Any:
    """Statistics of one metric, in our unit."""
    value = content.get(name)
    if value is None and not needed:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{place}: {name} must be a metric with unit and avg, got {value!r}")
    unit = value.get("unit")
    if not isinstance(unit, str) or unit not in factor_by_unit:
        raise InputError(f"{place}: {name}.unit must be one of {', '.join(factor_by_unit)}, got {unit!r}")
    keys = {name: name for name in STATISTICS} | {"mean": "avg"}
    if value.get("avg") is None:
        raise InputError(f"{place}: {name}.avg is missing")
    return {
        ours: number(value[key], f"{place}: {name}.{key}") * factor_by_unit[unit]
        for ours, key in keys.items()
        if value.get(key) is not None
    }
