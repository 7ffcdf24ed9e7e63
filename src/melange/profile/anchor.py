"""Estimates corrected by a handful of measured points.

Measured points say how much longer a replica's steps take than the model has it; a ridge regression
(:mod:`melange.profile.correction`) spreads that over all sizes and batches, and the closed form is solved again with
the corrected steps. The correction acts on the step and not on the rate: under a tight limit a step 10 % longer may
halve the rate.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import find_model
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.catalog.variants import variant_of
from melange.errors import Caution, InputError, unknown
from melange.profile.comparison import samples_of
from melange.profile.correction import INTERVAL, REFERENCE_BATCH, Correction, correction, prior_variance
from melange.profile.estimate import OWN, estimate, step_times_of
from melange.profile.measurement import Measurement, split_name
from melange.profile.profile import ANCHORED, MEASURED, Profile
from melange.replica.capacity import (
    BISECTIONS,
    IDLE_BATCH,
    Array,
    Replicas,
    Sizes,
    largest_batch,
    max_request_rate,
    mean_step_s,
    prompt_times_s,
)
from melange.replica.engine import Engine
from melange.replica.era import DEFAULT_ENGINE, Era, find_era
from melange.replica.hardware import Hardware, hardware_of, replicas_of
from melange.replica.reasons import obstacle, why_zero
from melange.replica.step import scaled
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

# A searched maximum rate stands for a bucket whose planned size is within this share of the measured one.
SAME_SIZE = 0.1


def anchor(
    model: Model,
    offers: Sequence[Offer],
    slo: Slo,
    sizes: Workload | Buckets,
    measurements: Sequence[Measurement],
    *,
    engine: str | Era = DEFAULT_ENGINE,
    tensor_parallel: Sequence[int] | int | None = None,
    variants: Sequence[str] = (),
    step_times: str = OWN,
    accelerators: Mapping[str, Accelerator] | None = None,
) -> Profile:
    """What one replica of each type can serve within the SLO, estimated and corrected by measured points.

    All cells of replica types whose hardware was measured become *anchored*, with intervals that shrink with the
    number of points and with how near they are; a cell whose maximum rate was searched for under this SLO becomes
    *measured*. The others stay as :func:`~melange.profile.estimate.estimate` has them, whose parameters these are.

    Parameters
    ----------
    measurements
        Load points; each must say which replica type or accelerator was measured.

    Raises
    ------
    InputError
        As of ``estimate``; a measurement that does not say what was measured, or names what is not there.
    """
    era = engine if isinstance(engine, Era) else find_era(engine)
    base = estimate(
        model,
        offers,
        slo,
        sizes,
        engine=engine,
        tensor_parallel=tensor_parallel,
        variants=variants,
        step_times=step_times,
        accelerators=accelerators,
    )
    facts = _bundled() if accelerators is None else accelerators
    service = _Service(
        model=model,
        slo=slo,
        sizes=planned_sizes(sizes),
        weight=np.ones(base.buckets.shape) if isinstance(sizes, Buckets) else sizes.request_rate,
        era=era,
        facts_by_name=facts,
        step_times=step_times,
    )
    hardware = [hardware_of(one.offer, one.tensor_parallel, facts, one.variant) for one in base.replica_types]
    served = {one.variant: variant_of(model, one.variant) for one in base.replica_types}
    used, cautions = _usable(measurements, served, base.replica_types[0].engine, era)
    points_by_hardware: dict[Hardware, list[Measurement]] = defaultdict(list)
    for point in used:
        points_by_hardware[_measured_hardware(point, base, hardware, facts, served)].append(point)
    profile = base
    for one, points in points_by_hardware.items():
        where = np.array([other == one for other in hardware])
        profile, said = _with_points(profile, service, one, points, where)
        cautions += said
    return replace(
        profile,
        source=f"{base.source}, corrected by {_counted(len(used), 'measured point')}" if used else base.source,
        cautions=(*base.cautions, *cautions),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Service:
    """What is served, how fast, and by which engine."""

    model: Model
    slo: Slo
    sizes: Sizes
    weight: Array
    era: Era
    facts_by_name: Mapping[str, Accelerator]
    step_times: str


def _bundled() -> Mapping[str, Accelerator]:
    from melange.catalog.bundled import accelerators

    return accelerators()


def planned_sizes(sizes: Workload | Buckets) -> Sizes:
    """The sizes that buckets are planned for: a workload's own, or upper edges (1, I, O)."""
    if isinstance(sizes, Buckets):
        inputs, outputs = sizes.upper_sizes()
    else:
        inputs, outputs = sizes.input_tokens, sizes.output_tokens
    return Sizes(inputs=inputs[None], outputs=outputs[None])


def _usable(
    measurements: Sequence[Measurement], served: Mapping[str, Model], engine: str, era: Era
) -> tuple[list[Measurement], list[Caution]]:
    """Points of this model and engine, and a word on the others and on doubtful ones."""
    used, cautions = [], []
    for point in measurements:
        if point.engine and find_era(point.engine).name != era.name:
            what = f"{point.source}: measured with {point.engine}, and the service runs {engine}; left out"
            cautions.append(Caution("anchor", what))
        elif point.model and not _served_variants(point.model, served):
            what = f"{point.source}: measured {point.model}, and {served[''].name} is served"
            cautions.append(Caution("anchor", f"{what}{_in_words(served)}; left out"))
        else:
            used.append(point)
            if point.failed:
                what = f"{point.source}: {point.failed} requests failed; measure below the load at which they do"
                cautions.append(Caution("anchor", what))
    return used, cautions


def _served_variants(name: str, served: Mapping[str, Model]) -> list[str]:
    """Variants that a measured model may be; all where its name is not known: servers call theirs what they like."""
    try:
        found = find_model(name or "unnamed")
    except InputError:
        return list(served)
    shape = ("layers", "hidden_size", "heads", "kv_heads", "experts", "vocabulary_size")
    return [
        variant
        for variant, model in served.items()
        if all(getattr(found, one) == getattr(model, one) for one in shape)
        and math.isclose(found.weight_bytes(), model.weight_bytes(), rel_tol=1e-3)
    ]


def _in_words(served: Mapping[str, Model]) -> str:
    return f" in {', '.join(dict.fromkeys(model.weight_dtype for model in served.values()))}"


def _measured_hardware(
    point: Measurement,
    profile: Profile,
    hardware: Sequence[Hardware],
    facts_by_name: Mapping[str, Accelerator],
    served: Mapping[str, Model],
) -> Hardware:
    """The hardware of a profile that a point was measured on."""
    names = [one.name for one in profile.replica_types]
    if point.replica_type in names:
        return hardware[names.index(point.replica_type)]
    name = point.accelerator or point.replica_type
    if not name:
        raise InputError(
            f"{point.source}: does not say which replica was measured",
            hint="name it: --anchor A10G=results.json, or 'A10G tp2=results.json' for two of it",
        )
    accelerator, degree = split_name(name)
    degree = point.tensor_parallel or degree
    wanted = (accelerator, degree, _served_variants(point.model, served)[0])
    matches = {one for one in hardware if (one.accelerator, one.tensor_parallel, one.variant) == wanted}
    if len(matches) > 1:
        raise InputError(
            f"{point.source}: {accelerator} x {degree} is offered with two kinds of link; name the replica type",
            hint="melange profile lists replica types",
        )
    if matches:
        return matches.pop()
    degrees = sorted({one.tensor_parallel for one in hardware if one.accelerator == accelerator})
    if degrees:
        listed = ", ".join(map(str, degrees))
        raise InputError(f"{point.source}: {accelerator} is offered split over {listed}, not over {degree}")
    if accelerator in facts_by_name:
        raise InputError(
            f"{point.source}: {accelerator} is not among the offers of the service",
            hint="add it to offers.gpus, or leave the file out",
        )
    raise unknown("replica type or accelerator", name, [*names, *facts_by_name], place=point.source)


def _with_points(
    profile: Profile, service: _Service, hardware: Hardware, points: Sequence[Measurement], where: Array
) -> tuple[Profile, list[Caution]]:
    """The profile with the cells of all types of that hardware (R,) anchored or measured."""
    model, era = service.model, service.era
    tables = step_times_of(service.step_times, model, [hardware], service.facts_by_name, era)
    replicas = replicas_of(model, [hardware], service.facts_by_name, era, tables.cost_by_hardware if tables else None)
    own = era.residuals_of(model, hardware.accelerator)
    residuals = tables.residuals_on(hardware, own) if tables else own
    samples, cautions = samples_of(replicas, model, points)
    arrays = {name: getattr(profile, name).copy() for name in ("max_request_rate", "low", "high", "provenance")}
    reasons, reason = profile.reasons, profile.reason.copy()
    engines = profile.engines
    if samples:
        sizes = service.sizes
        found = correction(samples, sizes.inputs[0], sizes.outputs[0], prior_variance(residuals))
        corrected = with_correction(replicas, found)
        mid, low, high = anchored_rates(corrected, model, sizes, service.slo, found)
        facts = service.facts_by_name[hardware.accelerator]
        obstacles = [obstacle(variant_of(model, hardware.variant), facts, hardware.tensor_parallel, era.settings)]
        sentences, index = why_zero(mid, corrected, model, sizes, service.slo.limits, obstacles)
        for name, values in (("max_request_rate", mid), ("low", low), ("high", high)):
            arrays[name][where] = values
        arrays["provenance"][where] = ANCHORED
        reason[where] = np.where(index > 0, index + len(reasons), 0)
        reasons = (*reasons, *sentences)
        pairs = zip(engines, where, strict=True)
        engines = tuple(anchored_engine(one, found, service.weight) if one and here else one for one, here in pairs)
    profile = replace(profile, **arrays, reasons=reasons, reason=reason, engines=engines)
    profile, said = with_searched_rates(profile, service.sizes, service.slo, points, where)
    return profile, cautions + said


def with_searched_rates(
    profile: Profile, sizes: Sizes, slo: Slo, points: Sequence[Measurement], where: npt.NDArray[Any]
) -> tuple[Profile, list[Caution]]:
    """The profile with maximum rates that were searched for in place of others, and a word on those of no use.

    Parameters
    ----------
    sizes
        What buckets are planned for (1, I, O).
    slo
        The objective that the profile holds under.
    points
        Those with a ``max_request_rate`` count.
    where
        Replica types that they are of (R,), true or false.
    """
    arrays = {name: getattr(profile, name).copy() for name in ("max_request_rate", "low", "high", "provenance")}
    reasons, reason = profile.reasons, profile.reason.copy()
    cautions = []
    for point in points:
        if point.max_request_rate is None:
            continue
        cell, why = _searched_cell(point, sizes, slo)
        if cell is None:
            cautions.append(Caution("anchor", f"{point.source}: its max_request_rate {why}; not used"))
            continue
        low, middle, high = point.rate_interval
        # Where no rate failed, what is left is how fast the steps may be.
        least_high = np.maximum(middle, arrays["high"][where, cell[0], cell[1]]) if math.isinf(high) else high
        for name, value in (("low", low), ("max_request_rate", middle), ("high", least_high)):
            arrays[name][where, cell[0], cell[1]] = value
        arrays["provenance"][where, cell[0], cell[1]] = MEASURED
        reason[where, cell[0], cell[1]] = 0
        if point.max_request_rate == 0:
            reason[where, cell[0], cell[1]] = len(reasons)
            reasons = (*reasons, f"measured: not even one request alone holds {slo}")
    return replace(profile, **arrays, reasons=reasons, reason=reason), cautions


def _searched_cell(point: Measurement, sizes: Sizes, slo: Slo) -> tuple[tuple[int, int] | None, str]:
    """The cell whose maximum rate a point tells, planned at about its size for the same SLO; or why there is none."""
    if point.slo != slo:
        return None, f"holds for {point.slo}, and the service asks for {slo}"
    inputs, outputs = sizes.inputs[0], sizes.outputs[0]
    off = np.maximum(np.abs(inputs / point.input_tokens - 1), np.abs(outputs / point.output_tokens - 1))
    i, o = (int(place) for place in np.unravel_index(int(off.argmin()), off.shape))
    if off[i, o] > SAME_SIZE:
        nearest = f"{inputs[i, o]:,.0f} in and {outputs[i, o]:,.0f} out"
        return None, f"is of a size that no bucket is planned at (nearest: {nearest})"
    return (i, o), ""


def with_correction(replicas: Replicas, found: Correction) -> Replicas:
    """The same replica with its steps corrected."""
    cost = replace(
        scaled(replicas.cost, found.factor()[None]),
        batch_power=found.slope[None],
        least_batch=found.least_batch,
        most_batch=found.most_batch,
    )
    return replace(replicas, cost=cost)


def anchored_engine(engine: Engine, found: Correction, weight: Array) -> Engine:
    """The engine with its steps corrected as they are for the mean request; ``weight`` is how often each comes (I, O).

    A replica that serves sizes side by side has one step for all of them, so their corrections are averaged.
    """
    share = weight / weight.sum()
    level, slope = float((share * found.level).sum()), float((share * found.slope).sum())
    batch = np.full_like(share, math.sqrt(found.least_batch * found.most_batch))
    spread = float((share * found.spread(batch)).sum())
    cost = replace(
        scaled(engine.cost, math.exp(level - slope * math.log(REFERENCE_BATCH))),
        batch_power=slope,
        least_batch=found.least_batch,
        most_batch=found.most_batch,
    )
    fast, slow = math.exp(-INTERVAL * spread), math.exp(INTERVAL * spread)
    return replace(engine, cost=cost, fast=fast, slow=slow, source="anchored")


def anchored_rates(
    corrected: Replicas, model: Model, sizes: Sizes, slo: Slo, found: Correction
) -> tuple[Array, Array, Array]:
    """Rates with corrected steps, and with steps as slow and as fast as is still likely (R, I, O) [1/s]."""
    mid = max_request_rate(corrected, model, sizes, slo.limits)
    batch = batch_at(corrected, model, sizes, mid)
    spread = found.spread(np.clip(batch, found.least_batch, found.most_batch))
    low, high = (
        max_request_rate(
            replace(corrected, cost=scaled(corrected.cost, np.exp(sign * INTERVAL * spread))), model, sizes, slo.limits
        )
        for sign in (1.0, -1.0)
    )
    return mid, np.minimum(low, mid), np.maximum(high, mid)


def batch_at(replicas: Replicas, model: Model, sizes: Sizes, rate: Array) -> Array:
    """Requests that run when so many arrive per second (R, I, O): ``B = rate o step(B)``, by bisection of log B."""
    high = np.log(np.maximum(largest_batch(replicas, model, sizes), IDLE_BATCH))
    low = np.full_like(high, math.log(IDLE_BATCH))
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        batch = np.exp(middle)
        is_enough = batch / (sizes.outputs * mean_step_s(replicas, sizes, batch)) >= rate
        low, high = np.where(is_enough, low, middle), np.where(is_enough, middle, high)
    batch = np.exp(high)
    return np.asarray(batch)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def in_flight(
    model: Model, profile: Profile, sizes: Workload | Buckets, *, engine: str | Era = DEFAULT_ENGINE
) -> Array:
    """Requests that each replica has in flight at its maximum rate (R, I, O): ``rate (prompt + o step)``, Little's law.

    Where a profile gives a rate of 0 but a high end above it, at that. Steps are the uncorrected model's.
    """
    era = engine if isinstance(engine, Era) else find_era(engine)
    facts = _bundled()
    hardware = [hardware_of(one.offer, one.tensor_parallel, facts, one.variant) for one in profile.replica_types]
    requests = planned_sizes(sizes)
    replicas = replicas_of(model, hardware, facts, era)
    rate = np.where(profile.max_request_rate > 0, profile.max_request_rate, profile.high)
    batch = batch_at(replicas, model, requests, rate)
    own_s, _ = prompt_times_s(replicas, requests, batch)
    return np.asarray(rate * own_s + batch)
