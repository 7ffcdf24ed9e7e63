"""What is measured: a replica type in a fleet, the traffic that it is for, and how load points become a profile."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.errors import Caution, InputError, unknown
from melange.measure.steps import EngineLimits, fit_engine, one_layer, replicas_with, spread_at
from melange.plan.options import Options
from melange.profile.anchor import anchor, planned_sizes, with_searched_rates
from melange.profile.correction import INTERVAL
from melange.profile.measurement import Measurement, split_name
from melange.profile.profile import ANCHORED, Profile, ReplicaType
from melange.replica.capacity import max_request_rate
from melange.replica.era import DEFAULT_ENGINE
from melange.replica.reasons import why_zero
from melange.slo import Slo
from melange.workload.workload import Mask, Workload

# What an instance is said to cost where nobody says it [USD/h].
UNKNOWN_COST_PER_H = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a campaign measures, and what for.

    Parameters
    ----------
    replica_type
        Name of the replica type that the server is one of.
    workload
        The traffic; its buckets are measured at the sizes that they are planned for.
    slo
        The objective.
    options
        What a plan must respect.
    profile_of
        What is known of all replica types after some load points: None where nothing is.
    cost_per_h
        Price of the instance that the server runs on [USD/h]; None where it is not known.
    """

    replica_type: str
    workload: Workload
    slo: Slo
    options: Options
    profile_of: Callable[[Sequence[Measurement]], Profile | None]
    cost_per_h: float | None = None

    def __post_init__(self) -> None:
        if self.workload.buckets.is_ordinal:
            raise InputError("measure: the buckets are numbered and say no token counts", hint="give workload.buckets")

    def size(self, bucket: tuple[int, int]) -> tuple[int, int]:
        """Tokens in and out of the requests that stand for a bucket."""
        inputs, outputs = self.workload.input_tokens[bucket], self.workload.output_tokens[bucket]
        return max(1, round(float(inputs))), max(1, round(float(outputs)))


def same_kind(profile: Profile, name: str) -> Mask:
    """Replica types (R,) that differ from the named one in price and place only."""
    one = profile.replica_types[profile.index(name)]
    key = _kind(one)
    return np.array([_kind(other) == key for other in profile.replica_types])


def _kind(one: ReplicaType) -> tuple[Any, ...]:
    link = one.offer.interconnect if one.tensor_parallel > 1 else ""
    return one.offer.accelerator, one.tensor_parallel, link, one.engine, one.variant


def service_subject(
    name: str,
    model: Model,
    offers: Sequence[Offer],
    slo: Slo,
    workload: Workload,
    options: Options,
    *,
    anchors: Sequence[Measurement] = (),
    accelerators: Mapping[str, Accelerator] | None = None,
    engine: str = DEFAULT_ENGINE,
    **settings: Any,
) -> Subject:
    """A replica type of a service, whose estimates load points correct.

    Parameters
    ----------
    name
        Of the replica type; or of an accelerator, or ``A10G tp2``, where one replica type is of it.
    model, offers, slo, workload, options, engine, accelerators
        The service.
    anchors
        Load points of other replica types, or of earlier tests.
    settings
        Of :func:`~melange.profile.anchor.anchor`: ``tensor_parallel``, ``variants``, ``step_times``.

    Raises
    ------
    InputError
        As of ``anchor``; a name that is not known.
    """

    def profile_of(points: Sequence[Measurement]) -> Profile:
        searched = [point for point in points if point.max_request_rate is not None]
        loads = [*anchors, *(point for point in points if point.max_request_rate is None)]
        profile = anchor(
            model, offers, slo.on_mean(), workload, loads, engine=engine, accelerators=accelerators, **settings
        )
        if not searched:
            return _simulated(profile, workload, slo)
        where = same_kind(profile, searched[0].replica_type)
        profile, cautions = with_searched_rates(profile, planned_sizes(workload), slo, searched, where)
        return _simulated(replace(profile, cautions=(*profile.cautions, *cautions)), workload, slo)

    estimated = profile_of(())
    found = _named(estimated, name)
    return Subject(
        replica_type=found.name,
        workload=workload,
        slo=slo,
        options=options,
        profile_of=profile_of,
        cost_per_h=found.cost_per_h,
    )


def _simulated(profile: Profile, workload: Workload, slo: Slo) -> Profile:
    """The profile with percentiles found by simulation, where the objective is one."""
    if slo.is_on_mean:
        return replace(profile, slo=slo)
    from melange.profile.percentiles import with_simulated_rates

    return with_simulated_rates(profile, workload, slo)


def _named(profile: Profile, name: str) -> ReplicaType:
    """The replica type of that name, or the cheapest of those with that accelerator and degree."""
    for one in profile.replica_types:
        if one.name == name:
            return one
    if not name:
        listed = ", ".join(sorted({one.offer.accelerator for one in profile.replica_types}))
        raise InputError(
            "measure: which replica type the server is one of must be said",
            hint=f"--replica-type, with the name of one or of its accelerator: {listed}",
        )
    accelerator, degree = split_name(name)
    fits = [
        one
        for one in profile.replica_types
        if one.offer.accelerator == accelerator and one.tensor_parallel == degree and not one.variant
    ]
    if not fits:
        names = {one.name for one in profile.replica_types} | {one.offer.accelerator for one in profile.replica_types}
        raise unknown("replica type", name, names, place="--replica-type")
    return min(fits, key=lambda one: one.cost_per_h / one.replicas_per_instance)


def server_subject(
    name: str,
    slo: Slo,
    workload: Workload,
    options: Options,
    limits: EngineLimits,
    *,
    accelerator: str = "",
    cost_per_h: float | None = None,
    engine: str = "",
    model: str = "",
) -> Subject:
    """A server of which nothing is known but what it does; it is the only replica type there is.

    Parameters
    ----------
    name
        What to call the replica type.
    slo, workload, options
        The objective, the traffic, what a plan must respect.
    limits
        What its engine allows, as far as it is known.
    accelerator, engine, model
        Names that the profile carries.
    cost_per_h
        Price of the instance that it runs on [USD/h]; None: 1, with a caution.
    """
    offer = Offer(
        provider="",
        region="",
        instance_type=name,
        accelerator=accelerator or "unknown",
        accelerators=1,
        cost_per_h=cost_per_h or UNKNOWN_COST_PER_H,
        source="command line" if cost_per_h else "not known",
    )
    item = ReplicaType(name=name, offer=offer, engine=engine)

    def profile_of(points: Sequence[Measurement]) -> Profile | None:
        loads = [point for point in points if point.max_request_rate is None]
        if not loads:
            return None
        profile = _fitted(item, loads, slo, workload, limits, model)
        if cost_per_h is None:
            what = "nobody said what the instance costs: 1 USD/h stands for it; give --cost-per-h"
            profile = replace(profile, cautions=(*profile.cautions, Caution("price", what)))
        searched = [point for point in points if point.max_request_rate is not None]
        profile, cautions = with_searched_rates(profile, planned_sizes(workload), slo, searched, np.ones(1, bool))
        return _simulated(replace(profile, cautions=(*profile.cautions, *cautions)), workload, slo)

    return Subject(
        replica_type=name, workload=workload, slo=slo, options=options, profile_of=profile_of, cost_per_h=cost_per_h
    )


def _fitted(
    item: ReplicaType, points: Sequence[Measurement], slo: Slo, workload: Workload, limits: EngineLimits, model: str
) -> Profile:
    """Rates of all buckets by steps that were fitted to load points, under the limits on the mean."""
    engine = fit_engine(points, limits)
    sizes, shape = planned_sizes(workload), one_layer(limits)
    unsure = np.exp(INTERVAL * spread_at(engine, points, sizes))
    mid, low, high = (
        max_request_rate(replicas_with(engine, factor), shape, sizes, slo.limits)
        for factor in (1.0, unsure, 1 / unsure)
    )
    reasons, reason = why_zero(mid, replicas_with(engine), shape, sizes, slo.limits, [""])
    return Profile(
        replica_types=(item,),
        buckets=workload.buckets,
        max_request_rate=mid,
        low=np.minimum(low, mid),
        high=np.maximum(high, mid),
        provenance=np.full(mid.shape, ANCHORED, np.int8),
        reasons=reasons,
        reason=reason,
        slo=slo.on_mean(),
        model=model,
        source=f"step times fitted to {len(points)} load points of the server itself",
        engines=(engine,),
    )


def latency_bound_s(slo: Slo, output_tokens: int) -> float:
    """About what a request takes where the SLO is just held [s]; infinite where it limits the first token only."""
    tpot_s = slo.tpot_s * output_tokens + (slo.ttft_s or 0.0) if slo.tpot_s else math.inf
    ntpot_s = slo.ntpot_s * output_tokens if slo.ntpot_s else math.inf
    return min(tpot_s, ntpot_s, slo.latency_s or math.inf)
