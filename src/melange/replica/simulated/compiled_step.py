"""The time of one engine step, compiled: the formula of :func:`melange.replica.step.step_time_s`, one step at a time.

Where that one assumes requests to be alike (the positions of a prompt's tokens, context within a sliding window), this
one is given the exact sums over the requests at hand.
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
) = range(len(_NAMES))


@inner
def fixed_s(cost, batch, prefill, longest, pairs, window_pairs, admitted):  # type: ignore[no-untyped-def]
    """A step's time but for attention over the KV cache, uncorrected [s].

    Parameters
    ----------
    cost
        A row of coefficients (C,).
    batch
        Requests that get a token.
    prefill
        Prompt tokens that are read besides.
    longest
        Most of them that are of one prompt, which one rank reads while others wait.
    pairs, window_pairs
        Earlier tokens that those attend to, summed over them: in layers that look back all the way, and in the others.
    admitted
        Requests that enter with this step.
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
        if cost[EXPERTS] != 0.0:
            read_s -= cost[EXPERTS] * math.expm1(cost[EXPERT_DECAY] * tokens)
        shared_s = max(read_s, cost[TOKEN] * tokens + cost[OUTPUT] * computed + cost[STALL] * stalled)
        if cost[ONE_SHOT_TOKEN] != 0.0:
            sent = tokens + stalled
            once = cost[ONE_SHOT] + cost[ONE_SHOT_TOKEN] * sent
            shared_s += min(once, cost[RING] + cost[RING_TOKEN] * sent)
        time_s += part * shared_s
        if cost[ACCEPTED_TOKENS] == 0.0 or batch == 0 or part < 0.0:
            return time_s + cost[HOST] + cost[SEQUENCE] * batch + cost[REQUEST] * admitted
        # What of the tokens of running requests falls to the others that this step makes at once.
        stalled, tokens, part = 0.0, computed, 1.0 / (1.0 + cost[ACCEPTED_TOKENS]) - 1.0


@inner
def batch_factor(cost, batch):  # type: ignore[no-untyped-def]
    """What measured points say that a step's time is to be multiplied with."""
    if cost[BATCH_POWER] == 0.0:
        return 1.0
    return min(max(batch, cost[LEAST_BATCH]), cost[MOST_BATCH]) ** cost[BATCH_POWER]


@inner
def attended(position, window):  # type: ignore[no-untyped-def]
    """Earlier tokens within a window that a prompt's first ``position`` tokens attend to, summed over them."""
    if position <= window:
        return 0.5 * position * position
    return window * position - 0.5 * window * window
