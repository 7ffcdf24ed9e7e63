"""How long steps took on live replicas against the plan's, and estimates corrected by it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from melange.errors import Caution, InputError
from melange.files import Json, read_as
from melange.profile.anchor import with_corrected_types
from melange.profile.correction import INTERVAL, SHARES, Correction
from melange.profile.estimate_inputs import EstimateInputs
from melange.profile.profile import Profile
from melange.records import items, record
from melange.replica.spread import DECILE

# Fewer requests say nothing: with as many at least, a factor is known to a tenth (bench/regret.py). A judgment.
LEAST_REQUESTS = 50
# Standard deviation of the logarithm that the mean of any number of requests at one load leaves: the model is a little
# wrong at every size and batch. Near a measured point it is wrong by 5 to 6 % in the median (docs/anchors.md).
_LEFT = 0.05
# Logarithm of observed over planned requests in flight beyond which what is known gets no less certain.
_MOST_AWAY = 2.0
# A correction holds for all batches.
_ANY_BATCH = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFactor:
    """Step times of the live replicas of one type over the plan's.

    Parameters
    ----------
    replica_type
        Its name in the plan.
    factor
        Observed over estimated step time; 1 where there was too little traffic to tell.
    low, high
        Ends of its 80 % interval: that of the estimate where nothing was observed.
    requests
        Completions that it rests on.
    in_flight
        Requests in flight on a replica at the time, on average.
    """

    replica_type: str
    factor: float
    low: float
    high: float
    requests: int = 0
    in_flight: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.low <= self.factor <= self.high and math.isfinite(self.high)):
            raise InputError(
                f"factors.{self.replica_type}: must be 0 < low <= factor <= high, got {self.low:g}, {self.factor:g}, "
                f"{self.high:g}"
            )

    @property
    def deviation(self) -> float:
        """Standard deviation of its logarithm."""
        return math.log(self.high / self.low) / (2 * DECILE)

    def to_json(self) -> Json:
        """As a JSON object."""
        return asdict(self)


def observed_factor(
    name: str,
    interval: tuple[float, float],
    *,
    requests: float,
    log_ratio: float,
    log_variance: float,
    in_flight: float,
    planned_in_flight: float,
) -> StepFactor:
    """What live requests say about the steps of a type, on top of what its estimate says.

    Two normal distributions of the logarithm, multiplied: that of the estimate, and that of the mean of the requests.
    Requests that run together take the same steps, so as many as are in flight count as one. What was seen far from the
    planned load is as likely, and less certain.

    Parameters
    ----------
    name
        Of the replica type.
    interval
        Times the estimated step that steps took at their 10 % and 90 % quantile before any was observed.
    requests
        Completions.
    log_ratio, log_variance
        Mean and variance of the logarithm of observed over expected time per token.
    in_flight, planned_in_flight
        Requests on a replica, as observed and as planned.

    Examples
    --------
    >>> one = observed_factor("L4", (0.8, 1.25), requests=2000, log_ratio=0.2, log_variance=0.01, in_flight=20.0,
    ...                       planned_in_flight=25.0)
    >>> round(one.factor, 2), round(one.low, 2), round(one.high, 2)
    (1.2, 1.12, 1.29)
    """
    fast, slow = interval
    if requests < LEAST_REQUESTS:
        return StepFactor(
            replica_type=name, factor=1.0, low=min(fast, 1.0), high=max(slow, 1.0), requests=int(requests)
        )
    prior = max((math.log(slow / fast) / (2 * DECILE)) ** 2, 1e-6)
    away = math.log(max(in_flight, 1.0) / max(planned_in_flight, 1.0))
    sampled = log_variance / max(requests / max(in_flight, 1.0), 1.0)
    seen = _LEFT**2 + sampled
    weight = prior / (prior + seen)
    far = SHARES.slope * prior * min(away**2, _MOST_AWAY**2)
    middle, deviation = weight * log_ratio, math.sqrt(prior * seen / (prior + seen) + far)
    return StepFactor(
        replica_type=name,
        factor=math.exp(middle),
        low=math.exp(middle - DECILE * deviation),
        high=math.exp(middle + DECILE * deviation),
        requests=int(requests),
        in_flight=in_flight,
    )


def read_factors(path: str | Path) -> tuple[StepFactor, ...]:
    """Read what a balancer writes under ``/factors.json``.

    Raises
    ------
    InputError
        No such file, or not such a document: with the file and the field.
    """
    return read_as(path, "factors", factors_from_json)


def factors_from_json(content: Json) -> tuple[StepFactor, ...]:
    """From the JSON object of a balancer."""
    return tuple(record(StepFactor, one, place) for place, one in items(content.get("factors", ()), "factors"))


def with_observed(profile: Profile, inputs: EstimateInputs, factors: Sequence[StepFactor]) -> Profile:
    """The profile with the estimates of the observed types' hardware corrected; measured and anchored cells stay.

    Parameters
    ----------
    profile
        Estimates of the inputs.
    factors
        By replica type; those that rest on no requests change nothing.
    """
    names = [one.name for one in inputs.replica_types]
    by_hardware: Mapping[object, list[StepFactor]] = {}
    cautions = []
    for one in factors:
        name = one.replica_type
        place = next((r for r, known in enumerate(names) if name in (known, inputs.replica_types[r].type_name)), None)
        if place is None:
            what = f"factors: {name} is not among the offers of the service; its factor is not used"
            cautions.append(Caution("observed", what))
        elif one.requests >= LEAST_REQUESTS:
            by_hardware.setdefault(inputs.hardware[place], []).append(one)  # type: ignore[attr-defined]
    used = 0
    shape = inputs.buckets.shape
    for hardware, found in by_hardware.items():
        weight = np.array([one.requests for one in found], float)
        level = float(np.average([math.log(one.factor) for one in found], weights=weight))
        # The interval of a correction is 1.1 standard deviations.
        deviation = min(one.deviation for one in found) * DECILE / INTERVAL
        variance = np.zeros((3, *shape))
        variance[0] = deviation**2
        correction = Correction(
            level=np.full(shape, level),
            slope=np.zeros(shape),
            variance=variance,
            least_batch=1.0,
            most_batch=_ANY_BATCH,
        )
        where = np.array([other == hardware for other in inputs.hardware])
        if any(engine and engine.source != "estimated" for engine in np.array(profile.engines, object)[where]):
            continue
        profile = with_corrected_types(profile, inputs, hardware, correction, where)  # type: ignore[arg-type]
        used += 1
    source = f"{profile.source}, corrected by live traffic of {used} kinds of replicas" if used else profile.source
    return replace(profile, source=source, cautions=(*profile.cautions, *cautions))
