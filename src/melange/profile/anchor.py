"""Estimates corrected by a few measured points.

Measured points show by what factor a replica's steps are longer than predicted. A ridge regression
(:mod:`melange.profile.correction`) extends this to all sizes and batch sizes, and the closed form is solved again with
the corrected steps. The correction applies to the step time, not to the rate: under a tight limit, a step that is 10 %
longer may halve the rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.errors import Caution
from melange.profile.comparison import samples_of, without_doubtful
from melange.profile.correction import INTERVAL, REFERENCE_BATCH, Correction, correction, prior_variance
from melange.profile.estimate import estimate_from
from melange.profile.estimate_inputs import OWN, EstimateInputs
from melange.profile.in_flight import batch_at
from melange.profile.matching import points_by_hardware
from melange.profile.measurement import Measurement
from melange.profile.profile import ANCHORED, PROVENANCES, Profile
from melange.profile.searched_rates import with_searched_rates
from melange.replica.capacity import Replicas, Sizes, max_request_rate
from melange.replica.engine import Engine
from melange.replica.era import DEFAULT_ENGINE, Era
from melange.replica.hardware import Hardware
from melange.replica.reasons import why_zero
from melange.replica.step import scaled
from melange.slo import Slo
from melange.workload.workload import Array, Buckets, Mask, Workload


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
    """The rate that one replica of each type serves within the SLO, estimated and corrected by measured points.

    All cells of replica types whose hardware was measured become *anchored*, with intervals that shrink with the
    number of points and with their proximity; a cell whose maximum rate was searched for under this SLO becomes
    *measured*. All other cells are as in :func:`~melange.profile.estimate.estimate`, which has the same parameters.

    Parameters
    ----------
    measurements
        Load points; each must state the replica type or accelerator that was measured.

    Raises
    ------
    InputError
        As for ``estimate``; or a measurement does not state what was measured, or names something unknown.
    """
    return anchor_from(
        EstimateInputs(
            model=model,
            offers=offers,
            slo=slo,
            sizes=sizes,
            engine=engine,
            tensor_parallel=tensor_parallel,
            variants=variants,
            step_times=step_times,
            accelerators=accelerators,
        ),
        measurements,
    )


def anchor_from(
    inputs: EstimateInputs,
    measurements: Sequence[Measurement],
    searched: Slo | None = None,
    *,
    doubtful: bool = False,
) -> Profile:
    """:func:`anchor` for inputs given as one value.

    ``searched`` is the SLO under which maximum rates were searched for, if it differs from the SLO of the inputs: all
    other rates are then found by simulation, starting from an estimate under the same limits on the mean. ``doubtful``
    also uses points that are probably fast because of prefix caching or speculation.
    """
    base = estimate_from(inputs)
    matched, cautions = points_by_hardware(inputs, measurements)
    profile, used = base, 0
    for hardware, found in matched.items():
        points: Sequence[Measurement] = found
        if not doubtful:
            points, unsure = without_doubtful(inputs.replicas_on([hardware]), inputs.model, found)
            cautions += unsure
        used += len(points)
        where = np.array([other == hardware for other in inputs.hardware])
        profile, doubts = _anchored(profile, inputs, hardware, points, where)
        profile, unused = with_searched_rates(profile, inputs.planned_sizes, searched or inputs.slo, points, where)
        cautions += doubts + unused
    return replace(
        profile,
        source=f"{base.source}, corrected by {_counted(used, 'measured point')}" if used else base.source,
        cautions=(*base.cautions, *cautions),
    )


def _anchored(
    profile: Profile,
    inputs: EstimateInputs,
    hardware: Hardware,
    points: Sequence[Measurement],
    where: Mask,
) -> tuple[Profile, list[Caution]]:
    """The profile with the cells of all types with this hardware (R,) anchored, and cautions about doubtful points."""
    replicas, sizes = inputs.replicas_on([hardware]), inputs.sizes_on([hardware])
    samples, cautions = samples_of(replicas, inputs.model, points)
    if not samples:
        return profile, cautions
    variance = prior_variance(inputs.residuals_on(hardware))
    found = correction(samples, sizes.inputs[0], sizes.outputs[0], variance)
    return with_corrected_types(profile, inputs, hardware, found, where), cautions


def with_corrected_types(
    profile: Profile, inputs: EstimateInputs, hardware: Hardware, found: Correction, where: Mask, kind: int = ANCHORED
) -> Profile:
    """The profile with the cells of all types with this hardware (R,) corrected; ``kind`` is their new provenance."""
    replicas, sizes, limits = inputs.replicas_on([hardware]), inputs.sizes_on([hardware]), inputs.limits
    corrected = with_correction(replicas, found)
    rates = anchored_rates(corrected, inputs.model, sizes, limits, found)
    obstacles = [inputs.obstacle_on(hardware)]
    sentences, index = why_zero(rates[0], corrected, inputs.model, sizes, limits, obstacles)
    arrays = {}
    for name, values in zip(("max_request_rate", "low", "high", "provenance"), (*rates, kind), strict=True):
        arrays[name] = getattr(profile, name).copy()
        arrays[name][where] = values
    reason = profile.reason.copy()
    reason[where] = np.where(index > 0, index + len(profile.reasons), 0)
    engines = tuple(
        _anchored_engine(engine, found, inputs.weight, PROVENANCES[kind]) if engine and is_here else engine
        for engine, is_here in zip(profile.engines, where, strict=True)
    )
    reasons = (*profile.reasons, *sentences)
    return replace(profile, **arrays, reasons=reasons, reason=reason, engines=engines)


def with_correction(replicas: Replicas, found: Correction) -> Replicas:
    """The same replica with corrected steps."""
    cost = replace(
        scaled(replicas.cost, found.factor()[None]),
        batch_power=found.slope[None],
        least_batch=found.least_batch,
        most_batch=found.most_batch,
    )
    return replace(replicas, cost=cost)


def _anchored_engine(engine: Engine, found: Correction, weight: Array, source: str) -> Engine:
    """The engine with steps corrected as for the mean request; ``weight`` is the frequency of each size (I, O).

    A replica that serves several sizes at once has one step for all of them, so their corrections are averaged.
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
    return replace(engine, cost=cost, fast=fast, slow=slow, source=source)


def anchored_rates(
    corrected: Replicas, model: Model, sizes: Sizes, limits: Mapping[str, float | Array], found: Correction
) -> tuple[Array, Array, Array]:
    """Rates with corrected steps, and with steps as slow and as fast as is still plausible (R, I, O) [1/s]."""
    mid = max_request_rate(corrected, model, sizes, limits)
    batch = batch_at(corrected, model, sizes, mid)
    spread = found.spread(np.clip(batch, found.least_batch, found.most_batch))
    low, high = (
        max_request_rate(
            replace(corrected, cost=scaled(corrected.cost, np.exp(sign * INTERVAL * spread))), model, sizes, limits
        )
        for sign in (1.0, -1.0)
    )
    return mid, np.minimum(low, mid), np.maximum(high, mid)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"
