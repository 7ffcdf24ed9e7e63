"""Maximum rates under limits without a closed form, on requests and percentiles: found by simulation.

One replica serves one size, with Poisson arrivals. The rate is raised until the limit's own statistic over the
simulated requests reaches the limit, or until fewer requests than required meet every limit. The gaps between arrivals
use the same random numbers at every rate, so that results differ only by the rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.errors import Caution, InputError
from melange.processes import each_of
from melange.profile.estimate_inputs import planned_sizes, wanted_buckets
from melange.profile.profile import MEASURED, Profile
from melange.profile.rate_cache import Key, Rate, RateCache
from melange.replica.alone import idle_times_s
from melange.replica.capacity import Sizes
from melange.replica.engine import Engine
from melange.replica.occupancy import running_at, sizes_of
from melange.replica.policy import ROUND_ROBIN
from melange.replica.policy_state import PolicyState
from melange.replica.simulated.cluster import play
from melange.replica.simulated.outcome import excess_of, metrics_s
from melange.slo import Slo
from melange.units import duration, significant
from melange.workload.workload import Array, Buckets, Mask, Workload

# Simulated requests at each rate: more for a high percentile, so that some lie beyond it, and more if many are in
# flight, so that most requests meet a replica at its full load.
_REQUESTS, _BEYOND, _TIMES_IN_FLIGHT = 1_000, 20, 8
# Share of requests at the start that are not counted, as they meet an empty replica.
WARM_UP = 0.25
# A queue whose wait grows by this share of the elapsed time grows forever: more requests arrive than are served.
_GROWING = 0.03
# Fewer cells than this are searched faster than processes start.
_WORTH_PROCESSES = 60
# Types that cost this many times as much as another type for every size are not simulated.
_COSTLY = 3.0
# The search ends when the rate is known to this relative precision.
_PRECISION = 0.03
# Rates are sought from this share of the rate that meets the limits on average, up to this multiple of it. With the
# limits on a high percentile, few requests may meet another one: that takes rates far below the average's. Rates below
# a thousandth are of no use to any plan.
_LEAST_SHARE, _MOST_SHARE = 0.001, 2.0
# How far the time of a request alone must exceed its limit, so that rounding does not count.
_ALONE_SLACK = 1e-6
TOO_COSTLY = f"not simulated: another type serves every size at 1/{_COSTLY:g} of the cost"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSearch:
    """Settings of the simulations for a profile.

    Parameters
    ----------
    seed
        Random seed of the arrivals.
    is_scarce
        Whether availability is limited: if so, expensive types are simulated too.
    """

    seed: int = 0
    is_scarce: bool = False


def with_simulated_rates(
    profile: Profile,
    sizes: Workload | Buckets,
    slo: Slo,
    *,
    search: RateSearch | None = None,
    kept: RateCache | None = None,
    progress: Callable[[float], None] | None = None,
) -> Profile:
    """A profile whose rates meet an SLO by its own statistic, or for the required share of requests.

    Parameters
    ----------
    profile
        Rates that meet the same limits on the mean (R, I, O), with the engines that they were estimated for.
    sizes
        The sizes of the profile: a workload, whose buckets without traffic are unchanged, or buckets.
    slo
        Limits on TTFT, TPOT, NTPOT, latency: on requests or on any statistic.
    search
        Settings of the simulations; None: the defaults.
    kept
        Cached rates, by their inputs; None: the cache of this process.
    progress
        Called with the fraction that is done, 0-1.

    Returns
    -------
    Profile
        Estimated and anchored cells are replaced by simulated ones; measured cells are unchanged. The ends of the
        intervals keep their distance from the middle.

    Raises
    ------
    InputError
        A profile without engines.
    """
    if not any(profile.engines):
        if not (profile.max_request_rate > 0).any():  # no type can serve a request: its reasons say why
            return replace(profile, slo=slo)
        raise InputError(
            "slo: such rates need simulation, but the profile has no engines",
            hint="estimate the profile with a model, or measure it under this SLO",
        )
    search = search or RateSearch()
    wanted = wanted_buckets(sizes)
    planned = sizes_of(sizes) if isinstance(sizes, Workload) else planned_sizes(sizes)
    inputs, outputs = planned.inputs[0], planned.outputs[0]
    cached = np.broadcast_to(np.asarray(planned.cached, float), planned.inputs.shape)[0]
    costly = np.zeros(len(profile.replica_types), bool) if search.is_scarce else _dear(profile, wanted)
    rates = np.where(costly[:, None, None] & (profile.provenance != MEASURED), 0.0, profile.max_request_rate)
    reason, sentences = profile.reason.copy(), {text: place for place, text in enumerate(profile.reasons)}
    reason[(rates <= 0) & (profile.max_request_rate > 0)] = sentences.setdefault(TOO_COSTLY, len(sentences))
    known = RateCache() if kept is None else kept
    cells = _cells(profile, wanted & ~costly[:, None, None])
    sought = [
        (engine, _size(inputs[i, o], outputs[i, o], cached[i, o] * engine.prefix_kept), slo, search.seed)
        for engine, i, o in cells
    ]
    starts = [float(profile.max_request_rate[places[0], i, o]) for (_, i, o), places in cells.items()]
    try:
        found = _all_found(known, sought, starts, progress or (lambda _: None))
    finally:
        known.save()  # results from before an interruption are reused
    for ((_, i, o), places), (rate, why) in zip(cells.items(), found, strict=True):
        rates[places, i, o] = rate
        if rate <= 0:
            reason[places, i, o] = sentences.setdefault(why, len(sentences))
    moved = np.divide(rates, profile.max_request_rate, out=np.zeros_like(rates), where=profile.max_request_rate > 0)
    return replace(
        profile,
        max_request_rate=rates,
        low=np.minimum(profile.low * moved, rates),
        high=np.maximum(profile.high * moved, rates),
        reasons=tuple(sentences),
        reason=reason,
        slo=slo,
        source=f"{profile.source}; {slo.bound_in_words()} by simulation of each size alone",
        cautions=(*profile.cautions, *_cautions(slo, wanted)),
    )


def _all_found(
    kept: RateCache, sought: Sequence[Key], starts: Sequence[float], progress: Callable[[float], None]
) -> list[Rate]:
    """The rate of each engine and size: from the cache, or searched for now, on all cores."""
    places = [place for place, key in enumerate(sought) if kept.get(key) is None]
    jobs = [(*sought[place], starts[place]) for place in places]
    for done, (place, rate) in enumerate(zip(places, each_of(_simulated_rate_of, jobs, _WORTH_PROCESSES), strict=True)):
        kept.keep(sought[place], rate)
        progress((done + 1) / len(jobs))
    return [kept.get(key) or (0.0, "") for key in sought]


def _size(inputs: float, outputs: float, cached: float) -> tuple[int, ...]:
    """Prompt and output tokens as integers, and cached tokens if there are any."""
    size = (round(float(inputs)), max(1, round(float(outputs))))
    return (*size, round(float(cached))) if round(float(cached)) else size


def _simulated_rate_of(job: tuple[Engine, tuple[int, ...], Slo, int, float]) -> Rate:
    """:func:`simulated_rate` for a job: engine, size, SLO, seed and start rate."""
    engine, (inputs, outputs, *cached), slo, seed, start = job
    return simulated_rate(engine, inputs, outputs, slo, start, cached_tokens=sum(cached), seed=seed)


def simulated_rate(
    engine: Engine,
    input_tokens: int,
    output_tokens: int,
    slo: Slo,
    mean_rate: float,
    *,
    cached_tokens: int = 0,
    seed: int = 0,
) -> Rate:
    """The highest rate at which a replica meets an SLO for one size [1/s], or 0 with the reason.

    Parameters
    ----------
    engine
        The engine of the replica.
    input_tokens, output_tokens
        The size.
    slo
        The limits and their statistic.
    mean_rate
        The highest rate at which the mean meets the limits: the search starts here [1/s].
    cached_tokens
        Tokens of the prompt in the replica's prefix cache.
    seed
        Random seed of the arrivals.
    """
    engine = replace(engine, prefix_kept=1.0)
    metric, over = _excess_alone(engine, input_tokens, output_tokens, cached_tokens, slo)
    if over > 1 + _ALONE_SLACK:
        return 0.0, _why(metric, over, slo, "that come one at a time")
    count = requests_for(slo, in_flight_at(engine, input_tokens, output_tokens, mean_rate, cached_tokens))
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(size=count))

    def excess_at(rate: float) -> tuple[str, float]:
        return excess(engine, input_tokens, output_tokens, arrivals / rate, slo, cached_tokens)

    low = high = mean_rate
    metric, over = excess_at(mean_rate)
    if over > 1:
        while over > 1:
            high, low = low, low / 2
            if low < _LEAST_SHARE * mean_rate:
                return 0.0, _why(metric, over, slo, f"at {significant(high)} requests/s")
            metric, over = excess_at(low)
    else:
        while over <= 1:
            low, high = high, high * 2**0.5
            if high > _MOST_SHARE * mean_rate:
                return low, ""
            _, over = excess_at(high)
    while high > low * (1 + _PRECISION):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if excess_at(middle)[1] <= 1 else (low, middle)
    return low, ""


def excess(
    engine: Engine, input_tokens: int, output_tokens: int, arrival_s: Array, slo: Slo, cached_tokens: int = 0
) -> tuple[str, float]:
    """The metric closest to its limit for requests of one size on one replica, and its excess over the limit.

    As in :func:`~melange.replica.simulated.outcome.excess_of`; infinite if more requests arrive than are served.
    """
    count = len(arrival_s)
    outcome = play(
        [engine],
        lone_replica(),
        ROUND_ROBIN,
        arrival_s,
        np.full(count, input_tokens),
        np.full(count, output_tokens),
        np.full(count, cached_tokens),
        np.zeros(count, np.int64),
    )
    counted = slice(int(count * WARM_UP), None)
    ttft = (outcome.first_token_s - arrival_s)[counted]
    latency = (outcome.finish_s - arrival_s)[counted]
    values = metrics_s(ttft, latency, output_tokens)
    behind_s = float((outcome.admitted_s - arrival_s)[-count // 10 :].mean())
    if np.isnan(latency).any() or behind_s > _GROWING * arrival_s[-1]:
        return next(iter(slo.limits)), math.inf
    return excess_of(values, slo)


def requests_for(slo: Slo, in_flight: float) -> int:
    """Number of simulated requests at each rate."""
    return math.ceil(max(_REQUESTS, _BEYOND / slo.tail / (1 - WARM_UP), _TIMES_IN_FLIGHT * in_flight))


def in_flight_at(
    engine: Engine, input_tokens: int, output_tokens: int, rate: float, cached_tokens: float = 0.0
) -> float:
    """Requests of one size in flight on one replica at a rate."""
    inputs, outputs = np.full((1, 1, 1), float(input_tokens)), np.full((1, 1, 1), float(output_tokens))
    sizes = Sizes(inputs=inputs, outputs=outputs, cached=np.full((1, 1, 1), float(cached_tokens)))
    return float(running_at(engine, sizes, np.full((1, 1, 1), rate))[0, 0, 0])


def lone_replica() -> PolicyState:
    """A balancer with a single replica and therefore no choice."""
    one, none = np.ones(1), np.zeros(1, np.int64)
    return PolicyState(
        type_of=none,
        input_edges=one * math.inf,
        output_edges=one * math.inf,
        share=one,
        part=one,
        rate=one,
        is_up=np.ones(1, np.int64),
        outstanding=np.zeros(1, np.int64),
        fill=np.zeros(1),
        unread=np.zeros(1),
        request_part=np.zeros(1),
        unread_part=np.zeros(1),
        completions=np.zeros(1),
        seen=np.zeros(1),
        output_sum=np.zeros(1),
        credit=np.zeros(1),
        turn=np.zeros(2, np.int64),
    )


def _excess_alone(engine: Engine, inputs: int, outputs: int, cached: int, slo: Slo) -> tuple[str, float]:
    """The metric closest to its limit for a request that is alone on the replica, and its excess over the limit."""
    size = (np.array([float(tokens)]) for tokens in (inputs, outputs, cached))
    ttft, latency = idle_times_s(engine, *size)
    return excess_of(metrics_s(ttft, latency, outputs), slo)


def _why(metric: str, over: float, slo: Slo, which: str) -> str:
    """The limit that requests exceed: those that come one at a time, or at the lowest rate that was tried."""
    limit_s = slo.limits[metric]
    if not math.isfinite(over):
        return f"more requests arrive than are served {which}"
    found = slo.told(metric, duration(over * limit_s), which)
    return f"{found}; the limit is {duration(limit_s)}"


def _dear(profile: Profile, wanted: Mask) -> Mask:
    """Types (R,) that another type with sufficient availability replaces at a fraction of the cost.

    With limits on the mean, the other type serves every size at a third of the cost or less, and its instance costs no
    more: for the price of one instance of theirs, the other type serves half as much again.
    """
    types = profile.replica_types
    instance = np.array([one.cost_per_h for one in types])
    price = np.array([one.cost_per_h / one.replicas_per_instance for one in types])[:, None, None]
    rate = np.where(wanted, profile.max_request_rate, 0.0)
    cost = np.divide(price, rate, out=np.full(rate.shape, np.inf), where=rate > 0)
    costly = np.zeros(len(types), bool)
    for q in (q for q, one in enumerate(types) if one.offer.max_instances is None):
        costly |= (instance >= instance[q]) & ((cost == np.inf) | (cost >= _COSTLY * cost[q])).all(axis=(1, 2))
    return costly


def _cells(profile: Profile, wanted: Mask) -> dict[tuple[Engine, int, int], list[int]]:
    """Distinct engines and buckets, each with its replica types (R); measured cells are left out."""
    cells: dict[tuple[Engine, int, int], list[int]] = {}
    is_open = (profile.max_request_rate > 0) & (profile.provenance != MEASURED) & wanted
    for r, i, o in np.argwhere(is_open).tolist():
        engine = profile.engines[r]
        if engine is not None:
            cells.setdefault((engine, i, o), []).append(r)
    return cells


def _cautions(slo: Slo, wanted: Mask) -> tuple[Caution, ...]:
    if wanted.all():
        return ()
    own = f"{'for' if slo.is_on_requests else 'their'} {slo.bound_in_words()}"
    what = f"rates of buckets without traffic meet the limits in the mean, not {own}"
    return (Caution("mean-only", f"{what}; plan again if such requests arrive"),) if not slo.is_on_mean else ()
