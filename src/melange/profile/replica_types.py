"""The replica types that offers allow, and their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.catalog.variants import distinct_variants, variant_of
from melange.errors import InputError, some_of
from melange.profile.profile import ReplicaType
from melange.replica.era import DEFAULT_ENGINE, ERA_BY_ALIAS, Era
from melange.replica.parallelism import Layout

# vLLM supports weights and a KV cache in fp8 since 0.3.
_ERAS_WITHOUT_FP8 = ("vllm-0.2",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Degrees:
    """Degrees of parallelism to try; degrees that do not fit an offer are skipped for it.

    Parameters
    ----------
    tensor
        Accelerators that split each layer; None: every power of two that fits the instance and divides the heads.
    expert
        Accelerators that divide the routed experts of a mixture; 1: experts split like other layers.
    pipeline
        Stages; if one instance has no room for all, they are spread over several whole instances.

    Raises
    ------
    InputError
        A degree below 1, or an empty list of degrees.
    """

    tensor: tuple[int, ...] | None = None
    expert: tuple[int, ...] = (1,)
    pipeline: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        for name, degrees in (("expert", self.expert), ("pipeline", self.pipeline)):
            if not degrees or min(degrees) < 1:
                raise InputError(f"profile.{name}_parallel must be one or more degrees >= 1, got {list(degrees)}")


def replica_types_of(
    model: Model, offers: Sequence[Offer], engine: str, given: Degrees | None = None, variants: Sequence[str] = ("",)
) -> list[ReplicaType]:
    """The replica types that offers allow, each with a unique name.

    A name is that of the offer (``aws/us-east-1/g6.xlarge``), followed by `` tpN`` if the instance holds several
    accelerators, `` epN`` and `` ppN`` if experts or stages are spread, the engine if it is not the default, and the
    variant if it is not the model as published.

    Raises
    ------
    InputError
        There are no offers, no offer supports the degrees, or experts are set for a model without experts.
    """
    if not offers:
        raise InputError("estimate: no offers left", hint="loosen the filters on gpus, providers and market")
    degrees = given or Degrees()
    if max(degrees.expert) > 1 and not model.experts:
        raise InputError(
            f"profile.expert_parallel: {model.name} has no experts", hint="remove it: it is for mixtures of experts"
        )
    pairs = [(offer, layout) for offer in offers for layout in _layouts(model, offer, degrees)]
    if not pairs:
        raise InputError(_none_fits(offers, degrees))
    names = _unique([_name(offer, layout, engine) for offer, layout in pairs], [offer for offer, _ in pairs])
    return [
        ReplicaType(
            name=f"{name} {variant}".rstrip(),
            offer=offer,
            tensor_parallel=layout.tensor_parallel,
            engine=engine,
            variant=variant,
            expert_parallel=layout.expert_parallel,
            pipeline_parallel=layout.pipeline_parallel,
        )
        for name, (offer, layout) in zip(names, pairs, strict=True)
        for variant in variants
    ]


def _layouts(model: Model, offer: Offer, degrees: Degrees) -> list[Layout]:
    """The layouts of a replica on an offer's accelerators, or on those of several of its instances."""
    held = offer.accelerators
    splits = degrees.tensor or _degrees(model, offer)
    found = []
    for tensor in (one for one in splits if 1 <= one <= held):
        for expert in degrees.expert:
            for stages in degrees.pipeline:
                if expert > 1 and (stages > 1 or expert > held or expert % tensor):
                    continue
                # Over several instances, stages fill whole ones, with as few idle accelerators as possible.
                is_full = tensor == max(one for one in splits if one <= held) and not tensor * stages % held
                if tensor * stages <= held or (is_full and not held % tensor):
                    found.append(Layout(tensor_parallel=tensor, expert_parallel=expert, pipeline_parallel=stages))
    return found


def _none_fits(offers: Sequence[Offer], degrees: Degrees) -> str:
    most = max(offer.accelerators for offer in offers)
    told = ", ".join(map(str, degrees.tensor or ()))
    if degrees.tensor is not None and min(degrees.tensor) > most:
        return f"profile.tensor_parallel: no offer holds {told} accelerators; the largest holds {most}"
    if max(degrees.expert) > most:
        return f"profile.expert_parallel: no offer holds {max(degrees.expert)} accelerators; the largest holds {most}"
    return "profile: no offer has room for these degrees of tensor_parallel, expert_parallel and pipeline_parallel"


def compared_variants(model: Model, names: Sequence[str], era: Era) -> tuple[str, ...]:
    """The variants to compare, the model as published first; all use the KV cache data type of the engine's settings.

    Raises
    ------
    InputError
        fp8 on an engine that does not support it, or variants whose KV cache contradicts the settings.
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


def _name(offer: Offer, layout: Layout, engine: str) -> str:
    parts = [offer.name or offer.accelerator]
    if offer.accelerators > 1 or not layout.is_plain:
        parts.append(layout.suffix)
    if ERA_BY_ALIAS.get(engine, engine) != ERA_BY_ALIAS[DEFAULT_ENGINE]:
        parts.append(engine)
    return " ".join(parts)


def _unique(names: Sequence[str], offers: Sequence[Offer]) -> list[str]:
    """Add the accelerator to names that repeat, and a number if they still do."""
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
