"""How many requests a run has, and how many of them meet a fleet that is still filling."""

from __future__ import annotations

import math

import numpy as np

from melange.slo import Slo
from melange.workload.workload import Workload

# No run is longer than this: at 5,000 requests/s it lasts 200 s. At a fifth of it a fleet of 855 replicas was certified
# that had not filled yet, and held 87 % of a million requests.
MOST_REQUESTS = 1_000_000
# Requests of the shortest run: 2,000 tell 99 % from 98.4 %, and take 1 to 2 ms.
LEAST_REQUESTS = 2_000
# The shortest run lasts this many times as long as a request may stay: a fleet fills, and a queue that grows shows.
# More costs simulations; less, and plans are kept that their proof refutes. Half and twice: no difference, for there
# the least number of requests decides.
_STAYS = 4.0
# A fleet that begins empty comes to rest in this many times as long as a request may stay: of nine fleets of 10 to 566
# replicas eight were within a tenth of the later misses after that, before it had from 0.1 to 1.4 times as many, and
# one was not for five. More, and less of each run counts.
_SETTLING = 1.5
# A token takes this long where no limit says how long a request may stay [s]. A judgment.
_TOKEN_S = 0.05
# Times the usual requests of a run at most, for a rare class to be among them: at 5, of 10,000 requests 200 are of a
# class of 2 %. More takes longer. A judgment.
_MOST_RARITY = 5.0


def shortest(workload: Workload, slo: Slo) -> int:
    """Requests that arrive while requests that wait and run as long as the SLO allows come and go some times.

    Of several classes the one whose requests may stay the shortest counts: batch requests may stay for hours, and do
    not. Whether a fleet falls behind under loose limits is told by its throughput
    (:mod:`melange.validate.certify.throughput`).
    """
    least = int(LEAST_REQUESTS * rarity(workload))
    return int(np.clip(math.ceil(_STAYS * _staying(workload, slo)), least, MOST_REQUESTS))


def enough(workload: Workload, slo: Slo | None, least: int) -> int:
    """Requests of a run that shows what a fleet holds: at least this many, and enough for a fleet to come to rest."""
    return least if slo is None else max(least, min(math.ceil(_STAYS * _staying(workload, slo)), MOST_REQUESTS))


def settling(rate: float, outputs: float, slo: Slo | None) -> int:
    """Requests that arrive while a fleet that begins empty comes to rest.

    Parameters
    ----------
    rate
        At which requests arrive [1/s].
    outputs
        Tokens of their answers, on average.
    slo
        Says how long they may stay; None: that is not known, and 0 is the answer.
    """
    if slo is None or not math.isfinite(rate):
        return 0
    return min(math.ceil(_SETTLING * rate * _longest_s(slo, outputs)), MOST_REQUESTS)


def settling_of(workload: Workload, slo: Slo) -> int:
    """The same of a workload's requests."""
    return settling(workload.total_rate, _mean_output(workload), slo)


def _mean_output(workload: Workload) -> float:
    return float((workload.request_rate / workload.total_rate * workload.output_tokens).sum())


def _staying(workload: Workload, slo: Slo) -> float:
    """Requests that arrive while one stays as long as it may."""
    return _longest_s(slo, _mean_output(workload)) * workload.total_rate


def _longest_s(slo: Slo, outputs: float) -> float:
    """How long a request of a number of output tokens may stay [s]; of the class where that is the shortest."""
    return min(_stay_s(one.slo, outputs) for one in slo.classes) if slo.classes else _stay_s(slo, outputs)


def _stay_s(slo: Slo, outputs: float) -> float:
    allowed = slo.longest_stay_s(outputs)
    return slo.limits.get("ttft", 0.0) + outputs * _TOKEN_S if allowed is None else float(allowed)


def rarity(workload: Workload) -> float:
    """Times the usual requests, for enough of the rarest class to be among them; 1 without classes."""
    classes = len(workload.buckets.classes)
    shares = [float(one.sum()) / workload.total_rate for one in np.split(workload.request_rate, max(classes, 1))]
    return min(_MOST_RARITY, 1.0 / (max(classes, 1) * min(share for share in shares if share > 0)))
