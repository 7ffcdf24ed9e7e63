"""The time of one engine step, on which everything rests.

The estimator solves it in closed form, the simulator plays it out, measurements calibrate it. With all quantities
per accelerator after tensor-parallel sharding::

    step = max(W(T) / (bandwidth mbu), (2 N T + 2 H B) / (flops mfu))       linear layers, T = B + P
         + sum over layers of k min(context, window) / (bandwidth mba)      attention over the KV cache
         + P position a / (flops mfu_attention)                             prompt tokens attending to earlier ones
         + 2 layers all_reduce(T)                                           communication, two per layer
         + t_step + t_layer layers + t_sequence B + t_request admitted      host

and, where measured points correct it, all of that times ``min(max(B, least_batch), most_batch) ** batch_power``
(:mod:`melange.profile.anchor`).

B running requests, P prompt tokens read in this step, W(T) the weights that T tokens touch, N the weights that one
token is multiplied with, H the output head, k the KV bytes of one token, a the operations of one query and one key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.replica.coefficients import all_reduces, attention_s, expert_decay, host_s, token_s
from melange.replica.era import Constants
from melange.workload.workload import Array

Values = float | Array

# Stands for a window without end where that would be multiplied by 0: longer than any context [tokens].
_NO_WINDOW = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """What one engine step costs on one replica, as coefficients that need no further look-up.

    Every field is a plain number; :func:`stack` makes one value out of several, whose fields are arrays.

    Parameters
    ----------
    weights_s
        Reading all weights but the routed experts, once [s].
    experts_s
        Reading all routed experts of all layers, once [s].
    expert_decay
        Logarithm of the share of a layer's routed experts that one token leaves untouched.
    token_s
        Arithmetic of the layers' linear parts for one token [s].
    output_s
        Arithmetic of the output head for one running request [s].
    context_s
        Attention of one running request over one cached token, in all layers that look back all the way [s].
    window_context_s
        The same in all layers with a sliding window [s].
    window
        That window; infinite where there is none [tokens].
    position_s
        Arithmetic of one prompt token attending to one earlier token, in all layers that look back all the way [s].
    window_position_s
        The same in all layers with a sliding window [s].
    one_shot_s, one_shot_token_s
        All-reduce in one exchange, of all layers: its latency, and the transfer for one token [s].
    ring_s, ring_token_s
        The same around a ring, which moves less and waits more often [s].
    host_s
        Host work of every step, and of every layer in it [s].
    sequence_s
        Host work for each running request of a step, and reading and writing the state that layers keep of it [s].
    request_s
        Host work once for each request [s].
    stream_s
        What the server's front end takes to hand one token on; it works beside the engine, so steps take no less than
        that of their batch in the mean (:func:`~melange.replica.capacity.mean_step_s`), and no step more [s].
    batch_power, least_batch, most_batch
        Correction by measured points: the whole step times ``batch ** batch_power``, the batch kept within the range
        that was measured; a power of 0 corrects nothing.
    draft_tokens, accepted_tokens
        Draft tokens that a step verifies of each running request, and how many of them it keeps in the mean
        (:mod:`melange.replica.speculation`); 0 without speculation. A step then stands for one of the
        ``1 + accepted_tokens`` tokens that the engine makes at once: ``host_s``, ``sequence_s`` and what attention to
        the KV cache takes are divided by that already.
    ranks
        Parts of a batch that are worked on side by side (:class:`~melange.replica.parallelism.Layout`); 0: it is one.
        Other coefficients are of the whole batch, spread evenly over them.
    stall_s
        Arithmetic of the linear parts for a token that the other ranks wait for, see :func:`stalled_tokens` [s].
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


def step_cost(
    model: Model, accelerator: Accelerator, *, tensor_parallel: int = 1, is_pcie: bool = False, constants: Constants
) -> StepCost:
    """Coefficients of one replica's step time.

    Parameters
    ----------
    model
        Shape and data types.
    accelerator
        Dense peak figures.
    tensor_parallel
        Accelerators that split each layer.
    is_pcie
        Whether they talk over PCIe rather than over the accelerator's own link.
    constants
        The engine era's.

    Examples
    --------
    One request of a 7B model in bf16 on an L4 cannot get a token faster than its weights can be read:

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
        host_s=host_s(model, constants),
        sequence_s=constants.t_sequence_s + constants.t_logit_s * model.vocabulary_size + state_s,
        request_s=constants.t_request_s,
        stream_s=constants.t_stream_s,
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
        Running requests that get a token.
    context_tokens
        Tokens that their KV caches hold in total; with a sliding window they count as evenly spread over the batch.
    prefill_tokens
        Prompt tokens that this step reads besides.
    position
        How many tokens each of those attends to, on average: half the length of a prompt read from its start.
    admitted
        Requests that enter with this step.
    longest
        Most of the prompt tokens that are of one prompt; None: all. It matters where a batch is spread over ranks.
    standing
        :func:`standing_s` of that batch where it is known already [s]; None: it is computed.
    """
    computed = computed_tokens(cost, batch)
    tokens = computed + prefill_tokens
    stalled = stalled_tokens(cost, prefill_tokens, longest)
    time = standing_s(cost, batch, context_tokens) if standing is None else standing
    time = time + _linear_s(cost, computed, tokens, stalled) + _talk_s(cost, tokens + stalled)
    time = time + _prompt_attention_s(cost, prefill_tokens + stalled, position) + cost.request_s * admitted
    return _corrected(cost, batch, time)


def standing_s(cost: StepCost, batch: Values, context_tokens: Values) -> Values:
    """What of a step does not depend on prompts that it reads besides: attention over the KV cache, host work [s]."""
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
    """Mean time of steps of which a share reads prompt tokens besides [s].

    ``(1 - share) step(no prompts) + share step(prompts)`` of :func:`step_time_s`, what both have in common computed
    once.

    Parameters
    ----------
    cost, batch, context_tokens, prefill_tokens, position, admitted, longest
        As there; of the steps with prompts.
    share
        Steps that read prompt tokens, over all, 0-1.
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
    """Tokens that a step's prompts take besides their own, because one rank reads the longest while others wait.

    Prompt tokens count as spread over the ranks; the longest prompt takes ``ranks`` times its part of that.
    """
    if is_absent(cost.ranks):
        return 0.0
    one = prefill_tokens if longest is None else longest
    return np.maximum(np.maximum(cost.ranks, 1.0) * one - prefill_tokens, 0.0)


def computed_tokens(cost: StepCost, batch: Values) -> Values:
    """Tokens that a step computes for running requests: with speculation, drafts beside the next token of each."""
    return batch if is_absent(cost.draft_tokens) else batch * (1.0 + cost.draft_tokens)


def _shared_s(cost: StepCost, computed: Values) -> Values:
    """What of a step's linear layers and communication falls to the other tokens that it makes at once [s]."""
    decode_s = _linear_s(cost, computed, computed) + _talk_s(cost, computed)
    return decode_s - _kept_s(cost, computed, decode_s)


def _kept_s(cost: StepCost, computed: Values, decode_s: Values) -> Values:
    """What of linear layers and communication for running requests falls to one of the tokens made at once [s]."""
    if is_absent(cost.accepted_tokens):
        return decode_s
    return np.where(np.asarray(computed) > 0, decode_s / (1.0 + cost.accepted_tokens), decode_s)


def _look_back_s(cost: StepCost, batch: Values, context_tokens: Values) -> Values:
    """Attention of running requests over their KV cache [s]."""
    time = cost.context_s * context_tokens
    if is_absent(cost.window_context_s):
        return time
    window = np.minimum(cost.window, _NO_WINDOW)  # infinity times no running requests is not 0
    return time + cost.window_context_s * np.minimum(context_tokens, batch * window)


def _linear_s(cost: StepCost, batch: Values, tokens: Values, stalled: Values = 0.0) -> Values:
    """Linear layers: the longer of reading the weights that tokens touch and their arithmetic [s]."""
    read_s: Values = cost.weights_s
    if not is_absent(cost.experts_s):
        read_s = read_s - cost.experts_s * np.expm1(cost.expert_decay * tokens)
    computed_s = cost.token_s * tokens + cost.output_s * batch
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
    """All-reduces of all layers, the faster way [s]."""
    if is_absent(cost.one_shot_token_s):
        return 0.0
    return np.minimum(cost.one_shot_s + cost.one_shot_token_s * tokens, cost.ring_s + cost.ring_token_s * tokens)


def _corrected(cost: StepCost, batch: Values, time: Values) -> Values:
    """Times ``batch ** batch_power`` where measured points say so [s]."""
    if is_absent(cost.batch_power):
        return time
    return time * np.clip(batch, cost.least_batch, cost.most_batch) ** cost.batch_power


def windowed_position(position: Array, window: Values) -> Array:
    """Tokens that one of a prompt attends to within a window, on average; without, it would be ``position``.

    A prompt of ``i = 2 position`` tokens and a window w: ``i / 2`` if ``i <= w``, else ``w - w^2 / (2 i)``.
    """
    within = np.minimum(2.0 * position, window)
    return np.asarray(within - within**2 / np.maximum(4.0 * position, 1e-9), float)


def stack(costs: Sequence[StepCost]) -> StepCost:
    """Several replicas' coefficients as one value with fields of shape (R, 1, 1), or a float where all agree."""
    columns = {field.name: [getattr(cost, field.name) for cost in costs] for field in fields(StepCost)}
    return StepCost(
        **{
            name: column[0] if len(set(column)) == 1 else np.array(column)[:, None, None]
            for name, column in columns.items()
        }
    )


def scaled(cost: StepCost, factor: Values) -> StepCost:
    """The same replica, all of its times multiplied by ``factor``."""
    times = {field.name: getattr(cost, field.name) * factor for field in fields(StepCost) if field.name.endswith("_s")}
    return replace(cost, **times)


def is_absent(values: Values) -> bool:
    """Whether a term is 0 for every replica, and need not be computed."""
    return isinstance(values, float) and values == 0.0
