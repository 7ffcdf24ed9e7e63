"""The time of one engine step, the basis of all other results.

The estimator solves it in closed form, the simulator plays it out, and measurements calibrate it. With all quantities
per accelerator after tensor-parallel sharding::

    step = max(W(T) / (bandwidth mbu), (2 N T + 2 H B + 2 E(T)) / (flops mfu))    linear layers, T = B + P
         + sum over layers of k min(context, window) / (bandwidth mba)      attention over the KV cache
         + P position a / (flops mfu_attention)                             prompt tokens attending to earlier ones
         + 2 layers all_reduce(T)                                           communication, two per layer
         + t_step + t_layer layers + t_sequence B + t_request admitted      host

If measured points correct it, the result is multiplied by ``min(max(B, least_batch), most_batch) ** batch_power``
(:mod:`melange.profile.anchor`).

B running requests, P prompt tokens processed in this step, W(T) the weights that T tokens touch, N the weights that one
token is multiplied with, H the output head, E(T) the empty parts of tiles in the routed experts that T tokens touch,
k the KV bytes of one token, a the operations of one query and one key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.replica.coefficients import all_reduces, attention_s, expert_decay, host_s, padding_s, token_s
from melange.replica.era import Constants
from melange.workload.workload import Array

Values = float | Array

# Replaces an infinite window where it would be multiplied by 0: longer than any context [tokens].
_NO_WINDOW = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """The time of one engine step on one replica, as coefficients that need no further look-up.

    Every field is a plain number; :func:`stack` combines several values into one with arrays as fields.

    Parameters
    ----------
    weights_s
        Reading all weights except the routed experts, once [s].
    experts_s
        Reading all routed experts of all layers, once [s].
    expert_decay
        Logarithm of the share of a layer's routed experts that one token leaves untouched.
    token_s
        Arithmetic of the layers' linear parts for one token [s].
    output_s
        Arithmetic of the output head for one running request [s].
    context_s
        Attention of one running request per cached token, in all layers that attend to all tokens [s].
    window_context_s
        The same in all layers with a sliding window [s].
    window
        That window; infinite if there is none [tokens].
    position_s
        Arithmetic of one prompt token attending to one earlier token, in all layers that attend to all tokens [s].
    window_position_s
        The same in all layers with a sliding window [s].
    one_shot_s, one_shot_token_s
        All-reduces of all layers in one exchange each: latency, and transfer time per token [s].
    ring_s, ring_token_s
        The same around a ring, which transfers less data and waits more often [s].
    host_s
        Host time of every step, and of every layer in it [s].
    sequence_s
        Host time per running request of a step, plus reading and writing its state in all layers [s].
    request_s
        Host time once per request [s].
    stream_s
        Time of the server's front end to send one token. It works in parallel to the engine: mean step times are at
        least the time for their batch (:func:`~melange.replica.capacity.mean_step_s`), but no single step is longer
        [s].
    batch_power, least_batch, most_batch
        Correction by measured points: the whole step is multiplied by ``batch ** batch_power``, with the batch size
        limited to the measured range; a power of 0 corrects nothing.
    draft_tokens, accepted_tokens
        Draft tokens that a step verifies for each running request, and the mean number that it accepts
        (:mod:`melange.replica.speculation`); 0 without speculation. A step then means one of the
        ``1 + accepted_tokens`` tokens that the engine generates at once: ``host_s``, ``sequence_s`` and the time of
        attention over the KV cache are already divided by that.
    ranks
        Parts of a batch that run in parallel (:class:`~melange.replica.parallelism.Layout`); 0: a single one. Other
        coefficients refer to the whole batch, spread evenly over the ranks.
    stall_s
        Arithmetic of the linear parts for a token for which the other ranks wait, see :func:`stalled_tokens` [s].
    padding_s
        Arithmetic for the empty parts of tiles of tokens, if every routed expert has tokens [s].
    """

    weights_s: Values
    experts_s: Values
    expert_decay: Values
    token_s: Values
    output_s: Values
    context_s: Values
    window_context_s: Values
    window: Values
    position_s: Values
    window_position_s: Values
    one_shot_s: Values
    one_shot_token_s: Values
    ring_s: Values
    ring_token_s: Values
    host_s: Values
    sequence_s: Values
    request_s: Values
    stream_s: Values = 0.0
    batch_power: Values = 0.0
    least_batch: Values = 1.0
    most_batch: Values = math.inf
    draft_tokens: Values = 0.0
    accepted_tokens: Values = 0.0
    ranks: Values = 0.0
    stall_s: Values = 0.0
    padding_s: Values = 0.0


def step_cost(
    model: Model, accelerator: Accelerator, *, tensor_parallel: int = 1, is_pcie: bool = False, constants: Constants
) -> StepCost:
    """Coefficients of one replica's step time.

    Parameters
    ----------
    model
        Shape and data types.
    accelerator
        Its facts; the figures are dense peak values.
    tensor_parallel
        Accelerators that split each layer.
    is_pcie
        Whether they communicate over PCIe rather than over the accelerator's own link.
    constants
        The constants of the engine era.

    Examples
    --------
    One request of a 7B model in bf16 on an L4 cannot get a token in less time than reading its weights takes:

    >>> from melange.catalog.bundled import accelerators, find_model
    >>> from melange.replica.era import find_era
    >>> llama, era = find_model("meta-llama/Llama-2-7b-hf"), find_era("vllm")
    >>> cost = step_cost(llama, accelerators()["L4"], constants=era.constants)
    >>> 0.044 < float(step_time_s(cost, batch=1, context_tokens=500)) < 0.065
    True
    """
    bandwidth = accelerator.bandwidth_bytes_per_s
    flops = accelerator.flops("bf16")
    weights_rate = bandwidth * constants.mbu * tensor_parallel
    always_read = model.body_bytes() + 2.0 * (model.router_parameters() + model.output_parameters())
    attention = attention_s(model, accelerator, tensor_parallel, constants)
    state_s = 2 * model.state_bytes() / (tensor_parallel * bandwidth * constants.mba)
    reduces = all_reduces(model, accelerator, tensor_parallel, is_pcie, constants)
    return StepCost(
        weights_s=always_read / weights_rate,
        experts_s=model.routed_bytes() / weights_rate,
        expert_decay=expert_decay(model),
        token_s=token_s(model, accelerator, constants) / tensor_parallel,
        output_s=2.0 * model.output_parameters() / (flops * constants.mfu * tensor_parallel),
        context_s=attention[0],
        window_context_s=attention[1],
        window=float(model.kv_shape().window or math.inf),
        position_s=attention[2],
        window_position_s=attention[3],
        one_shot_s=reduces[0],
        one_shot_token_s=reduces[1],
        ring_s=reduces[2],
        ring_token_s=reduces[3],
        host_s=host_s(model, accelerator, constants),
        sequence_s=constants.t_sequence_s + constants.t_logit_s * model.vocabulary_size + state_s,
        request_s=constants.t_request_s,
        stream_s=constants.t_stream_s,
        padding_s=padding_s(model, accelerator, constants) / tensor_parallel,
    )


def step_time_s(
    cost: StepCost,
    *,
    batch: Values,
    context_tokens: Values,
    prefill_tokens: Values = 0.0,
    position: Values = 0.0,
    admitted: Values = 0.0,
    longest: Values | None = None,
    standing: Values | None = None,
) -> Values:
    """Time of one engine step [s].

    Parameters
    ----------
    cost
        Coefficients of one replica (plain floats), or a stack of them (arrays that broadcast with the others).
    batch
        Running requests that generate a token.
    context_tokens
        Tokens that their KV caches hold in total; with a sliding window they count as evenly spread over the batch.
    prefill_tokens
        Prompt tokens that this step also processes.
    position
        Mean number of tokens that each of these attends to: half the length of a prompt processed from its start.
    admitted
        Requests that are admitted with this step.
    longest
        Most prompt tokens that belong to one prompt; None: all. It matters if a batch is spread over ranks.
    standing
        :func:`standing_s` of that batch if it is already known [s]; None: it is computed.
    """
    computed = computed_tokens(cost, batch)
    tokens = computed + prefill_tokens
    stalled = stalled_tokens(cost, prefill_tokens, longest)
    time = standing_s(cost, batch, context_tokens) if standing is None else standing
    time = time + _linear_s(cost, computed, tokens, stalled) + _talk_s(cost, tokens + stalled)
    time = time + _prompt_attention_s(cost, prefill_tokens + stalled, position) + cost.request_s * admitted
    return _corrected(cost, batch, time)


def standing_s(cost: StepCost, batch: Values, context_tokens: Values) -> Values:
    """The part of a step that is independent of its prompt tokens: attention over the KV cache, host work [s]."""
    time = _look_back_s(cost, batch, context_tokens) + cost.host_s + cost.sequence_s * batch
    if is_absent(cost.accepted_tokens):
        return time
    return time - _shared_s(cost, computed_tokens(cost, batch))


def mean_time_s(
    cost: StepCost,
    *,
    batch: Values,
    context_tokens: Values,
    share: Values,
    prefill_tokens: Values,
    position: Values,
    admitted: Values,
    longest: Values | None = None,
) -> Values:
    """Mean time of steps of which a share also processes prompt tokens [s].

    ``(1 - share) step(no prompts) + share step(prompts)`` with :func:`step_time_s`; the common part is computed once.

    Parameters
    ----------
    cost, batch, context_tokens, prefill_tokens, position, admitted, longest
        As for :func:`step_time_s`, for the steps with prompts.
    share
        Steps that process prompt tokens, as a share of all steps, 0-1.
    """
    computed = computed_tokens(cost, batch)
    tokens = computed + prefill_tokens
    stalled = stalled_tokens(cost, prefill_tokens, longest)
    without = _linear_s(cost, computed, computed) + _talk_s(cost, computed)
    added = _linear_s(cost, computed, tokens, stalled) + _talk_s(cost, tokens + stalled) - without
    added = added + _prompt_attention_s(cost, prefill_tokens + stalled, position) + cost.request_s * admitted
    time = _kept_s(cost, computed, without) + _look_back_s(cost, batch, context_tokens) + share * added
    return _corrected(cost, batch, time + cost.host_s + cost.sequence_s * batch)


def stalled_tokens(cost: StepCost, prefill_tokens: Values, longest: Values | None) -> Values:
    """Additional tokens of a step's prompts, because one rank processes the longest while the others wait.

    Prompt tokens count as spread over the ranks; the longest prompt takes ``ranks`` times its part of that.
    """
    if is_absent(cost.ranks):
        return 0.0
    one = prefill_tokens if longest is None else longest
    return np.maximum(np.maximum(cost.ranks, 1.0) * one - prefill_tokens, 0.0)


def computed_tokens(cost: StepCost, batch: Values) -> Values:
    """Tokens that a step computes for running requests: with speculation, the next token of each and its drafts."""
    return batch if is_absent(cost.draft_tokens) else batch * (1.0 + cost.draft_tokens)


def _shared_s(cost: StepCost, computed: Values) -> Values:
    """The part of a step's linear layers and communication that belongs to the other tokens generated at once [s]."""
    decode_s = _linear_s(cost, computed, computed) + _talk_s(cost, computed)
    return decode_s - _kept_s(cost, computed, decode_s)


def _kept_s(cost: StepCost, computed: Values, decode_s: Values) -> Values:
    """Linear layers and communication for running requests, per token of those generated at once [s]."""
    if is_absent(cost.accepted_tokens):
        return decode_s
    return np.where(np.asarray(computed) > 0, decode_s / (1.0 + cost.accepted_tokens), decode_s)


def _look_back_s(cost: StepCost, batch: Values, context_tokens: Values) -> Values:
    """Attention of running requests over their KV cache [s]."""
    time = cost.context_s * context_tokens
    if is_absent(cost.window_context_s):
        return time
    window = np.minimum(cost.window, _NO_WINDOW)  # infinity times zero running requests is not 0
    return time + cost.window_context_s * np.minimum(context_tokens, batch * window)


def _linear_s(cost: StepCost, batch: Values, tokens: Values, stalled: Values = 0.0) -> Values:
    """Linear layers: the longer of reading the weights that tokens touch and their arithmetic [s]."""
    read_s: Values = cost.weights_s
    computed_s = cost.token_s * tokens + cost.output_s * batch
    if not is_absent(cost.experts_s):
        minus_touched = np.expm1(cost.expert_decay * tokens)  # minus the share of experts that tokens touch
        read_s = read_s - cost.experts_s * minus_touched
        computed_s = computed_s - cost.padding_s * minus_touched
    if not is_absent(cost.stall_s):
        computed_s = computed_s + cost.stall_s * stalled
    return np.maximum(read_s, computed_s)


def _prompt_attention_s(cost: StepCost, prefill_tokens: Values, position: Values) -> Values:
    """Prompt tokens attending to earlier ones [s]."""
    time = cost.position_s * (prefill_tokens * position)
    if is_absent(cost.window_position_s):
        return time
    looked_at = windowed_position(np.asarray(position, float), cost.window)
    return time + cost.window_position_s * (prefill_tokens * looked_at)


def _talk_s(cost: StepCost, tokens: Values) -> Values:
    """All-reduces of all layers, by the faster method [s]."""
    if is_absent(cost.one_shot_token_s):
        return 0.0
    return np.minimum(cost.one_shot_s + cost.one_shot_token_s * tokens, cost.ring_s + cost.ring_token_s * tokens)


def _corrected(cost: StepCost, batch: Values, time: Values) -> Values:
    """The time multiplied by ``batch ** batch_power`` if there are measured points [s]."""
    if is_absent(cost.batch_power):
        return time
    return time * np.clip(batch, cost.least_batch, cost.most_batch) ** cost.batch_power


def windowed_position(position: Array, window: Values) -> Array:
    """Mean number of tokens within a window that a prompt token attends to; without a window it would be ``position``.

    A prompt of ``i = 2 position`` tokens and a window w: ``i / 2`` if ``i <= w``, else ``w - w^2 / (2 i)``.
    """
    within = np.minimum(2.0 * position, window)
    return np.asarray(within - within**2 / np.maximum(4.0 * position, 1e-9), float)


def stack(costs: Sequence[StepCost]) -> StepCost:
    """Several replicas' coefficients as one value with fields of shape (R, 1, 1), or a float if all are equal."""
    columns = {field.name: [getattr(cost, field.name) for cost in costs] for field in fields(StepCost)}
    return StepCost(
        **{
            name: column[0] if len(set(column)) == 1 else np.array(column)[:, None, None]
            for name, column in columns.items()
        }
    )


def scaled(cost: StepCost, factor: Values) -> StepCost:
    """The same replica with all times multiplied by ``factor``."""
    times = {field.name: getattr(cost, field.name) * factor for field in fields(StepCost) if field.name.endswith("_s")}
    return replace(cost, **times)


def is_absent(values: Values) -> bool:
    """Whether a term is 0 for every replica, and need not be computed."""
    return isinstance(values, float) and values == 0.0
