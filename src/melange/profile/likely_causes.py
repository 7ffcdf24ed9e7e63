"""Why a measured point may differ from the model: prefix caching or speculative decoding.

The model includes neither, and both make a replica faster than its arithmetic allows. Other results of the load test
show them: the time to first token, the rate at which prompts are processed, and the gaps between tokens.
"""

from __future__ import annotations

import numpy as np

from melange.profile.measurement import Measurement
from melange.replica.capacity import Replicas, Sizes, prompt_times_s
from melange.replica.step import step_time_s
from melange.units import ms, significant
from melange.workload.workload import Array

# If a result is faster than predicted by this factor, model error does not explain it: 80 % of step times are within a
# third of the prediction, and prefill times within a half (docs/validation.md). Chosen by judgment.
_SOON = 2.0
_MORE = 1.5
_FAST = 1.75
# Ratio of the gap between chunks to the time per token, above which a chunk holds several tokens: the two averages
# weight requests differently, but do not differ by this much. Chosen by judgment.
_GROUPED = 1.3
# Tokens per step that a file may state, after rounding, without speculation. Chosen by judgment.
_MORE_THAN_ONE = 1.05

PREFIX_CACHING = (
    "prefix caching is a likely cause ({why}): measure with prompts that share no prefix, unless the traffic does "
    "so as well"
)
SPECULATION = (
    "speculative decoding is a likely cause ({why}): its gain depends on the text and shrinks with load, so "
    "measure with real prompts at the planned load"
)


def likely_causes(replicas: Replicas, sizes: Sizes, point: Measurement, batch: float, step_s: float | None) -> str:
    """The likely reason why a measured point is fast, with the evidence; empty if there is no sign of one.

    Parameters
    ----------
    replicas, sizes
        The measured hardware, and the size of the point (1, 1, 1).
    point
        The measured point.
    batch
        Number of running requests.
    step_s
        Measured time of a step; None if only whole requests were measured [s].
    """
    found = []
    if cached := _cached(replicas, sizes, point):
        found.append(PREFIX_CACHING.format(why=cached))
    if speculated := _speculated(replicas, sizes, point, batch, step_s):
        found.append(SPECULATION.format(why=speculated))
    return "; ".join(found)


def _cached(replicas: Replicas, sizes: Sizes, point: Measurement) -> str:
    """Evidence that prompts were not processed in full; empty if there is none."""
    prompt_s = _value(prompt_times_s(replicas, sizes, np.ones((1, 1, 1)))[0])
    first_s = point.ttft_s.get("mean")
    if first_s and first_s < prompt_s / _SOON:
        return f"the first token arrives after {_ms(first_s)}, but reading the prompt takes {_ms(prompt_s)}"
    rate = _rate(point)
    if rate and rate * prompt_s > _MORE:
        return f"{significant(rate)} prompts per second were answered, but only {significant(1 / prompt_s)} can be read"
    return ""


def _speculated(replicas: Replicas, sizes: Sizes, point: Measurement, batch: float, step_s: float | None) -> str:
    """Evidence that a step generates several tokens; empty if there is none."""
    if point.tokens_per_step and point.tokens_per_step > _MORE_THAN_ONE:
        return f"the file says {significant(point.tokens_per_step)} tokens per step"
    tpot_s, itl_s = point.tpot_s.get("mean"), point.itl_s.get("mean")
    if tpot_s and itl_s and itl_s > _GROUPED * tpot_s:
        return f"tokens arrive in groups, {_ms(itl_s)} apart, at {_ms(tpot_s)} per token"
    if step_s is None:
        return ""
    running = np.full((1, 1, 1), max(batch, 1.0))
    own_s = _value(step_time_s(replicas.cost, batch=running, context_tokens=running * sizes.residency))
    if step_s < own_s / _FAST:
        return f"a token takes {_ms(step_s)}, but a step without prompts takes {_ms(own_s)}"
    return ""


def _rate(point: Measurement) -> float | None:
    """Requests answered [1/s]; by Little's law if the file does not say."""
    if point.achieved_rate:
        return point.achieved_rate
    latency_s = point.latency_s.get("mean")
    return point.concurrency / latency_s if point.concurrency and latency_s else None


def _value(array: Array | float) -> float:
    return float(np.asarray(array)[0, 0, 0])


def _ms(time_s: float) -> str:
    return f"{significant(ms(time_s))} ms"
