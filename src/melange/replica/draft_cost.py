"""What speculative decoding takes: the cost of drafts and of verifying them, and the memory that drafts need."""

from __future__ import annotations

from dataclasses import dataclass, replace

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.replica.era import Constants
from melange.replica.speculation import DRAFT_MODEL, EAGLE, MTP, Speculation
from melange.replica.step import StepCost, step_cost


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftMemory:
    """What drafts take of one accelerator's memory.

    Parameters
    ----------
    weight_bytes
        Weights of the draft model, or of the layer that drafts [bytes].
    kv_share
        KV cache that drafts keep, over that of the model itself.
    """

    weight_bytes: float = 0.0
    kv_share: float = 0.0


def draft_memory(model: Model, speculation: Speculation | None, tensor_parallel: int) -> DraftMemory:
    """What drafts take of the memory of one accelerator; nothing without them, and where the prompt itself is used."""
    if speculation is None:
        return DraftMemory()
    if speculation.method == DRAFT_MODEL:
        draft = _draft_model(speculation)
        kv_share = draft.kv_bytes_per_token(1) / max(model.kv_bytes_per_token(1), 1.0)
        return DraftMemory(weight_bytes=draft.weight_bytes() / tensor_parallel, kv_share=kv_share)
    if speculation.method in (EAGLE, MTP):
        return DraftMemory(weight_bytes=_layer_bytes(model) / tensor_parallel, kv_share=1.0 / model.layers)
    return DraftMemory()


def with_speculation(
    cost: StepCost,
    model: Model,
    accelerator: Accelerator,
    speculation: Speculation | None,
    *,
    tensor_parallel: int = 1,
    is_pcie: bool = False,
    constants: Constants,
) -> StepCost:
    """The coefficients of a step that verifies drafts: those of one of the tokens that it makes at once.

    Each draft token takes a pass of what drafts: a draft model's whole step, a layer and the output head, or nothing
    where drafts are looked up in the prompt. A pass of a model takes the sum of reading its weights and its arithmetic,
    which is more than the longer of both that it takes at best.

    Parameters
    ----------
    cost, model, accelerator, tensor_parallel, is_pcie, constants
        As of :func:`~melange.replica.step.step_cost`, and what that gives.
    speculation
        None: the same coefficients.
    """
    if speculation is None:
        return cost
    passes, made = float(speculation.draft_tokens), speculation.step_tokens
    host_s, sequence_s, context_s = cost.host_s, cost.sequence_s, cost.context_s
    if speculation.method == DRAFT_MODEL:
        draft = step_cost(
            _draft_model(speculation),
            accelerator,
            tensor_parallel=tensor_parallel,
            is_pcie=is_pcie,
            constants=constants,
        )
        host_s += passes * (draft.weights_s + draft.host_s + draft.one_shot_s)
        sequence_s += passes * (draft.token_s + draft.output_s + draft.sequence_s)
        context_s += passes * (draft.context_s + draft.window_context_s)
    elif speculation.method in (EAGLE, MTP):
        rate = accelerator.bandwidth_bytes_per_s * constants.mbu * tensor_parallel
        layer_s = (_layer_bytes(model) + 2.0 * model.output_parameters()) / rate
        host_s += passes * (layer_s + constants.t_layer_s)
        sequence_s += passes * (cost.token_s / model.layers + cost.output_s)
        context_s += passes * cost.context_s / model.layers
    return replace(
        cost,
        host_s=host_s / made,
        sequence_s=sequence_s / made,
        context_s=context_s / made,
        window_context_s=cost.window_context_s / made,
        draft_tokens=passes,
        accepted_tokens=made - 1.0,
    )


def _layer_bytes(model: Model) -> float:
    """Weights of one of the model's layers, the mean of all [bytes]."""
    return (model.body_bytes() + model.routed_bytes()) / model.layers


def _draft_model(speculation: Speculation) -> Model:
    """The draft model by its name, as that of the service is found."""
    from melange.catalog.bundled import find_model
    from melange.errors import InputError

    try:
        return find_model(speculation.model)
    except InputError as error:
        raise InputError(f"engine.speculative.model: {error}", hint=error.hint) from error
