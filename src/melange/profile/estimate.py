"""Estimates what each replica type can serve, from datasheets and a model's shape, without renting it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.catalog.variants import distinct_variants, is_unlisted, stored_as, variant_of
from melange.errors import Caution, InputError, unknown
from melange.profile.profile import ESTIMATED, Profile, ReplicaType
from melange.replica.capacity import INTERVAL_BISECTIONS, Array, Replicas, Sizes, max_request_rate
from melange.replica.engine import engines_of, layers_of
from melange.replica.era import DEFAULT_ENGINE, ERA_BY_ALIAS, Era, Residuals, find_era, kind_of
from melange.replica.hardware import Hardware, hardware_of, replicas_of
from melange.replica.reasons import obstacle, why_zero
from melange.replica.step import scaled
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

if TYPE_CHECKING:
    from melange.profile.aiconfigurator import StepTimes

# Where step times come from.
OWN, AICONFIGURATOR = "own", "aiconfigurator"
# Names that a caution spells out before it counts the rest.
LISTED = 4
# vLLM got weights and a KV cache in fp8 with 0.3.
ERAS_WITHOUT_FP8 = ("vllm-0.2",)


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
    """What one replica of each type can serve within the SLO, by the step-time model of ``docs/performance-model.md``.

    Parameters
    ----------
    model
        Shape of the model.
    offers
        What can be rented.
    slo
        Limits on the mean of TTFT, TPOT, NTPOT or latency.
    sizes
        A workload, whose buckets are estimated at its mean sizes, or buckets, at their upper edges.
    engine
        Name of an engine (``vllm``) or of an era (``vllm-0.2``), or an era with settings of your own.
    tensor_parallel
        Degrees to try, where the instance holds so many accelerators; None: every power of two that the instance holds
        and the model's heads divide into.
    variants
        Quantised variants that may be served besides the model as published, each a replica type of its own:
        ``fp8``, ``int8``, ``int4`` (weights), ``fp8-kv`` (KV cache), ``fp8+fp8-kv``, ... One that stores nothing in
        fewer bytes than the model as published is left out.
    step_times
        ``own``, or ``aiconfigurator``: coefficients fitted to its measured operators where it has any, else our own.
    accelerators
        Facts by accelerator name; None: the bundled ones.

    Returns
    -------
    Profile
        Estimated rates (R, I, O) [1/s], 0 with a reason where a type cannot serve a size. ``low`` and ``high`` are what
        the same calculation gives when every step takes as long as the slowest and the fastest 10 % of the measured
        ones did against this model; near a tight limit they lie far apart, and ``high`` may be positive where the
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
    era = engine if isinstance(engine, Era) else find_era(engine)
    engine_name = engine.name if isinstance(engine, Era) else engine
    _check_slo(slo)
    facts_by_name = _bundled_accelerators() if accelerators is None else accelerators
    replica_types = replica_types_of(model, offers, engine_name, tensor_parallel, _variants(model, variants, era))
    hardware = [hardware_of(one.offer, one.tensor_parallel, facts_by_name, one.variant) for one in replica_types]
    distinct = list(dict.fromkeys(hardware))
    buckets, requests, longest = _sizes(sizes)
    obstacles = [
        obstacle(variant_of(model, one.variant), facts_by_name[one.accelerator], one.tensor_parallel, era.settings)
        for one in distinct
    ]
    tables = step_times_of(step_times, model, distinct, facts_by_name, era)
    replicas = replicas_of(model, distinct, facts_by_name, era, tables.cost_by_hardware if tables else None)
    own = [era.residuals_of(model, one.accelerator) for one in distinct]
    residuals = [tables.residuals_on(*pair) if tables else pair[1] for pair in zip(distinct, own, strict=True)]
    mid, low, high = _with_interval(replicas, model, requests, slo, residuals)
    reasons, reason = why_zero(mid, replicas, model, requests, slo.limits, obstacles)
    place_by_hardware = {one: place for place, one in enumerate(distinct)}
    where = np.array([place_by_hardware[one] for one in hardware])
    layers = [layers_of(variant_of(model, one.variant)) for one in distinct]
    engines = engines_of(replicas, layers, residuals, era, "estimated")
    return Profile(
        replica_types=tuple(replica_types),
        buckets=buckets,
        max_request_rate=mid[where],
        low=low[where],
        high=high[where],
        provenance=np.full((len(where), *buckets.shape), ESTIMATED, np.int8),
        reasons=reasons,
        reason=reason[where],
        slo=slo,
        model=model.name,
        source=_source(era, tables),
        cautions=_cautions(model, slo, era, distinct, facts_by_name, longest, tables),
        engines=tuple(engines[place] for place in where),
    )


def step_times_of(
    source: str, model: Model, hardware: Sequence[Hardware], facts_by_name: Mapping[str, Accelerator], era: Era
) -> StepTimes | None:
    """What the named source of step times knows of some hardware; None for our own.

    Raises
    ------
    InputError
        A source that is not known, or whose package is not installed.
    """
    if source == OWN:
        return None
    if source != AICONFIGURATOR:
        raise unknown("source of step times", source, (OWN, AICONFIGURATOR), place="profile.step_times")
    from melange.profile import aiconfigurator

    return aiconfigurator.step_times(model, hardware, facts_by_name, era)


def _source(era: Era, tables: StepTimes | None) -> str:
    told = f"estimated for engine era {era.name} (constants of {era.date})"
    return f"{told}; {tables.source}" if tables and tables.source else told


def replica_types_of(
    model: Model,
    offers: Sequence[Offer],
    engine: str,
    tensor_parallel: Sequence[int] | int | None = None,
    variants: Sequence[str] = ("",),
) -> list[ReplicaType]:
    """The replica types that offers allow, each with a name of its own.

    A name is the offer's (``aws/us-east-1/g6.xlarge``), with `` tpN`` where the instance holds several accelerators,
    the engine where it is not the default one and the variant where it is not the model as published.
    """
    if not offers:
        raise InputError("estimate: no offers to choose from", hint="loosen the filters on gpus, providers and market")
    degrees = (tensor_parallel,) if isinstance(tensor_parallel, int) else tensor_parallel
    pairs = [
        (offer, degree)
        for offer in offers
        for degree in (_degrees(model, offer) if degrees is None else degrees)
        if 1 <= degree <= offer.accelerators
    ]
    if not pairs:
        most = max(offer.accelerators for offer in offers)
        raise InputError(
            f"profile.tensor_parallel: no offer holds {', '.join(map(str, degrees or ()))} accelerators; "
            f"the largest holds {most}"
        )
    names = _unique([_name(offer, degree, engine) for offer, degree in pairs], [offer for offer, _ in pairs])
    return [
        ReplicaType(
            name=f"{name} {variant}".rstrip(), offer=offer, tensor_parallel=degree, engine=engine, variant=variant
        )
        for name, (offer, degree) in zip(names, pairs, strict=True)
        for variant in variants
    ]


def _variants(model: Model, names: Sequence[str], era: Era) -> tuple[str, ...]:
    """The variants to compare, the model as published first."""
    if era.name in ERAS_WITHOUT_FP8 and (foreign := [name for name in names if "fp8" in name]):
        raise InputError(
            f"variants: engine {era.name} serves nothing in fp8, and {_some(foreign)} was asked for",
            hint="leave it out, or name a newer engine",
        )
    return distinct_variants(model, names)


def _degrees(model: Model, offer: Offer) -> list[int]:
    powers = [1 << k for k in range(offer.accelerators.bit_length())]
    return [degree for degree in powers if degree == 1 or model.is_splittable(degree)]


def _name(offer: Offer, degree: int, engine: str) -> str:
    parts = [offer.name or offer.accelerator]
    if offer.accelerators > 1:
        parts.append(f"tp{degree}")
    if ERA_BY_ALIAS.get(engine, engine) != ERA_BY_ALIAS[DEFAULT_ENGINE]:
        parts.append(engine)
    return " ".join(parts)


def _unique(names: Sequence[str], offers: Sequence[Offer]) -> list[str]:
    """Names that repeat get their accelerator, and a number where that is not enough."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    told = [
        f"{name} {offer.accelerator}" if counts[name] > 1 else name for name, offer in zip(names, offers, strict=True)
    ]
    taken: set[str] = set()
    unique = []
    for name in told:
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{name} #{number}"
        taken.add(candidate)
        unique.append(candidate)
    return unique


def _check_slo(slo: Slo) -> None:
    if not slo.is_on_mean:
        raise InputError(
            f"slo.statistic: an estimate holds limits on the mean, and {slo.statistic} was asked for",
            hint="percentiles are found by simulation: melange plan does it, and melange.with_simulated_rates",
        )


def _bundled_accelerators() -> Mapping[str, Accelerator]:
    from melange.catalog.bundled import accelerators

    return accelerators()


def _sizes(sizes: Workload | Buckets) -> tuple[Buckets, Sizes, float]:
    """The grid, its sizes, and the longest request that there is or, without traffic, may be [tokens]."""
    buckets = sizes if isinstance(sizes, Buckets) else sizes.buckets
    if buckets.is_ordinal:
        raise InputError("estimate: the buckets are numbered and say no token counts", hint="give workload.buckets")
    if isinstance(sizes, Buckets):
        inputs, outputs = sizes.upper_sizes()
        arrives = np.ones(buckets.shape, bool)
    else:
        inputs, outputs = sizes.input_tokens, sizes.output_tokens
        arrives = sizes.request_rate > 0
    longest = float((inputs + outputs)[arrives].max())
    return buckets, Sizes(inputs=inputs[None], outputs=outputs[None]), longest


def _with_interval(
    replicas: Replicas, model: Model, requests: Sizes, slo: Slo, residuals: Sequence[Residuals]
) -> tuple[Array, Array, Array]:
    """Rates with step times as predicted, and as slow and as fast as residuals (R) go (R, I, O) [1/s]."""
    mid = max_request_rate(replicas, model, requests, slo.limits)
    low, high = (
        max_request_rate(
            replace(replicas, cost=scaled(replicas.cost, factor)),
            model,
            requests,
            slo.limits,
            bisections=INTERVAL_BISECTIONS,
        )
        for factor in (_along([one.high for one in residuals]), _along([one.low for one in residuals]))
    )
    return mid, np.minimum(low, mid), np.maximum(high, mid)


def _along(values: Sequence[float]) -> float | Array:
    """Values along the replica axis (R, 1, 1), or one where all agree."""
    return values[0] if len(set(values)) == 1 else np.array(values)[:, None, None]


def _cautions(
    model: Model,
    slo: Slo,
    era: Era,
    distinct: Sequence[Hardware],
    facts_by_name: Mapping[str, Accelerator],
    longest: float,
    tables: StepTimes | None,
) -> tuple[Caution, ...]:
    """One caution of a kind, with counts and a few names."""
    used = sorted({one.accelerator for one in distinct})
    beyond = []
    ours = {one.accelerator for one in distinct if not (tables and one in tables.cost_by_hardware)}
    if unfitted := sorted(ours - set(era.accelerators)):
        beyond.append(f"accelerators ({_some(unfitted)})")
    if kind_of(model) not in era.kinds:
        beyond.append(f"{kind_of(model)} models ({model.name})")
    if longest > era.max_tokens:
        beyond.append(f"requests of more than {era.max_tokens:,} tokens (up to {longest:,.0f})")
    cautions = []
    if beyond:
        what = f"the constants of {era.name} were not fitted on: {', '.join(beyond)}"
        cautions.append(Caution("extrapolated", f"{what}; measure a few points before you rely on them"))
    if pcie := sorted({one.accelerator for one in distinct if one.is_pcie}):
        what = f"tensor parallelism over PCIe ({_some(pcie)}) differs from server to server"
        cautions.append(Caution("pcie", f"{what}; measure a few points before you rely on it"))
    if unchecked := [name for name in used if facts_by_name[name].checked is None]:
        what = f"the figures of {_some(unchecked)} were not held against a datasheet"
        cautions.append(Caution("unverified", f"{what}; check them before you rely on them"))
    if tables and tables.reason_by_hardware:
        cautions.append(_without_tables(tables))
    if any(one.variant for one in distinct):
        cautions.append(_quantized(model, distinct, facts_by_name))
    if slo.attainment is not None:
        what = f"rates hold the limits in the mean, and not for {slo.attainment:.3%} of requests"
        cautions.append(Caution("attainment", f"{what}; keep headroom for that"))
    return tuple(cautions)


def _without_tables(tables: StepTimes) -> Caution:
    """Whose step times are our own although others were asked for, and why."""
    known = {one.accelerator for one in tables.cost_by_hardware}
    names_by_reason: dict[str, dict[str, None]] = {}
    for one, reason in tables.reason_by_hardware.items():
        which = f" x {one.tensor_parallel} {one.variant}".rstrip() if one.accelerator in known else ""
        names_by_reason.setdefault(reason, {})[one.accelerator + which] = None
    told = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in names_by_reason.items())
    return Caution("step-times", f"aiconfigurator has no step times to rely on for {told}: ours are used there")


def _quantized(model: Model, distinct: Sequence[Hardware], facts_by_name: Mapping[str, Accelerator]) -> Caution:
    """What the reader of a choice among variants should know."""
    variants = dict.fromkeys(one.variant for one in distinct if one.variant)
    what = f"{_some(variants)} may be chosen beside {model.name} as published ({stored_as(model)})"
    what += "; quantization may change answers: judge their quality on prompts of your own"
    if any(name.startswith("int") for name in variants):
        what += "; where steps in int4 were measured they took up to a third longer than estimated"
    unlisted = {one.accelerator for one in distinct if is_unlisted(one.variant, facts_by_name[one.accelerator])}
    if unlisted:
        what += f"; vLLM lists no integer kernels for {_some(sorted(unlisted))}: see that your engine has them"
    return Caution("quantized", what)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more
