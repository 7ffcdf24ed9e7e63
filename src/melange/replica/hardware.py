"""The hardware properties that determine a replica's speed, and the closed form's inputs for R replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.catalog.variants import unsupported_dtype, variant_of
from melange.errors import unknown
from melange.replica.capacity import Replicas
from melange.replica.draft_cost import draft_memory, with_speculation
from melange.replica.era import EngineSettings, Era
from melange.replica.layout_cost import spread_cost, stage_layers, unsplittable
from melange.replica.memory import kv_layers, kv_room_bytes
from melange.replica.parallelism import Layout, as_layout, layout_of
from melange.replica.step import StepCost, scaled, stack, step_cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The properties that determine a replica's speed: offers with equal properties are computed once.

    Parameters
    ----------
    accelerator
        Name of the accelerator.
    tensor_parallel
        Accelerators that split each layer.
    is_pcie
        Whether they communicate over PCIe.
    variant
        Name of the model's quantized variant; empty: as published.
    is_drafting
        Whether its steps verify draft tokens, if the engine is set to.
    expert_parallel, pipeline_parallel
        As in :class:`~melange.replica.parallelism.Layout`.
    is_networked
        Whether stages are on different machines.
    """

    accelerator: str
    tensor_parallel: int = 1
    is_pcie: bool = False
    variant: str = ""
    is_drafting: bool = False
    expert_parallel: int = 1
    pipeline_parallel: int = 1
    is_networked: bool = False

    @property
    def layout(self) -> Layout:
        """The layout of a replica over accelerators."""
        return layout_of(self.tensor_parallel, self.expert_parallel, self.pipeline_parallel)


def hardware_of(
    offer: Offer, split: Layout | int, facts_by_name: Mapping[str, Accelerator], variant: str = ""
) -> Hardware:
    """The hardware of an offer, for a model spread over some of its accelerators, or over several instances.

    Raises
    ------
    InputError
        The accelerator is unknown; the error gives the nearest names.
    """
    if offer.accelerator not in facts_by_name:
        raise unknown("accelerator", offer.accelerator, facts_by_name, place=f"offer {offer.name}")
    layout = as_layout(split)
    link = offer.interconnect or facts_by_name[offer.accelerator].link
    return Hardware(
        accelerator=offer.accelerator,
        tensor_parallel=layout.tensor_parallel,
        is_pcie=layout.accelerators > 1 and link.casefold().startswith("pcie"),
        variant=variant,
        expert_parallel=layout.expert_parallel,
        pipeline_parallel=layout.pipeline_parallel,
        is_networked=layout.accelerators > offer.accelerators,
    )


def replicas_of(
    model: Model,
    hardware: Sequence[Hardware],
    facts_by_name: Mapping[str, Accelerator],
    era: Era,
    cost_by_hardware: Mapping[Hardware, StepCost] | None = None,
) -> Replicas:
    """One replica on each hardware (R, 1, 1).

    Parameters
    ----------
    model, hardware, facts_by_name, era
        The model, the hardware, the facts of its accelerators, and the engine.
    cost_by_hardware
        Coefficients of the step from another source; hardware without an entry uses those of the era.
    """
    known = cost_by_hardware or {}
    facts = [facts_by_name[one.accelerator] for one in hardware]
    served = [variant_of(model, one.variant) for one in hardware]
    triples = list(zip(served, hardware, facts, strict=True))
    costs = [
        _drafting(known[one], variant, fact, one, era) if one in known else era_cost(variant, fact, one, era)
        for variant, one, fact in triples
    ]
    layouts = [one.layout for one in hardware]
    # Every data-parallel rank has limits of its own, and every part of a batch has the tokens of a step.
    many = np.array([(layout.data_parallel, layout.ranks) for layout in layouts], float)
    limits = np.array([era.settings.limits_on(fact) for fact in facts], float) * many
    kv_tokens = [
        kv_tokens_of(variant, fact, layout, settings_on(era.settings, one))
        for (variant, one, fact), layout in zip(triples, layouts, strict=True)
    ]
    return Replicas(
        cost=stack(costs),
        kv_tokens=np.array(kv_tokens)[:, None, None],
        max_sequences=limits[:, 0, None, None],
        max_batched_tokens=limits[:, 1, None, None],
        block_tokens=era.settings.block_tokens,
        is_chunked=era.settings.is_chunked,
        is_fully_reserved=era.settings.is_fully_reserved,
        max_context=era.settings.max_context or model.max_context,
        kv_layers=kv_layers([variant.kv_shape(one.tensor_parallel) for variant, one, _ in triples]),
        kv_parts=np.array([layout.data_parallel for layout in layouts], float)[:, None, None],
    )


def era_cost(model: Model, accelerator: Accelerator, hardware: Hardware, era: Era) -> StepCost:
    """Coefficients of the step from the era's constants on this accelerator and the common error of unseen sources."""
    cost = step_cost(
        model,
        accelerator,
        tensor_parallel=hardware.tensor_parallel,
        is_pcie=hardware.is_pcie,
        constants=era.constants_on(accelerator),
    )
    cost = _drafting(cost, model, accelerator, hardware, era)
    cost = spread_cost(
        cost,
        model,
        accelerator,
        hardware.layout,
        is_pcie=hardware.is_pcie,
        is_networked=hardware.is_networked,
        constants=era.constants_on(accelerator),
    )
    slowdown = era.slowdown(model, accelerator)
    return scaled(cost, slowdown) if slowdown != 1.0 else cost


def settings_on(settings: EngineSettings, hardware: Hardware) -> EngineSettings:
    """The engine's settings on this hardware: without drafts if its steps do not verify any."""
    return settings if hardware.is_drafting or settings.speculation is None else replace(settings, speculation=None)


def _drafting(cost: StepCost, model: Model, accelerator: Accelerator, hardware: Hardware, era: Era) -> StepCost:
    """Coefficients with drafts, if there are any."""
    return with_speculation(
        cost,
        model,
        accelerator,
        settings_on(era.settings, hardware).speculation,
        tensor_parallel=hardware.tensor_parallel,
        is_pcie=hardware.is_pcie,
        constants=era.constants_on(accelerator),
    )


def kv_tokens_of(model: Model, accelerator: Accelerator, split: Layout | int, settings: EngineSettings) -> float:
    """Capacity of the KV cache per accelerator of one rank, in tokens of one layer, for all ranks together.

    0 if the weights do not fit. Stages hold the cache of their own layers.
    """
    layout = as_layout(split)
    tensor_parallel = layout.tensor_parallel
    is_splittable = model.is_splittable(tensor_parallel, with_experts=layout.expert_parallel == 1)
    if not is_splittable or unsplittable(model, layout) or unsupported_dtype(model, accelerator):
        return 0.0
    room = kv_room_bytes(model, accelerator, layout, settings)
    if room * layout.pipeline_parallel < settings.min_kv_tokens * model.kv_bytes_per_token(tensor_parallel):
        return 0.0
    drafts = draft_memory(model, settings.speculation, tensor_parallel)
    ranks = layout.data_parallel * model.layers / stage_layers(model, layout)
    return max(room, 0.0) * ranks / model.kv_bytes_per_layer(tensor_parallel) / (1.0 + drafts.kv_share)
