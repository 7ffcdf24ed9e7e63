"""The results of a simulation: the times of every request, and the work of every replica."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melange.slo import MEAN, Slo
from melange.workload.workload import Array

# How a request ended.
SERVED, REFUSED, FAILED = 0, 1, 2

# Bins of gaps between tokens: bin k holds gaps from LEAST_GAP_S GROWTH^k to LEAST_GAP_S GROWTH^(k + 1) [s].
LEAST_GAP_S, GROWTH, BINS = 1e-4, 1.01, 1400


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """The results of N requests on n replicas.

    Parameters
    ----------
    arrival_s
        Arrival at the balancer (N,) [s].
    input_tokens, output_tokens
        Sizes (N,).
    replica
        The replica on which a request ended (N,); -1 if no replica took it.
    status
        ``SERVED``; ``REFUSED``: longer than the replica's context limit or KV cache; ``FAILED``: lost with its replica
        twice, or no replica was up (N,).
    admitted_s, first_token_s, finish_s
        Times at which it first entered a running batch, and of its first and its last token (N,) [s]; nan if there is
        none.
    preemptions
        How often its KV cache was evicted and computed again (N,).
    retries
        How often it was sent to another replica because its own was lost (N,), 0 or 1.
    prefill_wait_s
        Time that prompts of others added to its steps between its first and its last token (N,) [s].
    until_s
        Time at which the last request ended [s].
    busy_s
        Time in which a replica ran steps (n,) [s].
    steps
        Number of steps that it ran (n,).
    made_tokens, wasted_tokens
        Tokens that it generated, and those of them that were lost with it (n,).
    prompt_tokens, recomputed_tokens
        Prompt tokens that it processed, and those of them that it had computed before a preemption (n,).
    kv_share_s
        Used share of its KV cache, integrated over time (n,) [s].
    peak_kv_share
        Largest used share of its KV cache (n,), 0-1.
    sample_s, waiting, running
        Sample times (S,) [s], and the numbers of waiting and running requests on each replica then (S, n).
    gaps
        Times between a request's tokens, counted in bins (n, BINS); see ``LEAST_GAP_S``.
    class_of
        Index of each request's class among those of the SLO (N,); None: there are no classes.
    """

    arrival_s: Array
    input_tokens: npt.NDArray[np.int32]
    output_tokens: npt.NDArray[np.int32]
    replica: npt.NDArray[np.int32]
    status: npt.NDArray[np.int32]
    admitted_s: Array
    first_token_s: Array
    finish_s: Array
    preemptions: npt.NDArray[np.int32]
    retries: npt.NDArray[np.int32]
    prefill_wait_s: Array
    until_s: float
    busy_s: Array
    steps: npt.NDArray[np.int64]
    made_tokens: npt.NDArray[np.int64]
    wasted_tokens: npt.NDArray[np.int64]
    prompt_tokens: npt.NDArray[np.int64]
    recomputed_tokens: npt.NDArray[np.int64]
    kv_share_s: Array
    peak_kv_share: Array
    sample_s: Array
    waiting: npt.NDArray[np.int32]
    running: npt.NDArray[np.int32]
    gaps: Array
    class_of: npt.NDArray[np.int32] | None = None

    @property
    def ttft_s(self) -> Array:
        """Time to the first token, queueing included (N,) [s]; nan if there is none."""
        return self.first_token_s - self.arrival_s

    @property
    def latency_s(self) -> Array:
        """Time from arrival to the last token (N,) [s]; nan if there is none."""
        return self.finish_s - self.arrival_s

    @property
    def tpot_s(self) -> Array:
        """Mean time between a request's tokens (N,) [s]; 0 for a single token."""
        between = np.maximum(self.output_tokens - 1, 1)
        return np.asarray((self.finish_s - self.first_token_s) / between)

    @property
    def ntpot_s(self) -> Array:
        """Latency over output tokens (N,) [s]."""
        return np.asarray(self.latency_s / self.output_tokens)


def metrics_s(ttft_s: Array, latency_s: Array, output_tokens: npt.ArrayLike) -> dict[str, Array]:
    """Each metric of requests (N,) [s], by name, from their times to first token and their latencies.

    >>> {name: float(value) for name, value in metrics_s(np.array(0.5), np.array(1.5), 11).items()}
    {'ttft': 0.5, 'tpot': 0.1, 'ntpot': 0.13636363636363635, 'latency': 1.5}
    """
    outputs = np.asarray(output_tokens)
    return {
        "ttft": ttft_s,
        "tpot": np.asarray((latency_s - ttft_s) / np.maximum(outputs - 1, 1)),
        "ntpot": np.asarray(latency_s / outputs),
        "latency": latency_s,
    }


def statistic_of(values: Array, statistic: str) -> float:
    """The mean or a percentile (``p99``) of some values."""
    return float(values.mean() if statistic == MEAN else np.quantile(values, float(statistic[1:]) / 100))


def excess_of(values: Mapping[str, Array], slo: Slo) -> tuple[str, float]:
    """The metric that is closest to its limit or furthest above it, and the ratio of its statistic to the limit.

    Under ``requests``, the ratio is the quantile, at the attainment, of each request's largest ratio of a metric to its
    limit: it is at most 1 if and only if the required share of requests meets every limit.

    Parameters
    ----------
    values
        By metric, for each request (N,) [s]; infinite if there was no answer.
    slo
        The limits and their statistic.

    Examples
    --------
    >>> values = {"ttft": np.array([0.2, 0.9, 0.2, 0.2]), "tpot": np.array([0.01, 0.01, 0.05, 0.01])}
    >>> excess_of(values, Slo(ttft_s=1.0, tpot_s=0.04, attainment=0.75))
    ('ttft', 0.9)
    >>> excess_of(values, Slo(ttft_s=1.0, tpot_s=0.04, attainment=1.0))
    ('tpot', 1.25)
    """
    if not slo.is_on_requests:
        found = {name: statistic_of(values[name], slo.statistic) / limit for name, limit in slo.limits.items()}
        metric = max(found, key=lambda name: found[name])
        return metric, found[metric]
    ratio = np.stack([values[name] / limit for name, limit in slo.limits.items()])
    largest = ratio.max(axis=0)
    place = place_within(largest, slo.target)
    return list(slo.limits)[int(ratio[:, place].argmax())], float(largest[place])


def place_within(values: Array, share: float) -> int:
    """Index of the smallest value that is not exceeded by at least this share of all (N,), 0-1.

    >>> place_within(np.array([0.4, 0.1, 0.3, 0.2]), 0.75)
    2
    """
    rank = math.ceil(round(share * len(values), 6)) - 1  # 0.07 x 100 is slightly more than 7
    return int(np.argpartition(values, rank)[rank])
