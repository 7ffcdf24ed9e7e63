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
from melange.profile.profile import ESTIMATED, PROVENANCES, Profile
from melange.records import items, record
from melange.replica.hardware import Hardware
from melange.replica.spread import DECILE, spread

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

    Estimates of other hardware move by what a source's errors have in common, and stay estimates: else a plan would
    leave a type that was seen to be slow for one that only nobody has seen.

    Parameters
    ----------
    profile
        Estimates of the inputs.
    factors
        By replica type; those that rest on too few requests change nothing.
    """
    seen, cautions = _by_hardware(inputs, factors)
    for hardware in inputs.distinct_hardware:
        where = np.array([other == hardware for other in inputs.hardware])
        engines = [one for one, is_here in zip(profile.engines, where, strict=True) if is_here and one]
        if not engines or engines[0].source != PROVENANCES[ESTIMATED]:
            continue
        if hardware in seen:
            profile = with_corrected_types(profile, inputs, hardware, _correction(inputs, *seen[hardware]), where)
        elif seen:
            level, variance = _in_common(inputs, seen)
            own = _variance(inputs, hardware) - min(spread().source ** 2, _variance(inputs, hardware))
            found = _correction(inputs, level, math.sqrt(own + variance))
            profile = with_corrected_types(profile, inputs, hardware, found, where, ESTIMATED)
    source = f"{profile.source}, corrected by live traffic of {len(seen)} kinds of replicas" if seen else profile.source
    return replace(profile, source=source, cautions=(*profile.cautions, *cautions))


def _by_hardware(
    inputs: EstimateInputs, factors: Sequence[StepFactor]
) -> tuple[dict[Hardware, tuple[float, float]], list[Caution]]:
    """Logarithm of the factor of each observed hardware, with its standard deviation, and cautions on the others."""
    found: dict[Hardware, list[StepFactor]] = {}
    cautions = []
    for one in factors:
        places = [
            r for r, known in enumerate(inputs.replica_types) if one.replica_type in (known.name, known.type_name)
        ]
        if not places:
            what = f"factors: {one.replica_type} is not among the offers of the service; its factor is not used"
            cautions.append(Caution("observed", what))
        elif one.requests >= LEAST_REQUESTS:
            found.setdefault(inputs.hardware[places[0]], []).append(one)
    seen = {}
    for hardware, listed in found.items():
        level = np.average([math.log(one.factor) for one in listed], weights=[one.requests for one in listed])
        seen[hardware] = float(level), min(one.deviation for one in listed)
    return seen, cautions


def _variance(inputs: EstimateInputs, hardware: Hardware) -> float:
    """Variance of the logarithm of true over estimated steps on some hardware."""
    residuals = inputs.residuals_on(hardware)
    return (math.log(residuals.high / residuals.low) / (2 * DECILE)) ** 2


def _in_common(inputs: EstimateInputs, seen: Mapping[Hardware, tuple[float, float]]) -> tuple[float, float]:
    """Mean and variance of the error that all types have in common, after some were seen: normal distributions."""
    source = spread().source ** 2
    precision, total = 1.0 / source, 0.0
    for hardware, (level, deviation) in seen.items():
        own = max(_variance(inputs, hardware) - source, 0.0) + deviation**2
        precision += 1.0 / own
        total += level / own
    return total / precision, 1.0 / precision


def _correction(inputs: EstimateInputs, level: float, deviation: float) -> Correction:
    """The same correction for all sizes and batches."""
    shape = inputs.buckets.shape
    variance = np.zeros((3, *shape))
    # The interval of a correction is 1.1 standard deviations.
    variance[0] = (deviation * DECILE / INTERVAL) ** 2
    return Correction(
        level=np.full(shape, level),
        slope=np.zeros(shape),
        variance=variance,
        least_batch=1.0,
        most_batch=_ANY_BATCH,
    )
