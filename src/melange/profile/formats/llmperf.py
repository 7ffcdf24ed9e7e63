"""Results of LLMPerf (Ray): the summary of ``token_benchmark_ray.py``, in seconds."""

from __future__ import annotations

import math

from melange.errors import InputError
from melange.files import Json
from melange.profile.formats.tables import STATISTICS, count, number, optional, positive, text
from melange.profile.measurement import Measurement
from melange.units import S_PER_MIN


def read_llmperf(content: Json, place: str) -> list[Measurement]:
    """``..._summary.json``: a closed loop.

    Completions are counted with the tokenizer of Llama, whatever the model is.
    """
    per_minute = optional(content, "results_num_completed_requests_per_min", place)
    completed = count(content, "results_num_completed_requests", place)
    return [
        Measurement(
            input_tokens=_tokens(content, "input", place),
            output_tokens=_tokens(content, "output", place),
            model=text(content.get("model")),
            offered_rate=math.inf,
            achieved_rate=per_minute / S_PER_MIN if per_minute else None,
            concurrency=positive(content, "num_concurrent_requests", place),
            samples=completed,
            failed=count(content, "results_number_errors", place),
            duration_s=completed * S_PER_MIN / per_minute if completed and per_minute else None,
            ttft_s=_statistics(content, "ttft_s", place),
            # Despite its name, this is the total time of a request over all of its tokens.
            ntpot_s=_statistics(content, "inter_token_latency_s", place),
            latency_s=_statistics(content, "end_to_end_latency_s", place),
            source=place,
        )
    ]


def _tokens(content: Json, side: str, place: str) -> float:
    """Mean measured length [tokens]; the requested length if none was measured."""
    for key in (f"results_number_{side}_tokens_mean", f"mean_{side}_tokens"):
        if content.get(key) is not None:
            return number(content[key], f"{place}: {key}")
    raise InputError(f"{place}: the key results_number_{side}_tokens_mean is missing")


def _statistics(content: Json, name: str, place: str) -> dict[str, float]:
    """Statistics of one latency [s]."""
    keys = {one: f"results_{name}_{'mean' if one == 'mean' else f'quantiles_{one}'}" for one in STATISTICS}
    return {ours: number(content[key], f"{place}: {key}") for ours, key in keys.items() if content.get(key) is not None}
