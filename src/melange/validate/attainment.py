"""The share of requests that met the SLO, with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.replica.simulated.outcome import SERVED, Outcome
from melange.slo import Slo
from melange.workload.workload import Array, Mask

# Share of the requests that is not counted, because the first ones meet empty replicas. With more, the interval is
# wider; with less, the attainment looks better than it is. On certified plans (bench/certify.py), 2,000 requests a run
# against 50,000: 0.02 points too high on average with nothing left out, 0.016 with a tenth, 0.013 with a fifth, while
# the interval of five runs is 0.3 points wide. If a fleet cannot keep up, the queue keeps growing and no share helps:
# 3.2 points with any. At the end of steady traffic the same share is left out again, because the last requests have
# fewer and fewer others beside them: 95.9 % met their limits there in six runs of 98,280 requests, and 94.7 % in the
# tenth before.
_WARM_UP = 0.1
# Batches of a run. With more, successive batches depend on each other and the interval is too narrow; with fewer, it is
# too wide. Of intervals of one run of 2,000 requests, over twelve plans at 0.9 of what they carry, 80, 77 and 72 % held
# the true share with 5, 10 and 20 batches, and they were 7.9, 6.1 and 4.8 points wide. Of five runs together 92 to 93 %
# did with any number from 2 to 40, because the spread of whole runs decides there.
_BATCHES = 10
# Parts in which the runs together are compared, if they are more than one: with fewer, Student's factor is large, and
# says more than the runs do. On 18 certified plans, each simulated 48 times, intervals of two whole runs were in the
# median 0.74 of the misses wide on each side and 98 % held the true share; of two runs in three parts each 0.27 and
# 97 %, of four runs in two parts each 0.17 instead of 0.21, and 98 % either way.
_LEAST_PARTS = 6
# With a higher confidence, more requests are needed before a target counts as met; with a lower one, more certificates
# are wrong. The usual level.
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A share with its 95 % confidence interval.

    Parameters
    ----------
    value
        The share, 0-1.
    low, high
        Ends of the interval, 0-1.
    """

    value: float
    low: float
    high: float


# A request exactly at its limit has met it: times are sums of steps, whose last digits depend on the order of addition.
AT_LIMIT = 1 + 1e-12


def counted(requests: int, *, has_end: bool = True, settling: int = 0) -> slice:
    """The requests of a run that count: those that arrive after the first tenth and before the last tenth.

    Parameters
    ----------
    requests
        Requests of the run.
    has_end
        Whether requests stop only because the run ends: the last requests then finish early, unlike in a fleet that
        runs on. False if the run ends with what it should show: a log, a ramp.
    settling
        Requests that arrive while the fleet settles. If they are more than the first tenth, they do not count either;
        the second half of the run always counts.
    """
    end = warm_up(requests)
    return slice(max(end, min(settling, requests // 2)), requests - end if has_end else requests)


def warm_up(requests: int) -> int:
    """The number of requests at the start of a run that do not count."""
    return int(requests * _WARM_UP)


def metrics_of(outcome: Outcome) -> dict[str, Array]:
    """TTFT, TPOT, NTPOT and latency of each request (N,) [s]; infinite for a request that was not served."""
    values = {"ttft": outcome.ttft_s, "tpot": outcome.tpot_s, "ntpot": outcome.ntpot_s, "latency": outcome.latency_s}
    is_lost = outcome.status != SERVED
    for value in values.values():
        value[is_lost] = math.inf
    return values


def limit_ratio(outcome: Outcome, slo: Slo) -> Array:
    """The largest metric of each request over its limit (N,): at most 1 if it met the SLO."""
    return largest_ratio(metrics_of(outcome), slo, outcome.class_of)


def largest_ratio(values: Mapping[str, Array], slo: Slo, class_of: npt.NDArray[np.int32] | None = None) -> Array:
    """The largest of some metrics over its limit, per request (N,); ``class_of`` says which limits apply (N,)."""
    over = np.zeros(len(values["ttft"]))
    for metric, limit in slo.limits_of(class_of).items():
        np.maximum(over, values[metric] / limit, out=over)
    return over


def met(outcome: Outcome, slo: Slo) -> Mask:
    """Whether each request met every limit of the SLO by itself (N,)."""
    return np.asarray(limit_ratio(outcome, slo) <= AT_LIMIT)


def by_class(values: npt.NDArray[Any], class_of: npt.NDArray[np.int32] | None, slo: Slo) -> list[npt.NDArray[Any]]:
    """Values of requests (N,) split by class (K); without classes, all in one group."""
    if class_of is None:
        return [values]
    return [values[class_of == k] for k in range(len(slo.classes))]


def share_met(outcome: Outcome, slo: Slo, counted: slice) -> float:
    """Share of the counted requests that met the SLO, 0-1.

    With classes, the class that is farthest below its target (or least above it) counts; its share is shifted by the
    difference of its target to the first class's target.
    """
    found = met(outcome, slo)[counted]
    return share_of(by_class(found, None if outcome.class_of is None else outcome.class_of[counted], slo), slo)


def share_of(parts: Sequence[Mask], slo: Slo) -> float:
    """As :func:`share_met`, from whether the requests of each class met the SLO (K)."""
    if len(parts) == 1:
        return float(parts[0].mean())
    return min(float(part.mean()) - off for part, off in zip(parts, slo.offsets, strict=True) if len(part))


def attainment(samples: Sequence[Mask]) -> Interval:
    """The share of requests that met the SLO, over runs with different seeds.

    The widest of three intervals counts. The first cuts each run into ten batches in order of arrival, whose means are
    nearly independent even if successive requests are not, and takes Student's interval from their spread. The second
    does the same with whole runs, because a queue may outlast a batch; of few runs with the halves or thirds, so that
    there are six or more. The third is Wilson's, as if all requests were independent: ten batches without a miss prove
    no more than that many requests can.

    Parameters
    ----------
    samples
        Whether each counted request met the SLO, for each run.
    """
    pooled = np.concatenate(samples)
    value, count = float(pooled.mean()), len(pooled)
    half = _half_width(_means(samples, _BATCHES))
    if len(samples) > 1:
        half = max(half, _half_width(_means(samples, math.ceil(_LEAST_PARTS / len(samples)))))
    low, high = wilson(value, count)
    return Interval(value=value, low=max(0.0, min(low, value - half)), high=min(1.0, max(high, value + half)))


def _means(samples: Sequence[Mask], parts: int) -> list[float]:
    """Means of the parts of each run that have requests."""
    return [float(part.mean()) for run in samples for part in np.array_split(run, parts) if len(part)]


def _half_width(means: Sequence[float]) -> float:
    """Half the width of Student's interval from some means; 0 for a single mean."""
    if len(means) < 2:
        return 0.0
    return _student(len(means) - 1) * float(np.std(means, ddof=1)) / math.sqrt(len(means))


def wilson(value: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share among a number of requests (1927).

    >>> [round(end, 4) for end in wilson(1.0, 1000)]
    [0.9962, 1.0]
    """
    z = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2)
    middle = (value + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(value * (1 - value) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def _student(freedom: int) -> float:
    """Quantile of Student's t for the confidence (Cornish and Fisher's expansion, 1 % off at 5 degrees of freedom)."""
    z = NormalDist().inv_cdf(0.5 + _CONFIDENCE / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
