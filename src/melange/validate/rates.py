"""Maximum rates under limits that no closed form knows, percentiles and times to the first token: found by simulation.

One replica serves one size, its requests arriving at random (Poisson). The rate is raised until the limit's own
statistic, over the simulated requests, reaches the limit. The gaps between arrivals are the same random numbers at
every rate, so that what is compared differs in the rate alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from melange.balance.policy import ROUND_ROBIN, Fleet
from melange.errors import Caution, InputError
from melange.profile.engine import Engine
from melange.profile.profile import MEASURED, Profile
from melange.profile.reasons import duration
from melange.slo import Slo
from melange.validate.cluster import play
from melange.validate.kept import Kept, Rate
from melange.workload.workload import Array, Buckets, Workload

# Simulated requests at each rate, more for a far percentile: at least so many lie beyond it.
REQUESTS, BEYOND = 1_000, 20
# The first ones meet an empty replica and are not counted.
WARM_UP = 0.2
# The search ends when the rate is known to this share of itself.
PRECISION = 0.02
# A replica that cannot hold its limits at a hundredth of what it carries in the mean cannot hold them at all.
LEAST_SHARE, MOST_SHARE = 0.01, 2.0

Mask = npt.NDArray[np.bool_]


def needs_simulation(slo: Slo) -> bool:
    """Whether the closed form cannot hold an SLO: a percentile, or a limit on the time to the first token."""
    return slo.statistic != "mean" or "ttft" in slo.limits


def mean_slo(slo: Slo) -> Slo:
    """The limits that the closed form starts the search from: the same on the mean."""
    return replace(slo, statistic="mean")


def with_simulated_rates(
    profile: Profile,
    sizes: Workload | Buckets,
    slo: Slo,
    *,
    seed: int = 0,
    kept: Kept | None = None,
    progress: Callable[[float], None] | None = None,
) -> Profile:
    """A profile whose rates hold an SLO's own statistic.

    Parameters
    ----------
    profile
        Rates that hold the same limits on the mean (R, I, O), with the engines that they were estimated for.
    sizes
        What the profile was made for: a workload, whose buckets without traffic are left as they are, or buckets.
    slo
        Limits on any statistic of TTFT, TPOT, NTPOT, latency.
    seed
        Of the arrivals.
    kept
        Rates found before, by what they follow from; None: those of this process.
    progress
        Told the part that is done, 0-1.

    Returns
    -------
    Profile
        Estimated, anchored cells replaced by simulated ones; measured cells stay. Ends of the intervals keep their
        distance from the middle.

    Raises
    ------
    InputError
        A profile without engines.
    """
    if not any(profile.engines):
        raise InputError(
            "slo: percentiles and times to first token are found by simulation, and the profile holds no engines",
            hint="estimate it with a model, or measure it under this SLO",
        )
    inputs, outputs = _sizes(sizes)
    wanted = np.ones(profile.buckets.shape, bool) if isinstance(sizes, Buckets) else sizes.request_rate > 0
    rates = profile.max_request_rate.copy()
    reason, sentences = profile.reason.copy(), {text: place for place, text in enumerate(profile.reasons)}
    known = Kept() if kept is None else kept
    cells = _cells(profile, wanted)
    for done, ((engine, i, o), places) in enumerate(cells.items()):
        start = float(profile.max_request_rate[places[0], i, o])
        size = (round(float(inputs[i, o])), max(1, round(float(outputs[i, o]))))
        rate, why = _found(known, engine, size, slo, start, seed)
        rates[places, i, o] = rate
        if rate <= 0:
            reason[places, i, o] = sentences.setdefault(why, len(sentences))
        if progress is not None:
            progress((done + 1) / len(cells))
    known.save()
    moved = np.divide(rates, profile.max_request_rate, out=np.zeros_like(rates), where=profile.max_request_rate > 0)
    return replace(
        profile,
        max_request_rate=rates,
        low=np.minimum(profile.low * moved, rates),
        high=np.maximum(profile.high * moved, rates),
        reasons=tuple(sentences),
        reason=reason,
        slo=slo,
        source=f"{profile.source}; {slo.statistic} by simulation of each size alone",
        cautions=(*profile.cautions, *_cautions(slo, wanted)),
    )


def _found(kept: Kept, engine: Engine, size: tuple[int, int], slo: Slo, mean_rate: float, seed: int) -> Rate:
    """The rate of a size, or 0 and why: the one that is kept, or else the one that is found now, which is kept."""
    key = (engine, size, slo, seed)
    rate = kept.get(key)
    if rate is None:
        rate = simulated_rate(engine, *size, slo, mean_rate, seed=seed)
        kept.keep(key, rate)
    return rate


def simulated_rate(
    engine: Engine, input_tokens: int, output_tokens: int, slo: Slo, mean_rate: float, *, seed: int = 0
) -> Rate:
    """The highest rate at which a replica holds an SLO for one size [1/s], or 0 and why.

    Parameters
    ----------
    engine
        The replica's.
    input_tokens, output_tokens
        The size.
    slo
        Limits and their statistic.
    mean_rate
        The highest rate at which the mean holds the limits: where the search starts [1/s].
    seed
        Of the arrivals.
    """
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(size=requests_for(slo)))

    def values_at(rate: float) -> dict[str, float]:
        return statistics(engine, input_tokens, output_tokens, arrivals / rate, slo)

    def excess(values: dict[str, float]) -> float:
        return max(value / slo.limits[metric] for metric, value in values.items())

    low, high = math.log(mean_rate * LEAST_SHARE), math.log(mean_rate * MOST_SHARE)
    seldom = values_at(math.exp(low))
    if excess(seldom) > 1:
        return 0.0, _why(seldom, slo)
    if excess(values_at(math.exp(high))) <= 1:
        return math.exp(high), ""
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(values_at(math.exp(middle))) <= 1 else (low, middle)
    return math.exp(low), ""


def statistics(engine: Engine, input_tokens: int, output_tokens: int, arrival_s: Array, slo: Slo) -> dict[str, float]:
    """An SLO's statistic of each of its metrics, over requests of one size on one replica [s]."""
    count = len(arrival_s)
    outcome = play(
        [engine],
        lone_replica(),
        ROUND_ROBIN,
        arrival_s,
        np.full(count, input_tokens),
        np.full(count, output_tokens),
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
    )
    counted = slice(int(count * WARM_UP), None)
    ttft = (outcome.first_token_s - arrival_s)[counted]
    latency = (outcome.finish_s - arrival_s)[counted]
    values = {
        "ttft": ttft,
        "tpot": (latency - ttft) / max(output_tokens - 1, 1),
        "ntpot": latency / output_tokens,
        "latency": latency,
    }
    if np.isnan(latency).any():
        return dict.fromkeys(slo.limits, math.inf)
    return {metric: statistic_of(values[metric], slo.statistic) for metric in slo.limits}


def statistic_of(values: Array, statistic: str) -> float:
    """The mean or a percentile (``p99``) of some values."""
    return float(values.mean() if statistic == "mean" else np.quantile(values, float(statistic[1:]) / 100))


def requests_for(slo: Slo) -> int:
    """How many requests are simulated at each rate."""
    tail = 1.0 - float(slo.statistic[1:]) / 100 if slo.statistic != "mean" else 1.0
    return max(REQUESTS, math.ceil(BEYOND / tail / (1 - WARM_UP)))


def lone_replica() -> Fleet:
    """A balancer with one replica and nothing to choose."""
    one, none = np.ones(1), np.zeros(1, np.int64)
    return Fleet(
        type_of=none,
        input_edges=one * math.inf,
        output_edges=one * math.inf,
        share=one,
        part=one,
        rate=one,
        is_up=np.ones(1, np.int64),
        outstanding=np.zeros(1, np.int64),
        fill=np.zeros(1),
        completions=np.zeros(1),
        seen=np.zeros(1),
        output_sum=np.zeros(1),
        credit=np.zeros(1),
        turn=np.zeros(2, np.int64),
    )


def _why(values: dict[str, float], slo: Slo) -> str:
    """Which limit even requests that come one at a time exceed."""
    metric = max(values, key=lambda name: values[name] / slo.limits[name])
    said, limit = duration(values[metric]), duration(slo.limits[metric])
    return f"{slo.statistic} {metric.upper()} of requests that come one at a time is {said}; the limit is {limit}"


def _sizes(sizes: Workload | Buckets) -> tuple[Array, Array]:
    return sizes.upper_sizes() if isinstance(sizes, Buckets) else (sizes.input_tokens, sizes.output_tokens)


def _cells(profile: Profile, wanted: Mask) -> dict[tuple[Engine, int, int], list[int]]:
    """Distinct engine and bucket, with the replica types (R) that it stands for; measured cells are left out."""
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
    what = f"buckets without traffic hold the limits in the mean, and not their {slo.statistic}"
    return (Caution("mean-only", f"{what}; plan again if their sizes arrive"),) if slo.statistic != "mean" else ()
