"""The number of requests in a run, and how many of them meet a fleet that is still filling."""

from __future__ import annotations

import math

import numpy as np

from melange.slo import Slo
from melange.workload.arrivals import Arrivals
from melange.workload.workload import Workload

# Longest run: at 5,000 requests/s it lasts 200 s. With a fifth of it, a fleet of 855 replicas was certified that had
# not filled yet, and held 87 % of a million requests.
MOST_REQUESTS = 1_000_000
# Requests of the shortest run: 2,000 distinguish 99 % from 98.4 %, and take 1 to 2 ms.
LEAST_REQUESTS = 2_000
# The shortest run lasts this many times the longest stay of a request: a fleet fills, and a queue that grows shows.
# More costs simulations; with less, plans are kept that their proof refutes. Half and twice: no difference, because the
# least number of requests decides there.
_STAYS = 4.0
# A fleet that starts empty settles in about this many times the longest stay of a request: nine fleets of 10 to 566
# replicas had 0.1 to 1.5 times their later misses in the first half of a stay, and 0.5 to 1.2 times from 1.5 to 2 stays
# on; two of them took five stays. With more, less of each run counts. Chosen by judgment.
_SETTLING = 1.5
# Time of a token if no limit says how long a request may stay [s]. Chosen by judgment.
_TOKEN_S = 0.05
# Largest factor on the usual requests of a run, so that a rare class is among them: at 5, of 10,000 requests 200 are of
# a class of 2 %. More takes longer. Chosen by judgment.
_MOST_RARITY = 5.0


def shortest(workload: Workload, slo: Slo) -> int:
    """Requests that arrive in some multiple of the time that a request may wait and run under the SLO.

    With several classes, the class with the shortest stay counts: batch requests may stay for hours, but do not.
    Whether a fleet falls behind under loose limits is decided by its throughput
    (:mod:`melange.validate.certify.throughput`).
    """
    least = int(LEAST_REQUESTS * rarity(workload))
    return int(np.clip(math.ceil(_STAYS * _staying(workload, slo)), least, MOST_REQUESTS))


def enough(workload: Workload, slo: Slo | None, least: int) -> int:
    """Requests of a run that shows what a fleet holds: at least this many, and enough for a fleet to settle."""
    return least if slo is None else max(least, min(math.ceil(_STAYS * _staying(workload, slo)), MOST_REQUESTS))


def is_long_enough(log: Arrivals, slo: Slo | None) -> bool:
    """Whether a log lasts so long that a fleet fills, and a queue that grows shows, when it is replayed.

    A fleet that never fills meets the limits of all requests of a short log, whatever the rate.
    """
    if slo is None or not log.has_pace:
        return True
    return log.lasts_s >= _STAYS * _longest_s(slo, float(log.output_tokens.mean()))


def settling(rate: float, outputs: float, slo: Slo | None) -> int:
    """Requests that arrive while a fleet that starts empty settles.

    Parameters
    ----------
    rate
        Rate at which requests arrive [1/s].
    outputs
        Mean output tokens of the requests.
    slo
        Says how long requests may stay; None: not known, and the result is 0.
    """
    if slo is None or not math.isfinite(rate):
        return 0
    return min(math.ceil(_SETTLING * rate * _longest_s(slo, outputs)), MOST_REQUESTS)


def settling_of(workload: Workload, slo: Slo) -> int:
    """The same for a workload's requests."""
    return settling(workload.total_rate, _mean_output(workload), slo)


def _mean_output(workload: Workload) -> float:
    return float((workload.request_rate / workload.total_rate * workload.output_tokens).sum())


def _staying(workload: Workload, slo: Slo) -> float:
    """Requests that arrive during the longest stay of a request."""
    return _longest_s(slo, _mean_output(workload)) * workload.total_rate


def _longest_s(slo: Slo, outputs: float) -> float:
    """Longest stay of a request with this many output tokens [s]; with classes, the shortest of theirs."""
    return min(_stay_s(one.slo, outputs) for one in slo.classes) if slo.classes else _stay_s(slo, outputs)


def _stay_s(slo: Slo, outputs: float) -> float:
    allowed = slo.longest_stay_s(outputs)
    return slo.limits.get("ttft", 0.0) + outputs * _TOKEN_S if allowed is None else float(allowed)


def rarity(workload: Workload) -> float:
    """Factor on the usual requests, so that enough of the rarest class are among them; 1 without classes."""
    classes = len(workload.buckets.classes)
    shares = [float(one.sum()) / workload.total_rate for one in np.split(workload.request_rate, max(classes, 1))]
    return min(_MOST_RARITY, 1.0 / (max(classes, 1) * min(share for share in shares if share > 0)))
