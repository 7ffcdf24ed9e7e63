"""Estimate the capacity of each replica type from datasheets and the model's shape, without renting it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.profile.estimate_inputs import OWN, EstimateInputs
from melange.profile.profile import ESTIMATED, Profile
from melange.replica.capacity import INTERVAL_BISECTIONS, Sizes, max_request_rate
from melange.replica.engine import engines_of
from melange.replica.era import DEFAULT_ENGINE, Era
from melange.replica.reasons import why_zero
from melange.replica.step import scaled
from melange.slo import Slo
from melange.workload.workload import Array, Buckets, Mask, Workload

_NOT_SHOWN = "not estimated: only the sizes of the traffic are shown"
_Number = TypeVar("_Number", bound=np.generic)


def estimate(
    model: Model,
    offers: Sequence[Offer],
    slo: Slo,
    sizes: Workload | Buckets,
    *,
    engine: str | Era = DEFAULT_ENGINE,
    tensor_parallel: Sequence[int] | int | None = None,
    variants: Sequence[str] = (),
    step_times: str = OWN,
    accelerators: Mapping[str, Accelerator] | None = None,
) -> Profile:
    """The rate that one replica of each type serves within the SLO, by the model of ``docs/performance-model.md``.

    Parameters
    ----------
    model
        Shape of the model.
    offers
        The offers that can be rented.
    slo
        Limits on TTFT, TPOT, NTPOT or latency, of requests or of their mean. In both cases, rates are those at which
        the mean meets the limits; under limits on requests, the search for a certified plan starts from these rates.
    sizes
        A workload, whose buckets are estimated at their mean sizes, or buckets, at their upper edges.
    engine
        Name of an engine (``vllm``) or of an era (``vllm-0.2``), or an era with settings of your own.
    tensor_parallel
        Degrees to try, if the instance has enough accelerators; None: every power of two that fits the instance
        and divides the model's heads.
    variants
        Quantized variants that may be served in addition to the model as published, each a replica type of its own:
        ``fp8``, ``int8``, ``int4`` (weights), ``fp8-kv`` (KV cache), ``fp8+fp8-kv``, ... A variant that takes no fewer
        bytes than the model as published is left out.
    step_times
        ``own``, or ``aiconfigurator``: coefficients fitted to its measured operators if it has any, otherwise our own.
    accelerators
        Facts by accelerator name; None: the bundled ones.

    Returns
    -------
    Profile
        Estimated rates (R, I, O) [1/s], 0 with a reason if a type cannot serve a size. ``low`` and ``high`` are the
        results of the same calculation with every step as long as the slowest and the fastest 10 % of measured steps
        relative to this model; near a tight limit they are far apart, and ``high`` may be positive although the
        rate is 0.

    Raises
    ------
    InputError
        A percentile SLO, unknown engines, accelerators or variants, a variant that the engine cannot serve, no offers,
        a degree that no instance holds, ordinal buckets.

    Examples
    --------
    >>> from melange.catalog.bundled import find_model
    >>> llama = find_model("meta-llama/Llama-2-7b-hf")
    >>> g6 = {"provider": "aws", "region": "", "instance_type": "g6.xlarge", "accelerators": 1, "cost_per_h": 0.8}
    >>> buckets = Buckets(input_edges=(1000,), output_edges=(500,))
    >>> profile = estimate(llama, [Offer(accelerator="L4", **g6)], Slo(tpot_s=0.04), buckets)
    >>> float(profile.max_request_rate[0, 0, 0])
    0.0
    """
    return estimate_from(
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
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """The part of an estimate that a sweep shows; the rest is not computed.

    Parameters
    ----------
    interval_of
        Positions of the replica types that need ``low`` and ``high``; for all others both equal the rate.
    sizes
        The buckets that are needed (I, O); the rate of all others is 0, with this reason.
    """

    interval_of: Collection[int]
    sizes: Mask


def estimate_from(inputs: EstimateInputs, shown: Shown | None = None) -> Profile:
    """:func:`estimate` for inputs given as one value, or only the part that is shown."""
    distinct, residuals = inputs.distinct_hardware, inputs.residuals
    replicas = inputs.replicas_on(distinct)
    sizes = _wanted(inputs.sizes_on(distinct), shown)
    mid = max_request_rate(replicas, inputs.model, sizes, inputs.limits)
    low, high = _interval(inputs, mid, shown)
    reasons, reason = why_zero(mid, replicas, inputs.model, sizes, inputs.limits, list(inputs.obstacles))
    if shown is not None:
        mid, low, high = (_spread(rates, shown.sizes, 0.0) for rates in (mid, low, high))
        reason = _spread(reason, shown.sizes, len(reasons))
        reasons = (*reasons, _NOT_SHOWN)
    kept = [inputs.prefix_kept[one] for one in distinct] if inputs.is_prefix_caching else None
    engines = engines_of(replicas, inputs.kv_layers, residuals, inputs.era, "estimated", kept)
    place_by_hardware = {one: place for place, one in enumerate(distinct)}
    where = np.array([place_by_hardware[one] for one in inputs.hardware])
    return Profile(
        replica_types=inputs.replica_types,
        buckets=inputs.buckets,
        max_request_rate=mid[where],
        low=low[where],
        high=high[where],
        provenance=np.full((len(where), *inputs.buckets.shape), ESTIMATED, np.int8),
        reasons=reasons,
        reason=reason[where],
        slo=inputs.slo,
        model=inputs.model.name,
        source=_source(inputs),
        cautions=inputs.cautions,
        engines=tuple(engines[place] for place in where),
    )


def _wanted(sizes: Sizes, shown: Shown | None) -> Sizes:
    """The sizes that are shown, side by side (1, 1, K) or (R, 1, K)."""
    if shown is None:
        return sizes
    cached = sizes.cached if isinstance(sizes.cached, float) else sizes.cached[:, None, shown.sizes]
    return Sizes(inputs=sizes.inputs[:, None, shown.sizes], outputs=sizes.outputs[:, None, shown.sizes], cached=cached)


def _spread(values: npt.NDArray[_Number], where: Mask, rest: float) -> npt.NDArray[_Number]:
    """Put values of consecutive sizes (R, 1, K) into their buckets (R, I, O), and one value into all others."""
    whole = np.full((len(values), *where.shape), rest, values.dtype)
    whole[:, where] = values[:, 0]
    return whole


def _source(inputs: EstimateInputs) -> str:
    told = f"estimated for engine era {inputs.era.name} (fitted {inputs.era.date})"
    told += "; rates at which the mean meets the limits" if inputs.slo.is_on_requests else ""
    return f"{told}; {inputs.tables.source}" if inputs.tables and inputs.tables.source else told


def _interval(inputs: EstimateInputs, mid: Array, shown: Shown | None) -> tuple[Array, Array]:
    """Rates with the slowest and the fastest likely steps, for the hardware of some replica types (R, I, O) [1/s]."""
    wanted = {inputs.hardware[r] for r in (range(len(inputs.hardware)) if shown is None else shown.interval_of)}
    where = [place for place, one in enumerate(inputs.distinct_hardware) if one in wanted]
    low, high = mid.copy(), mid.copy()
    if not where:
        return low, high
    distinct, residuals = [inputs.distinct_hardware[k] for k in where], [inputs.residuals[k] for k in where]
    replicas = inputs.replicas_on(distinct)
    slow, fast = (
        max_request_rate(
            replace(replicas, cost=scaled(replicas.cost, factor)),
            inputs.model,
            _wanted(inputs.sizes_on(distinct), shown),
            inputs.limits,
            bisections=INTERVAL_BISECTIONS,
        )
        for factor in (_along([one.high for one in residuals]), _along([one.low for one in residuals]))
    )
    low[where], high[where] = np.minimum(slow, mid[where]), np.maximum(fast, mid[where])
    return low, high


def _along(values: Sequence[float]) -> float | Array:
    """Values along the replica axis (R, 1, 1), or a single value if all are equal."""
    return values[0] if len(set(values)) == 1 else np.array(values)[:, None, None]
