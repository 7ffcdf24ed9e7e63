"""What is measured: a replica type, its traffic, and how load points become a profile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from melange.errors import InputError, unknown
from melange.plan.options import Options
from melange.profile.anchor import anchor_from
from melange.profile.estimate_inputs import EstimateInputs, planned_sizes
from melange.profile.measurement import Measurement, split_name
from melange.profile.profile import Profile, ReplicaType
from melange.profile.rate_cache import RateCache
from melange.profile.searched_rates import with_searched_rates
from melange.replica.parallelism import Layout
from melange.slo import Slo
from melange.workload.workload import Mask, Workload

# Index of a bucket of the workload, by input and by output.
Bucket = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a campaign measures, and for which traffic and objective.

    Parameters
    ----------
    replica_type
        Name of the server's replica type.
    workload
        The traffic; each bucket is measured at the size that represents it in a plan.
    slo
        The objective.
    options
        The options that a plan must respect.
    profile_of
        Gives the profile of all replica types after some load points; None if nothing is known.
    cost_per_h
        Price of the server's instance [USD/h]; None if unknown.
    """

    replica_type: str
    workload: Workload
    slo: Slo
    options: Options
    profile_of: Callable[[Sequence[Measurement]], Profile | None]
    cost_per_h: float | None = None

    def __post_init__(self) -> None:
        if self.workload.buckets.is_ordinal:
            raise InputError(
                "measure: the buckets are only numbered, without token counts", hint="set workload.buckets"
            )

    def size(self, bucket: Bucket) -> tuple[int, int]:
        """Input and output tokens of the requests that represent a bucket."""
        inputs, outputs = self.workload.input_tokens[bucket], self.workload.output_tokens[bucket]
        return max(1, round(float(inputs))), max(1, round(float(outputs)))


def same_kind(profile: Profile, name: str) -> Mask:
    """Replica types (R,) that differ from the named one only in price and place."""
    one = profile.replica_types[profile.index(name)]
    key = _kind(one)
    return np.array([_kind(other) == key for other in profile.replica_types])


def _kind(one: ReplicaType) -> tuple[Any, ...]:
    link = one.offer.interconnect if one.layout.accelerators > 1 else ""
    return one.offer.accelerator, one.layout, link, one.engine, one.variant


def service_subject(
    name: str,
    inputs: EstimateInputs,
    slo: Slo,
    options: Options,
    *,
    anchors: Sequence[Measurement] = (),
    kept: RateCache | None = None,
) -> Subject:
    """A replica type of a service; load points correct its estimates.

    Parameters
    ----------
    name
        Name of the replica type, or of an accelerator (also as ``A10G tp2``) if only one replica type uses it.
    inputs
        The inputs of the service's estimates; they include a workload and limits on the mean.
    slo
        The objective, with its own statistic.
    options
        The options that a plan must respect.
    anchors
        Load points of other replica types, or of earlier tests.
    kept
        Simulated rates from earlier runs; None: there are none.

    Raises
    ------
    InputError
        The errors of ``anchor``, or an unknown name.
    """
    if not isinstance(inputs.sizes, Workload):
        raise TypeError("a subject is measured for a workload, and the inputs hold buckets")
    found = _named(inputs.replica_types, name)
    return Subject(
        replica_type=found.name,
        workload=inputs.sizes,
        slo=slo,
        options=options,
        profile_of=_Anchored(
            replica_type=found.name,
            inputs=inputs,
            workload=inputs.sizes,
            slo=slo,
            anchors=tuple(anchors),
            kept=RateCache() if kept is None else kept,
        ).profile_of,
        cost_per_h=found.cost_per_h,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Anchored:
    """A replica type of a service; load points correct its estimates."""

    replica_type: str
    inputs: EstimateInputs
    workload: Workload
    slo: Slo
    anchors: tuple[Measurement, ...]
    kept: RateCache

    def profile_of(self, points: Sequence[Measurement]) -> Profile:
        """The profile of all replica types after some load points."""
        loads, searched = divided(points)
        # The load test's prompts share no prefix, and a server with speculative decoding will use it for the traffic
        # too.
        profile = anchor_from(self.inputs, [*self.anchors, *loads], doubtful=True)
        where = same_kind(profile, self.replica_type)
        return completed(profile, searched, where, self.workload, self.slo, self.kept)


def divided(points: Sequence[Measurement]) -> tuple[list[Measurement], list[Measurement]]:
    """Load points at one load, and maximum rates that were found by search."""
    loads = [point for point in points if point.max_request_rate is None]
    return loads, [point for point in points if point.max_request_rate is not None]


def completed(
    profile: Profile, searched: Sequence[Measurement], where: Mask, workload: Workload, slo: Slo, kept: RateCache
) -> Profile:
    """Turn a profile under limits on the mean into one under the objective.

    Parameters
    ----------
    profile
        Rates from step times that load points have corrected.
    searched
        Maximum rates that were found under load; they replace other rates.
    where
        Replica types that the searched rates belong to (R,), true or false.
    workload, slo
        The traffic and the objective. If the objective is not on a mean, other rates come from simulation, because
        searched rates hold the objective and not its mean.
    kept
        Simulated rates from earlier runs.
    """
    profile, cautions = with_searched_rates(profile, planned_sizes(workload), slo, searched, where)
    profile = replace(profile, cautions=(*profile.cautions, *cautions))
    if slo.is_on_mean:
        return replace(profile, slo=slo)
    from melange.profile.percentiles import with_simulated_rates

    return with_simulated_rates(profile, workload, slo, kept=kept)


def _named(replica_types: Sequence[ReplicaType], name: str) -> ReplicaType:
    """The replica type of that name, or the cheapest with that accelerator and tensor-parallel degree."""
    for one in replica_types:
        if one.name == name:
            return one
    if not name:
        listed = ", ".join(sorted({one.offer.accelerator for one in replica_types}))
        raise InputError(
            "measure: the server's replica type is not given",
            hint=f"set --replica-type to a name or its accelerator: {listed}",
        )
    accelerator, degree = split_name(name)
    fits = [
        one
        for one in replica_types
        if one.offer.accelerator == accelerator and one.layout == Layout(tensor_parallel=degree) and not one.variant
    ]
    if not fits:
        names = {one.name for one in replica_types} | {one.offer.accelerator for one in replica_types}
        raise unknown("replica type", name, names, place="--replica-type")
    return min(fits, key=lambda one: one.cost_per_h / one.replicas_per_instance)


def latency_bound_s(slo: Slo, output_tokens: int) -> float:
    """Approximate latency of a request when the SLO is just met [s]; infinite if the SLO limits only TTFT."""
    tpot_s = slo.tpot_s * output_tokens + (slo.ttft_s or 0.0) if slo.tpot_s else math.inf
    ntpot_s = slo.ntpot_s * output_tokens if slo.ntpot_s else math.inf
    return min(tpot_s, ntpot_s, slo.latency_s or math.inf)
