"""Step times of live replicas compared with the plan's, and estimates corrected by them."""

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
from melange.units import count_of

# Fewest requests to use: from this number on, a factor is accurate to a tenth (bench/regret.py). Chosen by judgment.
LEAST_REQUESTS = 50
# Standard deviation of the logarithm that remains with any number of requests at one load: the model has a small error
# at every size and batch size. Near a measured point the median error is 5 to 6 % (docs/anchors.md).
_LEFT = 0.05
# Largest logarithm of observed over planned requests in flight: beyond it, the uncertainty does not increase further.
_MOST_AWAY = 2.0
# A correction holds for all batch sizes.
_ANY_BATCH = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFactor:
    """Step times of the live replicas of one type, relative to the plan's.

    Parameters
    ----------
    replica_type
        Its name in the plan.
    factor
        Observed over estimated step time; 1 if there was too little traffic.
    low, high
        Ends of its 80 % interval: that of the estimate if nothing was observed.
    requests
        Number of completions that the factor is based on.
    in_flight
        Mean number of requests in flight on a replica at that time.
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
    """Combine live requests with the estimate of a type's step times.

    The result is the product of two normal distributions of the logarithm: that of the estimate, and that of the mean
    of the requests. Requests that run together share their steps, so all requests in flight count as one. Observations
    far from the planned load have the same mean, but a larger variance.

    Parameters
    ----------
    name
        Name of the replica type.
    interval
        Ratio of actual to estimated step time at its 10 % and 90 % quantile, before any observation.
    requests
        Number of completions.
    log_ratio, log_variance
        Mean and variance of the logarithm of observed over expected time per token.
    in_flight, planned_in_flight
        Requests in flight on a replica, as observed and as planned.

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
    """Read the factors that a balancer serves as ``/factors.json``.

    Raises
    ------
    InputError
        There is no such file, or it is not such a document; the error names the file and the field.
    """
    return read_as(path, "factors", factors_from_json)


def factors_from_json(content: Json) -> tuple[StepFactor, ...]:
    """From the JSON object that a balancer writes."""
    return tuple(record(StepFactor, one, place) for place, one in items(content.get("factors", ()), "factors"))


def with_observed(profile: Profile, inputs: EstimateInputs, factors: Sequence[StepFactor]) -> Profile:
    """The profile with estimates corrected on the hardware of observed types; measured and anchored cells stay.

    Estimates for other hardware change by the error that they have in common, and remain estimates: otherwise a plan
    would replace a type that was observed to be slow with a type that was merely never observed.

    Parameters
    ----------
    profile
        The estimates for these inputs.
    factors
        The factors by replica type; factors based on too few requests change nothing.
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
            own = _variance(inputs, hardware) - min(spread().common ** 2, _variance(inputs, hardware))
            found = _correction(inputs, level, math.sqrt(own + variance))
            profile = with_corrected_types(profile, inputs, hardware, found, where, ESTIMATED)
    source = (
        f"{profile.source}, corrected by live traffic of {count_of(len(seen), 'kind')} of replicas"
        if seen
        else profile.source
    )
    return replace(profile, source=source, cautions=(*profile.cautions, *cautions))


def _by_hardware(
    inputs: EstimateInputs, factors: Sequence[StepFactor]
) -> tuple[dict[Hardware, tuple[float, float]], list[Caution]]:
    """Logarithm of the factor of each observed hardware with its standard deviation, and cautions about the others."""
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
    """Variance of the logarithm of true over estimated step time on this hardware."""
    residuals = inputs.residuals_on(hardware)
    return (math.log(residuals.high / residuals.low) / (2 * DECILE)) ** 2


def _in_common(inputs: EstimateInputs, seen: Mapping[Hardware, tuple[float, float]]) -> tuple[float, float]:
    """Mean and variance of the error common to all types, given the observed types: normal distributions."""
    common = spread().common ** 2
    precision, total = 1.0 / common, 0.0
    for hardware, (level, deviation) in seen.items():
        own = max(_variance(inputs, hardware) - common, 0.0) + deviation**2
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
