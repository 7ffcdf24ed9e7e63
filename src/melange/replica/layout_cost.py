"""Effects of expert and pipeline parallelism on a step's coefficients and on an accelerator's memory.

These layouts were not measured with the constants of our eras: the results are calculated from measurements of tensor
parallelism, with two values chosen by judgment (the imbalance of experts, and the speed of a network), and wide
intervals.

The batch of a replica is spread evenly over its ranks, which wait for each other in every step: a step takes as long as
that of a rank with its part. Prompts are not spread: the longest one is processed by one rank, or passes through the
stages alone, while the others wait (:func:`melange.replica.step.stalled_tokens`).
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.replica.coefficients import body_token_s, link_of
from melange.replica.era import Constants, Residuals
from melange.replica.parallelism import Layout
from melange.replica.step import StepCost

# Load of the fullest accelerator relative to the mean, in tokens and weights, if accelerators hold whole experts.
# Engines copy or move the most frequent experts; measured steps differ by 1.1 to 1.5. Chosen by judgment.
EXPERT_IMBALANCE = 1.25
# Between machines: 10 Gbit/s per accelerator, as in instances with a single one (AWS g6.xlarge: up to 10; p4d has 50
# per accelerator, p5 400), and the latency of a message. Chosen by judgment: stages exchange little data, so that the
# value has little effect.
NETWORK_BYTES_PER_S, NETWORK_LATENCY_S = 1.25e9, 50e-6
# A reason of `unsplittable`, or of a tensor-parallel degree that does not divide the model (`obstacle`).
UNSPLITTABLE = re.compile(
    "cannot be split over|cannot be spread evenly over|has no experts to spread over|cannot be cut into"
)
# Factors on the interval of tensor parallelism, as these layouts were not measured. Chosen by judgment.
_FASTER, _SLOWER = 0.75, 1.6


def spread_cost(
    cost: StepCost,
    model: Model,
    accelerator: Accelerator,
    layout: Layout,
    *,
    is_pcie: bool = False,
    is_networked: bool = False,
    constants: Constants,
) -> StepCost:
    """The coefficients of a replica's step.

    Parameters
    ----------
    cost
        Cost on ``layout.tensor_parallel`` accelerators that hold the whole model
        (:func:`~melange.replica.step.step_cost`).
    model, accelerator, is_pcie, constants
        As for that function.
    layout
        The layout of the replica; a plain layout changes nothing.
    is_networked
        Whether stages are on different machines.
    """
    if layout.is_plain:
        return cost
    if layout.expert_parallel > 1:
        return _experts(cost, model, accelerator, layout, is_pcie, constants)
    return _stages(cost, model, accelerator, layout, is_pcie, is_networked, constants)


def weight_bytes_on(model: Model, layout: Layout) -> float:
    """Weights on the fullest accelerator [bytes]."""
    tp, held = layout.tensor_parallel, model.weight_bytes_on(layout.tensor_parallel)
    if layout.expert_parallel > 1:
        routed = model.routed_bytes()
        return held - routed / tp + routed / layout.expert_parallel
    if layout.pipeline_parallel == 1:
        return held
    # The input embedding is on the first stage, the output head on the last one.
    ends = 2.0 * model.output_parameters() / tp
    layers = held - ends * (1 if model.tied_embeddings else 2)
    return layers * stage_layers(model, layout) / model.layers + ends


def stage_layers(model: Model, layout: Layout) -> int:
    """Layers of the longest stage."""
    return math.ceil(model.layers / layout.pipeline_parallel)


def unsplittable(model: Model, layout: Layout) -> str:
    """The reason why engines cannot use this layout for the model; empty if they can."""
    if layout.expert_parallel > 1:
        if not model.experts:
            return f"{model.name} has no experts to spread over {layout.expert_parallel} accelerators"
        if model.experts % layout.expert_parallel:
            return f"{model.experts} experts cannot be spread evenly over {layout.expert_parallel} accelerators"
    if layout.pipeline_parallel > model.layers:
        return f"{model.layers} layers cannot be cut into {layout.pipeline_parallel} stages"
    return ""


def widened(residuals: Residuals, layout: Layout) -> Residuals:
    """Likely ratio of actual to estimated step times: a wider interval for layouts that were not measured."""
    if layout.is_plain:
        return residuals
    return replace(residuals, low=residuals.low * _FASTER, high=residuals.high * _SLOWER)


def _experts(
    cost: StepCost, model: Model, accelerator: Accelerator, layout: Layout, is_pcie: bool, constants: Constants
) -> StepCost:
    """Each rank runs its own attention, experts run on all accelerators, and all tokens are exchanged before and after.

    The engine's default exchange: every rank receives the tokens of all ranks (all-gather), computes those of its
    experts, and the sums are sent back (reduce-scatter); each transfer is the whole batch without a rank's own part.
    """
    ranks, tp = layout.data_parallel, layout.tensor_parallel
    body_s = body_token_s(model, accelerator, constants) / tp
    routed_s = max(cost.token_s - body_s, 0.0)
    rate, latency_s = link_of(accelerator, is_pcie, constants)
    moved_s = model.moe_layers * 2 * 2.0 * model.hidden_size * (ranks - 1) / ranks / rate
    waits_s = model.moe_layers * 2 * latency_s * (ranks > 1)
    return replace(
        _of_a_rank(cost, ranks),
        experts_s=cost.experts_s / ranks * EXPERT_IMBALANCE,
        padding_s=cost.padding_s / ranks * EXPERT_IMBALANCE,
        token_s=(body_s + routed_s * EXPERT_IMBALANCE) / ranks,
        stall_s=body_s / ranks if ranks > 1 else 0.0,
        one_shot_s=cost.one_shot_s + waits_s,
        one_shot_token_s=cost.one_shot_token_s / ranks + moved_s,
        ring_s=cost.ring_s + waits_s,
        ring_token_s=cost.ring_token_s / ranks + moved_s,
    )


def _stages(
    cost: StepCost,
    model: Model,
    accelerator: Accelerator,
    layout: Layout,
    is_pcie: bool,
    is_networked: bool,
    constants: Constants,
) -> StepCost:
    """One part of the batch passes through all layers while the other parts are in the other stages.

    A step, in which every running request gets a token, therefore takes as long as one part needs for all stages, each
    as long as the longest one; between two stages, the part's hidden states are transferred.
    """
    stages, tp = layout.pipeline_parallel, layout.tensor_parallel
    longest = stage_layers(model, layout) * stages / model.layers
    rate, latency_s = link_of(accelerator, is_pcie, constants)
    if is_networked:
        rate, latency_s = NETWORK_BYTES_PER_S * tp, NETWORK_LATENCY_S
    hops = stages - 1
    moved_s = hops * 2.0 * model.hidden_size / rate / stages
    part = _of_a_rank(cost, stages)
    return replace(
        part,
        weights_s=cost.weights_s * longest,
        experts_s=cost.experts_s * longest,
        padding_s=cost.padding_s * longest,
        expert_decay=cost.expert_decay / stages,
        token_s=part.token_s * longest,
        output_s=part.output_s,
        context_s=part.context_s * longest,
        window_context_s=part.window_context_s * longest,
        position_s=part.position_s * longest,
        window_position_s=part.window_position_s * longest,
        host_s=cost.host_s + hops * constants.t_step_s,
        stall_s=part.token_s * longest,
        one_shot_s=cost.one_shot_s + hops * latency_s,
        one_shot_token_s=cost.one_shot_token_s / stages + moved_s,
        ring_s=cost.ring_s + hops * latency_s,
        ring_token_s=cost.ring_token_s / stages + moved_s,
    )


def _of_a_rank(cost: StepCost, ranks: int) -> StepCost:
    """Convert coefficients that grow with the batch to the whole batch, of which a rank has its part."""
    per_rank = ("token_s", "output_s", "context_s", "window_context_s", "position_s", "window_position_s", "sequence_s")
    shared = {name: getattr(cost, name) / ranks for name in per_rank}
    return replace(cost, ranks=float(ranks) if ranks > 1 else 0.0, **shared)
