"""The replica types that offers allow, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence

from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.catalog.variants import distinct_variants, variant_of
from melange.errors import InputError, some_of
from melange.profile.profile import ReplicaType
from melange.replica.era import DEFAULT_ENGINE, ERA_BY_ALIAS, Era

# vLLM got weights and a KV cache in fp8 with 0.3.
_ERAS_WITHOUT_FP8 = ("vllm-0.2",)


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
        raise InputError("estimate: no offers left", hint="loosen the filters on gpus, providers and market")
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


def compared_variants(model: Model, names: Sequence[str], era: Era) -> tuple[str, ...]:
    """The variants to compare, the model as published first; all with the KV cache that the engine is set to.

    Raises
    ------
    InputError
        fp8 on an engine that has none, and variants whose KV cache is set otherwise.
    """
    kv = era.settings.kv_dtype
    if era.name in _ERAS_WITHOUT_FP8 and (foreign := [name for name in names if "fp8" in name] + [kv] * bool(kv)):
        raise InputError(
            f"{'variants' if len(foreign) > bool(kv) else 'engine.kv_cache_dtype'}: engine {era.name} does not support "
            f"fp8, needed for {some_of(foreign)}",
            hint="leave it out, or name a newer engine",
        )
    if not kv:
        return distinct_variants(model, names)
    if twice := [name for name in names if "-kv" in name]:
        raise InputError(
            f"variants: {some_of(twice)} sets the KV cache, and so does engine.kv_cache_dtype: {kv}",
            hint="remove one: with engine.kv_cache_dtype all variants have it, with variants a plan chooses",
        )
    with_kv = [f"{name}+{kv}-kv".lstrip("+") for name in ("", *names)]
    found = distinct_variants(model, with_kv)
    return tuple(name for name in found if variant_of(model, name).kv_dtype == kv)


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
