"""The time of one engine step, compiled: the formula of :func:`melange.replica.step.step_time_s`, one step at a time.

That function assumes equal requests (the positions of a prompt's tokens, context within a sliding window); this module
uses the exact sums over the actual requests.
"""

from __future__ import annotations

import math
from dataclasses import fields

from melange.replica.simulated.compiling import inner
from melange.replica.step import StepCost

# Columns of a row of coefficients: the fields of StepCost, in their order.
_NAMES = tuple(field.name for field in fields(StepCost))
(
    WEIGHTS,
    EXPERTS,
    EXPERT_DECAY,
    TOKEN,
    OUTPUT,
    CONTEXT,
    WINDOW_CONTEXT,
    WINDOW,
    POSITION,
    WINDOW_POSITION,
    ONE_SHOT,
    ONE_SHOT_TOKEN,
    RING,
    RING_TOKEN,
    HOST,
    SEQUENCE,
    REQUEST,
    STREAM,
    BATCH_POWER,
    LEAST_BATCH,
    MOST_BATCH,
    DRAFT_TOKENS,
    ACCEPTED_TOKENS,
    RANKS,
    STALL,
    PADDING,
) = range(len(_NAMES))


@inner
def fixed_s(cost, batch, prefill, longest, pairs, window_pairs, admitted):  # type: ignore[no-untyped-def]
    """A step's time without attention over the KV cache, uncorrected [s].

    Parameters
    ----------
    cost
        A row of coefficients (C,).
    batch
        Requests that get a token.
    prefill
        Prompt tokens that the step also processes.
    longest
        Most prompt tokens that belong to one prompt, which one rank processes while the others wait.
    pairs, window_pairs
        Number of earlier tokens that each prompt token attends to, summed over the prompt tokens: in layers that attend
        to all tokens, and in layers with a window.
    admitted
        Requests that are admitted with this step.
    """
    computed = batch * (1.0 + cost[DRAFT_TOKENS])
    time_s = cost[POSITION] * pairs + cost[WINDOW_POSITION] * window_pairs
    stalled = 0.0
    if cost[RANKS] > 1.0 and prefill > 0:
        stalled = max(cost[RANKS] * longest - prefill, 0.0)
        time_s *= 1.0 + stalled / prefill
    tokens, part = computed + prefill, 1.0
    while True:
        read_s = cost[WEIGHTS]
        computed_s = cost[TOKEN] * tokens + cost[OUTPUT] * computed + cost[STALL] * stalled
        if cost[EXPERTS] != 0.0:
            minus_touched = math.expm1(cost[EXPERT_DECAY] * tokens)
            read_s -= cost[EXPERTS] * minus_touched
            computed_s -= cost[PADDING] * minus_touched
        shared_s = max(read_s, computed_s)
        if cost[ONE_SHOT_TOKEN] != 0.0:
            sent = tokens + stalled
            once = cost[ONE_SHOT] + cost[ONE_SHOT_TOKEN] * sent
            shared_s += min(once, cost[RING] + cost[RING_TOKEN] * sent)
        time_s += part * shared_s
        if cost[ACCEPTED_TOKENS] == 0.0 or batch == 0 or part < 0.0:
            return time_s + cost[HOST] + cost[SEQUENCE] * batch + cost[REQUEST] * admitted
        # Subtract the share of the other tokens that the step generates at once for each running request.
        stalled, tokens, part = 0.0, computed, 1.0 / (1.0 + cost[ACCEPTED_TOKENS]) - 1.0


@inner
def batch_factor(cost, batch):  # type: ignore[no-untyped-def]
    """The factor on a step's time, from measured points."""
    if cost[BATCH_POWER] == 0.0:
        return 1.0
    return min(max(batch, cost[LEAST_BATCH]), cost[MOST_BATCH]) ** cost[BATCH_POWER]


@inner
def attended(position, window):  # type: ignore[no-untyped-def]
    """Number of earlier tokens within a window that each of a prompt's first ``position`` tokens attends to, summed."""
    if position <= window:
        return 0.5 * position * position
    return window * position - 0.5 * window * window
