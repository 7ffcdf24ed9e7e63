"""The replica types that offers allow, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence

from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.catalog.variants import distinct_variants
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
    """The variants to compare, the model as published first."""
    if era.name in _ERAS_WITHOUT_FP8 and (foreign := [name for name in names if "fp8" in name]):
        raise InputError(
            f"variants: engine {era.name} does not support fp8, needed for {some_of(foreign)}",
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
