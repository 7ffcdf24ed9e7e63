"""Results of inference-perf (Kubernetes): a report for one stage, in seconds."""

from __future__ import annotations

import math

from melange.errors import InputError
from melange.files import Json
from melange.profile.formats.tables import STATISTICS, count, mapping, number, optional
from melange.profile.measurement import Measurement

_KEYS = {name: (name,) for name in STATISTICS} | {"p50": ("p50", "median")}


def read_inference_perf(content: Json, place: str) -> list[Measurement]:
    """``stage_N_lifecycle_metrics.json``, or the summary of a run with one stage.

    Time per output token excludes the first token and its normalized form includes it, as in our definitions.
    """
    load, successes = mapping(content["load_summary"]), mapping(content["successes"])
    latency, throughput = mapping(successes.get("latency")), mapping(successes.get("throughput"))
    rate = optional(load, "requested_rate", f"{place}: load_summary")
    concurrency = optional(load, "concurrency", f"{place}: load_summary")
    if rate is None and concurrency is None:
        raise InputError(
            f"{place}: load_summary has no requested_rate or concurrency: it summarizes stages of different loads",
            hint="give the files of the stages, stage_0_lifecycle_metrics.json and so on",
        )
    achieved = optional(load, "achieved_rate", f"{place}: load_summary")
    return [
        Measurement(
            input_tokens=_mean(successes, "prompt_len", place),
            output_tokens=_mean(successes, "output_len", place),
            offered_rate=math.inf if rate is None else rate,
            achieved_rate=optional(throughput, "requests_per_sec", f"{place}: successes.throughput") or achieved,
            concurrency=concurrency,
            duration_s=optional(load, "send_duration", f"{place}: load_summary"),
            samples=count(successes, "count", f"{place}: successes"),
            failed=count(mapping(content.get("failures")), "count", f"{place}: failures"),
            ttft_s=_statistics(latency, "time_to_first_token", place),
            tpot_s=_statistics(latency, "time_per_output_token", place),
            ntpot_s=_statistics(latency, "normalized_time_per_output_token", place),
            itl_s=_statistics(latency, "inter_token_latency", place),
            latency_s=_statistics(latency, "request_latency", place),
            source=place,
        )
    ]


def _statistics(latency: Json, name: str, place: str) -> dict[str, float]:
    """Statistics of one latency [s]; empty if it is absent, as without streaming."""
    values = mapping(latency.get(name))
    found = {}
    for ours, keys in _KEYS.items():
        key = next((one for one in keys if values.get(one) is not None), None)
        if key is not None:
            found[ours] = number(values[key], f"{place}: successes.latency.{name}.{key}")
    return found


def _mean(successes: Json, name: str, place: str) -> float:
    """Mean of a length [tokens]."""
    value = mapping(successes.get(name)).get("mean")
    if value is None:
        raise InputError(f"{place}: successes.{name}.mean is missing")
    return number(value, f"{place}: successes.{name}.mean")
