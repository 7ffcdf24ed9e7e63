"""Why requests missed the SLO: the largest delay of each, beyond its time alone on an idle replica."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.replica.alone import idle_times_s
from melange.replica.engine import Engine
from melange.replica.simulated.outcome import REFUSED, SERVED, Outcome, metrics_s
from melange.slo import Slo
from melange.validate.attainment import AT_LIMIT, largest_ratio, met, metrics_of
from melange.workload.workload import Array

CAUSES = {
    "too large": "misses even alone on an idle replica, or does not fit",
    "queueing": "waited for a free sequence or KV cache",
    "prefill interference": "other requests' prompts delayed its tokens",
    "preemption": "its KV cache was evicted and recomputed",
    "batching": "long steps because of a large batch",
    "lost replica": "its replica was lost",
}
CAUSE_NAMES = tuple(CAUSES)
# Fields of an outcome with one value per request; the other fields are of replicas and moments.
_PER_REQUEST = (
    *("arrival_s", "input_tokens", "output_tokens", "replica", "status", "admitted_s", "first_token_s", "finish_s"),
    *("preemptions", "retries", "prefill_wait_s"),
)


def causes(
    outcome: Outcome,
    slo: Slo,
    engines: tuple[Engine, ...],
    type_of_request: npt.NDArray[np.int32],
    cached: npt.NDArray[Any] | None,
) -> Array:
    """Index into ``CAUSE_NAMES`` of each request's cause (N,); -1 if it met the SLO.

    The limit that a request exceeds most decides which of its times are compared. Before its first token they are the
    times of the queue and of its prompt; after it, the times added by prompts, preemptions and batches of others.
    """
    places = np.flatnonzero(~met(outcome, slo))
    found = np.full(len(outcome.arrival_s), -1)
    if len(places):
        known = None if cached is None else cached[places]
        found[places] = _of_missed(_only(outcome, places), slo, engines, type_of_request[places], known)
    return found


def _only(outcome: Outcome, places: npt.NDArray[np.intp]) -> Outcome:
    """The outcome of some of the requests."""
    class_of = None if outcome.class_of is None else outcome.class_of[places]
    return replace(outcome, class_of=class_of, **{name: getattr(outcome, name)[places] for name in _PER_REQUEST})


def _of_missed(
    outcome: Outcome,
    slo: Slo,
    engines: tuple[Engine, ...],
    type_of_request: npt.NDArray[np.int32],
    cached: npt.NDArray[Any] | None,
) -> npt.NDArray[np.intp]:
    """The causes of requests that all missed the SLO (M,)."""
    values = metrics_of(outcome)
    limits = slo.limits_of(outcome.class_of)
    ratios = np.stack([values[metric] / limit for metric, limit in limits.items()])
    ttft, latency = alone_s(outcome, engines, type_of_request, cached)
    alone = largest_ratio(metrics_s(ttft, latency, outcome.output_tokens), slo, outcome.class_of)
    worst = np.array(list(limits))[ratios.argmax(axis=0)]
    before, after = worst != "tpot", worst != "ttft"
    queueing = outcome.admitted_s - outcome.arrival_s
    prompt = np.maximum(outcome.first_token_s - outcome.admitted_s - ttft, 0.0)
    decode = np.maximum(outcome.finish_s - outcome.first_token_s - (latency - ttft), 0.0)
    preempted = outcome.preemptions > 0
    interference = np.minimum(outcome.prefill_wait_s, decode)
    rest = decode - interference
    parts = np.zeros((len(CAUSE_NAMES), len(decode)))
    parts[CAUSE_NAMES.index("queueing")] = before * queueing
    parts[CAUSE_NAMES.index("prefill interference")] = after * interference
    parts[CAUSE_NAMES.index("preemption")] = after * np.where(preempted, rest, 0.0)
    parts[CAUSE_NAMES.index("batching")] = before * prompt + after * np.where(preempted, 0.0, rest)
    cause = np.nan_to_num(parts).argmax(axis=0)
    cause[(alone > AT_LIMIT) | (outcome.status == REFUSED)] = CAUSE_NAMES.index("too large")
    is_lost = ((outcome.status != SERVED) & (outcome.status != REFUSED)) | (outcome.retries > 0)
    cause[is_lost] = CAUSE_NAMES.index("lost replica")
    return np.asarray(cause)


def alone_s(
    outcome: Outcome,
    engines: tuple[Engine, ...],
    type_of_request: npt.NDArray[np.int32],
    cached: npt.NDArray[Any] | None = None,
) -> tuple[Array, Array]:
    """Time to first token and latency of each request on an idle replica of its type (N,) [s]; nan if none took it."""
    ttft, latency = np.full(len(outcome.arrival_s), np.nan), np.full(len(outcome.arrival_s), np.nan)
    for t, engine in enumerate(engines):
        here = np.flatnonzero(type_of_request == t)
        if len(here):
            known = np.zeros(len(here)) if cached is None else np.asarray(cached)[here].astype(float)
            sizes = (outcome.input_tokens[here].astype(float), outcome.output_tokens[here].astype(float))
            ttft[here], latency[here] = idle_times_s(engine, *sizes, known)
    return ttft, latency


def share_by_cause(cause: Array) -> dict[str, float]:
    """Share of each cause among requests that missed, 0-1; only causes that occurred."""
    total = max(len(cause), 1)
    return {
        name: float((cause == place).sum()) / total for place, name in enumerate(CAUSE_NAMES) if (cause == place).any()
    }
