"""How many requests the shortest run of a search has: enough for a fleet to fill, and for each class to be told."""

from __future__ import annotations

import math

import numpy as np

from melange.slo import Slo
from melange.validate.certify.judge import MOST_REQUESTS
from melange.workload.workload import Workload

# Requests of the shortest run: 2,000 tell 99 % from 98.4 %, and take 1 to 2 ms.
LEAST_REQUESTS = 2_000
# The shortest run lasts this many times as long as a request may stay: a fleet fills, and a queue that grows shows.
# More costs simulations; less, and plans are kept that their proof refutes. Half and twice: no difference, for there
# the least number of requests decides.
_STAYS = 4.0
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
    weight = workload.request_rate / workload.total_rate
    outputs = float((weight * workload.output_tokens).sum())
    stay_s = min(_stay_s(one.slo, outputs) for one in slo.classes) if slo.classes else _stay_s(slo, outputs)
    least = int(LEAST_REQUESTS * rarity(workload))
    return int(np.clip(math.ceil(_STAYS * stay_s * workload.total_rate), least, MOST_REQUESTS))


def _stay_s(slo: Slo, outputs: float) -> float:
    """How long a request of a number of output tokens may stay [s]."""
    allowed = slo.longest_stay_s(outputs)
    return slo.limits.get("ttft", 0.0) + outputs * _TOKEN_S if allowed is None else float(allowed)


def rarity(workload: Workload) -> float:
    """Times the usual requests, for enough of the rarest class to be among them; 1 without classes."""
    classes = len(workload.buckets.classes)
    shares = [float(one.sum()) / workload.total_rate for one in np.split(workload.request_rate, max(classes, 1))]
    return min(_MOST_RARITY, 1.0 / (max(classes, 1) * min(share for share in shares if share > 0)))
