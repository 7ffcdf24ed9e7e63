"""Expected duration and cost of a campaign, before it starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.files import Json
from melange.measure.search import START_SHARE, TURNS, WARM_UP_TURNS, Effort
from melange.measure.subject import Bucket, Subject, latency_bound_s
from melange.profile.profile import Profile

# Assumed time per output token if the objective limits only the first token [s].
_USUAL_TPOT_S = 0.05
# Estimates are often wrong by this factor.
_OFF = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Expected effort for the search of one bucket.

    Parameters
    ----------
    bucket
        Position in the grid.
    input_tokens, output_tokens
        Size of its requests.
    request_rate
        Request rate of the bucket [1/s].
    guess
        Expected highest rate [1/s]; None if unknown.
    tests
        Number of load tests.
    duration_s
        Total time of the tests [s].
    """

    bucket: Bucket
    input_tokens: int
    output_tokens: int
    request_rate: float
    guess: float | None
    tests: int
    duration_s: float

    def to_json(self) -> Json:
        """As a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


def outlook(
    subject: Subject, profile: Profile | None, buckets: Sequence[Bucket], effort: Effort
) -> tuple[Outlook, ...]:
    """Expected tests and duration for each bucket.

    The tests near the highest rate take ``warm-up + counted / rate + latency`` each, with the latency that the
    objective allows. If the rate is unknown, one request at a time bounds it from below.
    """
    return tuple(_of(subject, profile, bucket, effort) for bucket in buckets)


def guess_of(subject: Subject, profile: Profile | None, bucket: Bucket) -> float | None:
    """Expected highest rate of a bucket [1/s]; None if unknown."""
    if profile is None:
        return None
    r = profile.index(subject.replica_type)
    for values in (profile.max_request_rate, profile.high):
        if values[r][bucket] > 0:
            return float(values[r][bucket])
    return None


def _of(subject: Subject, profile: Profile | None, bucket: Bucket, effort: Effort) -> Outlook:
    inputs, outputs = subject.size(bucket)
    latency_s = latency_bound_s(subject.slo, outputs)
    if math.isinf(latency_s):
        latency_s = _USUAL_TPOT_S * outputs + (subject.slo.ttft_s or 0.0)
    guess = guess_of(subject, profile, bucket)
    rates = _tried(guess or 1.0 / latency_s, effort, is_guess=guess is not None)
    counted = effort.counted(subject.slo)
    # Half of the tests are near enough to the limit that one repeat is needed.
    times_s = [
        1.5 * (max(counted / rate, TURNS * latency_s) + WARM_UP_TURNS * latency_s) + latency_s / 2 for rate in rates
    ]
    return Outlook(
        bucket=bucket,
        input_tokens=inputs,
        output_tokens=outputs,
        request_rate=float(subject.workload.request_rate[bucket]),
        guess=guess,
        tests=len(rates) + 1,
        duration_s=sum(times_s) + effort.alone * latency_s,
    )


def _tried(rate: float, effort: Effort, *, is_guess: bool) -> list[float]:
    """Approximate rates that a search tries: doubling up, then bisection of the remaining range."""
    start = START_SHARE * rate if is_guess else rate
    doublings = [start * _OFF**power for power in range(3 if is_guess else 6)]
    halvings = math.ceil(math.log2(math.log(_OFF) / math.log1p(effort.precision)))
    top = rate if is_guess else float(np.median(doublings))
    return [*doublings, *([top] * halvings)]
