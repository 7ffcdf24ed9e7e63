"""Upper bound for any fleet: the share of requests that meet the SLO alone on an idle replica.

A request that misses its limits alone on an idle replica of every allowed type misses them in every fleet of those
types, however many replicas are rented. So the search does not aim for a target above that share, but for a lower one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from melange.plan.problem import allowed_types
from melange.plan.question import Question
from melange.replica.alone import idle_times_s
from melange.replica.engine import Engine
from melange.replica.memory import held_in
from melange.replica.simulated.outcome import metrics_s
from melange.slo import Slo
from melange.units import percent
from melange.validate.attainment import AT_LIMIT, wilson
from melange.workload.arrivals import Arrivals
from melange.workload.workload import Array, Mask

# Parts of a request below this are rounding noise.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Attainable:
    """The most that any fleet of the allowed types can reach.

    Parameters
    ----------
    share
        Share of the requests that meet every limit alone on some allowed type, 0-1.
    high
        Upper end of its 95 % interval, because other requests of the same sizes may differ.
    why
        Why the other requests miss, one sentence each, the most frequent reason first.
    excess
        How much each of the other requests misses: largest metric over the limit on the type that comes closest (M,).
    exceeded
        The metrics whose limits some of the other requests exceed on that type.
    """

    share: float
    high: float
    why: tuple[str, ...]
    excess: Array = field(default_factory=lambda: np.empty(0))
    exceeded: tuple[str, ...] = ()

    def lifted_by(self, target: float) -> float:
        """Factor on the ``exceeded`` limits that would make a target feasible.

        Infinite if no factor does.
        """
        if target <= self.share:
            return 1.0
        count = len(self.excess) / (1.0 - self.share)
        more = max(int(np.ceil((target - self.share) * count - _ROUNDING)), 1)
        return float(np.sort(self.excess)[min(more, len(self.excess)) - 1])


def attainable(question: Question, slo: Slo, arrivals: Sequence[Arrivals]) -> Attainable:
    """The bound for requests of these sizes, each taken alone, so that their arrival times do not matter.

    It is 1 if the steps of an allowed type that serves anything are not known.
    """
    inputs = np.concatenate([one.input_tokens for one in arrivals]).astype(float)
    outputs = np.concatenate([one.output_tokens for one in arrivals]).astype(float)
    cached = np.concatenate([_cached(one) for one in arrivals])
    engines = _engines(question)
    known = [engine for engine in engines if engine]
    if len(known) < len(engines):
        return Attainable(share=1.0, high=1.0, why=())
    least = np.full((len(slo.limits), len(inputs)), np.inf)
    left = np.arange(len(inputs))
    for engine in known:
        ratio = limit_ratios(engine, slo.limits, inputs[left], outputs[left], cached[left])
        closer = ratio.max(axis=0) < least[:, left].max(axis=0)
        least[:, left] = np.where(closer, ratio, least[:, left])
        left = left[least[:, left].max(axis=0) > AT_LIMIT]
        if not len(left):
            break
    share = (len(inputs) - len(left)) / len(inputs)
    why = _why(slo, least[:, left], len(inputs))
    high = wilson(share, len(inputs))[1]
    is_over = (least[:, left] > AT_LIMIT).any(axis=1)
    exceeded = tuple(metric for metric, over in zip(slo.limits, np.atleast_1d(is_over).tolist(), strict=True) if over)
    return Attainable(share=share, high=high, why=why, excess=least[:, left].max(axis=0), exceeded=exceeded)


def _cached(arrivals: Arrivals) -> Array:
    known = arrivals.cached_tokens
    return np.zeros(len(arrivals)) if known is None else np.asarray(known, float)


def _engines(question: Question) -> tuple[Engine | None, ...]:
    """The distinct engines of the allowed types; None if the engine of a type that serves anything is not known."""
    allowed, serves = allowed_types(question), question.profile.max_request_rate.max(axis=(1, 2)) > 0
    engines = question.profile.engines or (None,) * len(allowed)
    return tuple(dict.fromkeys(engines[r] for r in np.flatnonzero(allowed) if engines[r] or serves[r]))


def limit_ratios(
    engine: Engine, limits: Mapping[str, float | Array], inputs: Array, outputs: Array, cached: Array
) -> Array:
    """Each limited metric over its limit (M, N) for requests alone on a replica; infinite if it cannot hold them.

    A limit is one number for all requests, or one for each request (N,) [s].
    """
    if engine.cost.batch_power < 0:
        # Measured corrections may shorten the steps of larger batches: a bound takes the shortest steps.
        engine = replace(engine, cost=replace(engine.cost, least_batch=engine.cost.most_batch))
    values = metrics_s(*idle_times_s(engine, inputs, outputs, cached), outputs)
    ratio = np.stack([values[metric] / limit for metric, limit in limits.items()])
    return np.where(_fits(engine, inputs + outputs), ratio, np.inf)


def _fits(engine: Engine, tokens: Array) -> Mask:
    """Whether a replica holds requests of these lengths at all."""
    held = held_in(engine.full_layers, engine.sliding_layers, engine.window, tokens, 0, engine.state_units)
    return np.asarray((tokens <= engine.max_context) & (held <= engine.kv_tokens))


def _why(slo: Slo, ratio: Array, count: int) -> tuple[str, ...]:
    """Why requests miss the SLO on the types that come closest (M, N), of ``count`` requests in total."""
    unfit = np.isinf(ratio).any(axis=0)
    found = [(int(unfit.sum()), "fit on no allowed type")]
    for metric, values in zip(slo.limits, ratio[:, ~unfit], strict=True):
        over = values[values > AT_LIMIT]
        if len(over):
            median = float(np.median(over))
            times = f": the median takes {median:.1f} times as long"
            excess = f", by {median - 1:.0%} in the median" if median < 2 else times
            which = f"exceed the {metric.upper()} limit even alone on the closest type{excess}"
            found.append((len(over), which))
    found.sort(key=lambda pair: -pair[0])
    return tuple(f"{percent(number / count, 2)} of the requests {what}" for number, what in found if number)
