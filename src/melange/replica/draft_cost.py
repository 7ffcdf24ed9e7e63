"""The cost of speculative decoding: drafting tokens, verifying them, and the memory for drafts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.replica.era import Constants
from melange.replica.speculation import DRAFT_MODEL, EAGLE, MTP, Speculation
from melange.replica.step import StepCost, step_cost


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftMemory:
    """Memory of one accelerator that drafts use.

    Parameters
    ----------
    weight_bytes
        Weights of the draft model, or of the drafting layer [bytes].
    kv_share
        KV cache of drafts, relative to that of the model itself.
    """

    weight_bytes: float = 0.0
    kv_share: float = 0.0


def draft_memory(model: Model, speculation: Speculation | None, tensor_parallel: int) -> DraftMemory:
    """Memory of one accelerator that drafts use; zero without drafts, and if drafts come from the prompt itself."""
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
    """The coefficients of a step that verifies drafts, divided among the tokens that it generates at once.

    Each draft token takes one pass of the drafting method: a whole step of the draft model, a layer and the output
    head, or nothing if drafts are looked up in the prompt. A pass of a model takes the sum of the times for reading its
    weights and for its arithmetic, which is more than the longer of the two, the best case.

    Parameters
    ----------
    cost, model, accelerator, tensor_parallel, is_pcie, constants
        The result and the parameters of :func:`~melange.replica.step.step_cost`.
    speculation
        None: unchanged coefficients.
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
    """Mean weights of one of the model's layers [bytes]."""
    return (model.body_bytes() + model.routed_bytes()) / model.layers


def _draft_model(speculation: Speculation) -> Model:
    """The draft model by its name, found like the service's model."""
    from melange.catalog.bundled import find_model
    from melange.errors import InputError

    try:
        return find_model(speculation.model)
    except InputError as error:
        raise InputError(f"engine.speculative.model: {error}", hint=error.hint) from error
