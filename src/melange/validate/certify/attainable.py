"""What no fleet can exceed: the share of requests that meet the SLO when a replica has nothing else to do.

A request that misses its limits alone on an idle replica of every allowed type misses them in every fleet of those
types, however many replicas are rented. So a target above that share is answered at once, with the share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.plan.question import Question
from melange.plan.servable import scope_of
from melange.replica.alone import idle_times_s
from melange.replica.engine import Engine
from melange.slo import Slo
from melange.validate.attainment import AT_LIMIT, wilson
from melange.workload.arrivals import Arrivals
from melange.workload.workload import Array, Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Attainable:
    """The most that any fleet of the allowed types can reach.

    Parameters
    ----------
    share
        Share of the requests that meet every limit alone on some allowed type, 0-1.
    high
        Upper end of its 95 % interval, as other requests of the same sizes may say.
    why
        What keeps the others from it, one sentence each, the most frequent first.
    """

    share: float
    high: float
    why: tuple[str, ...]


def attainable(question: Question, slo: Slo, arrivals: Sequence[Arrivals]) -> Attainable:
    """The bound for requests of these sizes, taken one by one, so that their times do not matter.

    It is 1 where the steps of an allowed type that serves anything are not known.
    """
    inputs = np.concatenate([one.input_tokens for one in arrivals]).astype(float)
    outputs = np.concatenate([one.output_tokens for one in arrivals]).astype(float)
    cached = np.concatenate([_cached(one) for one in arrivals])
    engines = _engines(question)
    if None in engines:
        return Attainable(share=1.0, high=1.0, why=())
    least = {metric: np.full(len(inputs), np.inf) for metric in slo.limits}
    left = np.arange(len(inputs))
    for engine in engines:
        if engine is None or not len(left):
            break
        ratio = _limit_ratios(engine, slo, inputs[left], outputs[left], cached[left])
        closer = np.maximum.reduce(list(ratio.values())) < np.maximum.reduce([one[left] for one in least.values()])
        for metric, values in ratio.items():
            least[metric][left] = np.where(closer, values, least[metric][left])
        left = left[np.maximum.reduce([one[left] for one in least.values()]) > AT_LIMIT]
    share = (len(inputs) - len(left)) / len(inputs)
    missed = {metric: values[left] for metric, values in least.items()}
    return Attainable(share=share, high=wilson(share, len(inputs))[1], why=_why(missed, len(inputs)))


def _cached(arrivals: Arrivals) -> Array:
    known = arrivals.cached_tokens
    return np.zeros(len(arrivals)) if known is None else np.asarray(known, float)


def _engines(question: Question) -> tuple[Engine | None, ...]:
    """The distinct engines of the allowed types; None where the engine of one that serves anything is not known."""
    allowed, serves = scope_of(question).allowed, question.profile.max_request_rate.max(axis=(1, 2)) > 0
    engines = question.profile.engines or (None,) * len(allowed)
    return tuple(dict.fromkeys(engines[r] for r in np.flatnonzero(allowed) if engines[r] or serves[r]))


def _limit_ratios(engine: Engine, slo: Slo, inputs: Array, outputs: Array, cached: Array) -> dict[str, Array]:
    """Each limited metric over its limit for requests alone on a replica (N,); infinite where it cannot hold them."""
    if engine.cost.batch_power < 0:
        # Measured corrections may make the steps of larger batches shorter: a bound takes the shortest.
        engine = replace(engine, cost=replace(engine.cost, least_batch=engine.cost.most_batch))
    ttft, latency = idle_times_s(engine, inputs, outputs, cached)
    values = {
        "ttft": ttft,
        "tpot": (latency - ttft) / np.maximum(outputs - 1, 1),
        "ntpot": latency / outputs,
        "latency": latency,
    }
    fits = _fits(engine, inputs + outputs)
    return {metric: np.where(fits, values[metric] / limit, np.inf) for metric, limit in slo.limits.items()}


def _fits(engine: Engine, tokens: Array) -> Mask:
    """Whether a replica holds requests of these lengths at all."""
    windowed = np.minimum(tokens, engine.window) if engine.sliding_layers else np.zeros_like(tokens)
    held = engine.full_layers * tokens + engine.sliding_layers * windowed
    return np.asarray((tokens <= engine.max_context) & (held <= engine.kv_tokens))


def _why(ratio: dict[str, Array], count: int) -> tuple[str, ...]:
    """How many of all requests exceed each limit even where they come closest to meeting them, and by how much."""
    said = []
    for metric, values in ratio.items():
        unfit, over = np.isinf(values), np.isfinite(values) & (values > AT_LIMIT)
        if over.any():
            said.append(
                f"{over.sum() / count:.2%} of the requests exceed the limit on {metric.upper()} even alone on the type "
                f"that comes closest, by {np.median(values[over]) - 1:.0%} in the median"
            )
    if unfit.any():
        said.append(f"{unfit.sum() / count:.2%} of the requests fit into no allowed type")
    return tuple(said)
