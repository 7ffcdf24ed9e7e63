"""What a simulation has seen: every request's moments, and every replica's work."""

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
    """What became of N requests on n replicas.

    Parameters
    ----------
    arrival_s
        Arrival at the balancer (N,) [s].
    input_tokens, output_tokens
        Sizes (N,).
    replica
        Where a request ended (N,); -1 where no replica took it.
    status
        ``SERVED``; ``REFUSED``: longer than the replica's context limit or KV cache; ``FAILED``: lost with its replica
        twice, or no replica was up (N,).
    admitted_s, first_token_s, finish_s
        When it first entered a running batch, when its first token came, and its last (N,) [s]; nan where none came.
    preemptions
        How often its KV cache was taken away and made again (N,).
    retries
        How often it was sent to another replica because its own was lost (N,), 0 or 1.
    prefill_wait_s
        By how much prompts of others lengthened its steps between its first token and its last (N,) [s].
    until_s
        When the last request ended [s].
    busy_s
        Time in which a replica ran steps (n,) [s].
    steps
        Steps that it ran (n,).
    made_tokens, wasted_tokens
        Tokens that it made, and those of them that were lost with it (n,).
    prompt_tokens, recomputed_tokens
        Prompt tokens that it read, and those of them that it had read or made before a preemption (n,).
    kv_share_s
        Share of its KV cache that was held, summed over time (n,) [s].
    peak_kv_share
        The most that was held (n,), 0-1.
    sample_s, waiting, running
        Moments (S,) [s], and how many requests waited and ran on each replica then (S, n).
    gaps
        Times between a request's tokens, counted in bins (n, BINS); see ``LEAST_GAP_S``.
    class_of
        Place of each request's class among those of the SLO (N,); None: there are no classes.
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
        """Time to the first token, queueing included (N,) [s]; nan where none came."""
        return self.first_token_s - self.arrival_s

    @property
    def latency_s(self) -> Array:
        """Time from arrival to the last token (N,) [s]; nan where none came."""
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
    """Each metric of requests (N,) [s], by name, from their times to the first and to the last token.

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
    """How requests stand to an SLO: the metric that is nearest to its limit or farthest beyond, and what binds over it.

    Under ``requests`` that is the quantile, at the attainment, of each request's largest ratio of a metric to its
    limit: at most 1 where, and only where, so large a share of them meets every limit.

    Parameters
    ----------
    values
        By metric, of each request (N,) [s]; infinite where there was no answer.
    slo
        Limits and what they bind.

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
    """Place of the smallest value that at least a share of all (N,), 0-1, do not exceed.

    >>> place_within(np.array([0.4, 0.1, 0.3, 0.2]), 0.75)
    2
    """
    rank = math.ceil(round(share * len(values), 6)) - 1  # 0.07 x 100 is a little more than 7
    return int(np.argpartition(values, rank)[rank])
