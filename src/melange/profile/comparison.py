"""Compare measured points with the model's step times."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from melange.catalog.model import Model
from melange.errors import Caution
from melange.profile.correction import Sample
from melange.profile.likely_causes import likely_causes
from melange.profile.measurement import Measurement
from melange.replica.capacity import Replicas, Sizes, largest_batch, mean_step_s, prompt_times_s
from melange.units import ms, significant
from melange.workload.workload import Array

# A point that differs from the model by more than this factor was probably measured under other conditions.
_WILD = 3.0


def without_doubtful(
    replicas: Replicas, model: Model, points: Sequence[Measurement]
) -> tuple[list[Measurement], list[Caution]]:
    """Points without those that are probably fast because of prefix caching or speculation, and cautions about these.

    Such points depend on how much of it the load test had, and the real traffic may have none.
    """
    kept, cautions = [], []
    for point in points:
        compared = compare(replicas, model, point)
        cause = _cause(replicas, point, *compared[:2]) if compared else ""
        if not cause:
            kept.append(point)
            continue
        left_out = "it is left out; profile: {doubtful_anchors: true} uses it"
        cautions.append(Caution("anchor", f"{_told(point, compared)}; {cause}; {left_out}"))
    return kept, cautions


def samples_of(replicas: Replicas, model: Model, points: Sequence[Measurement]) -> tuple[list[Sample], list[Caution]]:
    """Points compared with the model, repeated points averaged, and cautions about points that disagree strongly."""
    cautions = []
    ratios: dict[tuple[float, float, float], list[float]] = defaultdict(list)
    for point in points:
        compared = compare(replicas, model, point)
        if compared is None:
            if point.max_request_rate is None:
                cautions.append(
                    Caution("anchor", f"{point.source}: the model says that such a request does not fit; skipped")
                )
            continue
        batch, measured_s, predicted_s = compared
        ratio = measured_s / predicted_s
        cause = _cause(replicas, point, batch, measured_s)
        if cause or not 1 / _WILD <= ratio <= _WILD:
            hint = cause or "check that model, accelerator, degree and engine match the service"
            cautions.append(Caution("anchor", f"{_told(point, compared)}; {hint}"))
        ratios[point.input_tokens, point.output_tokens, round(batch, 1)].append(math.log(ratio))
    samples = [
        Sample(inputs=inputs, outputs=outputs, batch=batch, log_ratio=float(np.mean(logs)))
        for (inputs, outputs, batch), logs in ratios.items()
    ]
    return samples, cautions


def _told(point: Measurement, compared: tuple[float, float, float] | None) -> str:
    """A point with its measured and its predicted time."""
    _, measured_s, predicted_s = compared or (0.0, 0.0, 0.0)
    return f"{point.source}: {significant(ms(measured_s))} ms measured, {significant(ms(predicted_s))} ms predicted"


def _cause(replicas: Replicas, point: Measurement, batch: float, measured_s: float) -> str:
    """The likely reason why a point is fast; empty if there is no sign of one."""
    sizes = Sizes(inputs=_cell(point.input_tokens), outputs=_cell(point.output_tokens))
    kind, _ = _measured_s(point) or ("", 0.0)
    return likely_causes(replicas, sizes, point, batch, measured_s if kind == "step" else None)


def compare(replicas: Replicas, model: Model, point: Measurement) -> tuple[float, float, float] | None:
    """Running requests, and a time as measured and as predicted [s]; None if the point cannot be compared.

    The time is TPOT or ITL, which is one step; otherwise the latency after the first token, with a step for each
    further token; otherwise latency (or ``NTPOT o``, or ``concurrency / rate`` by Little's law), with the prompt and
    all steps.
    """
    sizes = Sizes(inputs=_cell(point.input_tokens), outputs=_cell(point.output_tokens))
    largest = float(largest_batch(replicas, model, sizes)[0, 0, 0])
    measured = _measured_s(point)
    if largest <= 0 or measured is None:
        return None
    kind, time_s = measured
    batch = _running(replicas, sizes, point, largest, time_s if kind == "step" else None)
    step_s = float(mean_step_s(replicas, sizes, _cell(batch))[0, 0, 0])
    if kind == "step":
        return batch, time_s, step_s
    own_s = float(prompt_times_s(replicas, sizes, _cell(batch))[0][0, 0, 0])
    return batch, time_s, own_s + point.output_tokens * step_s


def _measured_s(point: Measurement) -> tuple[str, float] | None:
    """``step`` or ``latency``, and its measured duration [s]."""
    for values in (point.tpot_s, point.itl_s):
        if values.get("mean"):
            return "step", values["mean"]
    latency_s = point.latency_s.get("mean") or point.ntpot_s.get("mean", 0.0) * point.output_tokens
    if latency_s and point.ttft_s.get("mean") and point.output_tokens > 1:
        return "step", (latency_s - point.ttft_s["mean"]) / (point.output_tokens - 1)
    if not latency_s and point.concurrency and point.achieved_rate and not _is_paced(point):
        latency_s = point.concurrency / point.achieved_rate
    return ("latency", latency_s) if latency_s else None


def _is_paced(point: Measurement) -> bool:
    """Whether requests were sent at a fixed rate, so that a concurrency is only an upper limit."""
    return point.offered_rate is not None and math.isfinite(point.offered_rate)


def _running(replicas: Replicas, sizes: Sizes, point: Measurement, largest: float, step_s: float | None) -> float:
    """Mean number of requests that were generating tokens.

    In a closed loop of C requests some are in prefill, ``C = B (1 + prompt / (o step))``; at a fixed rate it is
    ``rate o step`` (Little's law) with the measured step; if all were sent at once, as many as fit in memory.
    """
    if _is_paced(point) and (rate := point.achieved_rate or point.offered_rate):
        if step_s is not None:
            return min(max(rate * point.output_tokens * step_s, 1e-3), largest)
        latency_s = point.latency_s.get("mean") or point.ntpot_s.get("mean", 0.0) * point.output_tokens
        return min(max(rate * latency_s, 1e-3), largest)
    concurrency = point.concurrency or point.samples or largest
    batch = min(concurrency, largest)
    for _ in range(3):
        step = float(mean_step_s(replicas, sizes, _cell(batch))[0, 0, 0])
        own_s = float(prompt_times_s(replicas, sizes, _cell(batch))[0][0, 0, 0])
        batch = min(concurrency / (1 + own_s / (point.output_tokens * step)), largest)
    return batch


def _cell(value: float) -> Array:
    return np.full((1, 1, 1), float(value))
