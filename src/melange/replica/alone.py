"""Latency of a single request on an idle replica: the minimum."""

from __future__ import annotations

import numpy as np

from melange.replica.engine import Engine
from melange.replica.step import StepCost, step_time_s
from melange.workload.workload import Array


def idle_times_s(engine: Engine, inputs: Array, outputs: Array, cached: Array) -> tuple[Array, Array]:
    """Time to first token and latency of requests that run alone on a replica (N,) [s].

    The part of ``cached`` tokens in the engine's prefix cache needs no prefill. The rest of the prompt takes full
    chunks and one partial chunk, then each token takes one step; sums over tokens are in closed form.
    """
    cached = np.floor(cached * engine.prefix_kept)
    cost, unread = engine.cost, inputs - cached
    budget = float(engine.max_batched_tokens) if engine.is_chunked else np.inf
    full = np.floor(unread / budget)
    rest = unread - full * np.where(full > 0, budget, 0.0)
    once = step_time_s(cost, batch=0.0, context_tokens=0.0, prefill_tokens=rest, admitted=1.0)
    ttft = np.where(rest > 0, once, cost.request_s)
    if np.isfinite(budget):
        ttft = ttft + full * step_time_s(cost, batch=0.0, context_tokens=0.0, prefill_tokens=budget)
    # A single prompt runs on one rank, while the others wait.
    factor = _correction(cost, 0.0) * max(float(cost.ranks), 1.0)
    ttft = ttft + factor * cost.position_s * (inputs**2 - cached**2) / 2
    steps = outputs - 1
    window = float(engine.window) if engine.sliding_layers else np.inf
    if engine.sliding_layers:
        ttft = ttft + factor * cost.window_position_s * (_seen(inputs, window) - _seen(cached, window))
    base = step_time_s(cost, batch=1.0, context_tokens=0.0)
    look_back = cost.context_s * _sum_to(inputs, steps)
    if engine.sliding_layers:
        short = np.clip(window - inputs, 0.0, steps)
        look_back = look_back + cost.window_context_s * (_sum_to(inputs, short) + window * (steps - short))
    return np.asarray(ttft), np.asarray(ttft + steps * base + _correction(cost, 1.0) * look_back)


def _sum_to(inputs: Array, steps: Array) -> Array:
    """``(i + 1) + (i + 2) + ... + (i + steps)``."""
    return inputs * steps + steps * (steps + 1) / 2


def _seen(tokens: Array, window: float) -> Array:
    return np.where(tokens <= window, tokens**2 / 2, window * tokens - window**2 / 2)


def _correction(cost: StepCost, batch: float) -> float:
    return float(np.clip(batch, cost.least_batch, cost.most_batch) ** cost.batch_power) if cost.batch_power else 1.0
