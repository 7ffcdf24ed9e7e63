"""Individual requests: replayed from a log, or drawn from a workload.

Drawn sizes preserve the frequency of each bucket and its mean size. Inside a bucket from ``a`` to ``b`` with mean
``m``, a size lies below ``m`` with probability ``(b - m) / (b - a)`` and above it otherwise, uniform on either side:
sizes then span the bucket, and their mean is ``m``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from melange.errors import InputError
from melange.workload.workload import Array, Buckets, Workload

if TYPE_CHECKING:
    from melange.workload.layouts import Naming
    from melange.workload.logs import Progress

Tokens = npt.NDArray[np.int32]

_POISSON, _GAMMA = "poisson", "gamma"
# Shared part of a prompt that shares more than its first block: median of the Mooncake conversation trace (2026-11-26).
_SHARED_PART = 0.85
# Least and most coefficient of variation of the times between drawn arrivals. Below, arrivals are evenly spaced; above,
# the shape of the gamma distribution is so small that drawn times underflow to 0.
BURSTINESS = (1e-3, 1e3)
# Most requests that are drawn: with their simulation they take about 150 bytes each, 3 GB.
MOST_DRAWN = 20_000_000
_AS_THEY_CAME = " as recorded"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrivals:
    """N requests in the order of their arrival.

    Parameters
    ----------
    arrival_s
        Arrival at the balancer (N,), ascending from about 0 [s].
    input_tokens, output_tokens
        Sizes (N,).
    cached_tokens
        First tokens of each prompt that a prefix cache holds (N,); None: no tokens are cached.
    max_tokens
        Longest completion that the client allows (N,); None if unknown.
    keys
        A number in [0, 1) per request, equal for requests that share a prefix (N,); None: unknown.
    source
        Where the requests come from, in words.
    is_shuffled
        Whether sizes have no order in time, as for drawn requests.
    class_of
        Index of each request's class among the classes of the workload's buckets (N,); None: there are no classes.
    """

    arrival_s: Array
    input_tokens: Tokens
    output_tokens: Tokens
    cached_tokens: Tokens | None = None
    max_tokens: Tokens | None = None
    keys: Array | None = None
    source: str = ""
    is_shuffled: bool = True
    class_of: Tokens | None = None

    def __post_init__(self) -> None:
        if not len(self.arrival_s):
            raise InputError("arrivals: at least one request is needed")
        if not np.isfinite(self.arrival_s).all():
            raise InputError("arrivals: times must be finite")
        if (np.diff(self.arrival_s) < 0).any():
            raise InputError("arrivals: must be sorted by time")

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def rate(self) -> float:
        """Requests over the time from the first arrival to the last [1/s]."""
        return (len(self) - 1) / self.lasts_s if self.lasts_s > 0 else float("inf")

    @property
    def lasts_s(self) -> float:
        """Time from the first arrival to the last [s]."""
        return float(self.arrival_s[-1] - self.arrival_s[0])

    @property
    def has_pace(self) -> bool:
        """Whether requests arrive over some time, not all at once."""
        return len(self) > 1 and bool(self.arrival_s[-1] > self.arrival_s[0])

    def at_rate(self, rate: float) -> Arrivals:
        """The same requests with time stretched so that ``rate`` arrive per second; bursts keep their shape."""
        if not (rate > 0 and np.isfinite(rate)):
            raise InputError(f"arrivals.rate must be > 0 and finite, got {rate:g}")
        if not self.has_pace:
            raise InputError("arrivals: requests that all arrive at once have no rate to scale")
        start = self.arrival_s[0]
        return replace(self, arrival_s=(self.arrival_s - start) * (self.rate / rate))

    def first(self, count: int) -> Arrivals:
        """The first ``count`` requests."""
        return self.chosen(np.arange(min(count, len(self))))

    def part(self, start: int, end: int) -> Arrivals:
        """Requests ``start`` to ``end``, with the first of them at time 0."""
        places = np.arange(start, min(end, len(self)))
        return self.chosen(places, self.arrival_s[places] - self.arrival_s[start])

    def within(self, buckets: Buckets, kept: npt.NDArray[np.bool_]) -> Arrivals:
        """The requests whose bucket is kept (I, O); sizes beyond the last edge are dropped."""
        i = np.searchsorted(buckets.row_edges, buckets.row_tokens(self.input_tokens, self.class_of))
        o = np.searchsorted(buckets.output_edges, self.output_tokens)
        inside = (self.input_tokens <= buckets.input_edges[-1]) & (o < buckets.shape[1])
        is_kept = inside & kept[np.minimum(i, buckets.shape[0] - 1), np.minimum(o, buckets.shape[1] - 1)]
        if not is_kept.any():
            raise InputError("arrivals: no request has a size that is served")
        return self.chosen(np.flatnonzero(is_kept))

    def planned(self, workload: Workload, *, is_upper: bool) -> Arrivals:
        """The requests in buckets with traffic; ``is_upper``: each at the sizes that its bucket is planned for."""
        kept = self.within(workload.buckets, workload.request_rate > 0)
        if not is_upper:
            return kept
        cell = workload.buckets.cells(kept.input_tokens, kept.output_tokens, kept.class_of)
        inputs, outputs = (
            table.ravel()[cell].astype(np.int32) for table in (workload.input_tokens, workload.output_tokens)
        )
        return replace(kept, input_tokens=inputs, output_tokens=outputs, max_tokens=None)

    def shaped(self, factor_by_share: Sequence[tuple[float, float]]) -> Arrivals:
        """The same requests at a changing rate: multiplied by ``factor`` at each share of the time, linear in between.

        >>> steady = Arrivals(arrival_s=np.arange(101.0), input_tokens=np.ones(101), output_tokens=np.ones(101))
        >>> doubled = steady.shaped([(0.0, 1.0), (0.5, 1.0), (0.5, 2.0), (1.0, 2.0)])
        >>> np.diff(doubled.arrival_s)[[10, 90]].round(6).tolist()
        [1.0, 0.5]
        """
        shares, factors = np.array(factor_by_share, float).T
        if len(shares) < 2 or shares[0] != 0 or shares[-1] != 1 or (np.diff(shares) < 0).any() or (factors <= 0).any():
            raise InputError("arrivals: a rate profile needs shares that ascend from 0 to 1, and factors > 0")
        start, duration = self.arrival_s[0], self.arrival_s[-1] - self.arrival_s[0]
        if duration <= 0:  # all at once, at any rate
            return self
        # Time runs as fast as the rate: where the rate is doubled, the requests of a second arrive within half a
        # second.
        grid = np.concatenate([np.linspace(low, high, 2001)[:-1] for low, high in itertools.pairwise(shares)] + [[1.0]])
        inside = np.interp((grid[1:] + grid[:-1]) / 2, shares, factors)
        passed = np.concatenate([[0.0], np.cumsum(np.diff(grid) * inside)])
        duration /= passed[-1]
        return replace(self, arrival_s=start + duration * np.interp((self.arrival_s - start) / duration, passed, grid))

    def chosen(self, places: npt.NDArray[np.intp], arrival_s: Array | None = None) -> Arrivals:
        """The requests at these indices (M,), with new arrival times if given (M,) [s]."""
        return replace(
            self,
            arrival_s=self.arrival_s[places] if arrival_s is None else arrival_s,
            input_tokens=self.input_tokens[places],
            output_tokens=self.output_tokens[places],
            cached_tokens=None if self.cached_tokens is None else self.cached_tokens[places],
            max_tokens=None if self.max_tokens is None else self.max_tokens[places],
            keys=None if self.keys is None else self.keys[places],
            class_of=None if self.class_of is None else self.class_of[places],
        )


def draw(
    workload: Workload,
    requests: int,
    *,
    seed: int = 0,
    burstiness: float = 1.0,
    observed: Arrivals | None = None,
) -> Arrivals:
    """Requests drawn from a workload: sizes by bucket, with their joint frequencies, at random times.

    Parameters
    ----------
    workload
        Rates and mean sizes by bucket.
    requests
        How many.
    seed
        The same seed draws the same requests.
    burstiness
        Coefficient of variation of the times between arrivals: 1 is Poisson; above 1 the times are gamma-distributed
        and arrivals come in bursts.
    observed
        Requests from which pairs of sizes are drawn with equal probability, in place of the workload's buckets.

    Raises
    ------
    InputError
        Ordinal buckets; no requests or more than :data:`MOST_DRAWN`; a burstiness outside :data:`BURSTINESS`.

    Examples
    --------
    >>> from melange.workload.datasets import dataset
    >>> arrivals = draw(dataset("azure-conversation", request_rate=10.0), 1000, seed=1)
    >>> len(arrivals), 9 < arrivals.rate < 11
    (1000, True)
    """
    if not 1 <= requests <= MOST_DRAWN:
        raise InputError(f"arrivals.requests must be 1 to {MOST_DRAWN:,}, got {requests:,}")
    least, most = BURSTINESS
    if not least <= burstiness <= most:
        raise InputError(f"arrivals.burstiness must be {least:g} to {most:g}, got {burstiness:g}")
    times, sizes, shared = (np.random.default_rng(each) for each in np.random.SeedSequence(seed).spawn(3))
    shape = burstiness**-2
    gaps = times.exponential(size=requests) if burstiness == 1 else times.gamma(shape, 1 / shape, requests)
    arrival_s = np.cumsum(gaps) / workload.total_rate
    how = "Poisson arrivals" if burstiness == 1 else f"gamma arrivals of burstiness {burstiness:g}"
    if observed is not None:
        chosen = observed.chosen(sizes.integers(len(observed), size=requests), arrival_s)
        return replace(
            chosen, source=f"sizes drawn from {observed.source.removesuffix(_AS_THEY_CAME)}, {how}", is_shuffled=True
        )
    inputs, outputs, class_of = _sizes(workload, requests, sizes)
    return Arrivals(
        arrival_s=arrival_s,
        input_tokens=inputs,
        output_tokens=outputs,
        cached_tokens=_cached(workload, inputs, class_of, shared),
        source=f"drawn from {workload.source or 'the workload'}, {how}",
        class_of=class_of,
    )


def _sizes(workload: Workload, requests: int, random: np.random.Generator) -> tuple[Tokens, Tokens, Tokens | None]:
    """Input and output tokens of ``requests`` requests (N,) each, and their classes if there are several."""
    if workload.buckets.is_ordinal:
        raise InputError(
            "arrivals: the buckets are only numbered, without token counts, so no requests can be drawn",
            hint="simulate a plan whose workload has token counts, or replay a log: --trace",
        )
    chance = (workload.request_rate / workload.total_rate).ravel()
    cell = random.choice(len(chance), size=requests, p=chance)
    row, o = np.divmod(cell, workload.buckets.shape[1])
    k, i = np.divmod(row, len(workload.buckets.input_edges))
    low_i = np.array([0, *workload.buckets.input_edges[:-1]]) + 1
    low_o = np.array([0, *workload.buckets.output_edges[:-1]]) + 1
    mean_i, mean_o = workload.input_tokens.ravel()[cell], workload.output_tokens.ravel()[cell]
    inputs = _spread(low_i[i], np.array(workload.buckets.input_edges)[i], mean_i, random)
    outputs = _spread(low_o[o], np.array(workload.buckets.output_edges)[o], mean_o, random)
    return inputs, outputs, k.astype(np.int32) if workload.buckets.classes else None


def _cached(workload: Workload, inputs: Tokens, class_of: Tokens | None, random: np.random.Generator) -> Tokens | None:
    """First tokens of each prompt that earlier prompts also began with (N,); None if nothing is known about reuse.

    A request shares nearly all of its prompt, like a later turn of a conversation, or nothing, like the first turn. The
    choice is random; its probability follows from the reusable share of the bucket's tokens.
    """
    reuse = workload.prefix_reuse
    if reuse is None:
        return None
    buckets = workload.buckets
    bucket = np.minimum(np.searchsorted(buckets.row_edges, buckets.row_tokens(inputs, class_of)), buckets.shape[0] - 1)
    share = reuse.reusable_share[bucket]
    part = np.maximum(share, _SHARED_PART)
    is_sharing = random.random(len(inputs)) * part < share
    return np.where(is_sharing, np.minimum(inputs * part, inputs - 1), 0).astype(np.int32)


def _spread(low: Array, high: Array, mean: Array, random: np.random.Generator) -> Tokens:
    """Integers from ``low`` to ``high`` with the given mean (N,)."""
    middle = np.clip(mean, low, high)
    width = np.maximum(high - low, 1)
    is_below = random.random(len(mean)) < (high - middle) / width
    other = np.where(is_below, low, high)
    value = middle + random.random(len(mean)) * (other - middle)
    whole = np.floor(value + random.random(len(mean)))  # rounded at random, so that the mean stays
    return np.clip(whole, low, high).astype(np.int32)


def has_arrival_times(trace: str | Path | Any, **naming: Unpack[Naming]) -> bool:
    """Whether a log has arrival times or only sizes, read as in :func:`read_arrivals`."""
    from melange.workload.layouts import find_layout
    from melange.workload.logs import opened

    with opened(trace) as log:
        return find_layout(log.fields, naming, place=log.place).arrival is not None


def read_arrivals(
    trace: str | Path | Any,
    *,
    requests: int | None = None,
    rate: float | None = None,
    progress: Progress | None = None,
    **naming: Unpack[Naming],
) -> Arrivals:
    """The requests of a log, as recorded.

    Parameters
    ----------
    trace, columns, trace_format, where, progress
        As for :func:`~melange.workload.traces.read_trace`; fields about shared prefixes are also read: block hashes,
        conversations, or counts of cached tokens.
    requests
        Only the first N; None: all.
    rate
        Requests per second; the log's time is stretched to this rate. None: the log's own rate.

    Raises
    ------
    InputError
        As for ``read_trace``; or a log without arrival times.
    """
    from melange.workload.layouts import find_layout
    from melange.workload.logs import opened
    from melange.workload.read_clock import clock_of
    from melange.workload.read_prefixes import prefix_fields, reusable_tokens
    from melange.workload.rows import select_rows

    with opened(trace, progress) as log:
        layout = find_layout(log.fields, naming, place=log.place)
        if layout.arrival is None:
            raise InputError(
                f"{log.place}: no arrival times, so the log cannot be replayed",
                hint="name the column: columns: {arrival: ..., input: ..., output: ...}; or draw from its sizes",
            )
        layout = replace(layout, shared=prefix_fields(log.fields, layout.shared))
        rows = select_rows(log, layout)
        clock_of(rows)
        table = rows.table.mutate(arrival_s=rows.seconds(rows.raw) * (rows.unit_s or 1.0))
        served = table.filter(table.input >= 1, table.output >= 1).order_by("arrival_s")
        found = (served if requests is None else served.limit(requests)).to_pyarrow()
    if not found.num_rows:
        raise InputError(f"{log.place}: no request with input and output tokens")
    arrival_s = found["arrival_s"].to_numpy().astype(float)
    shared = reusable_tokens(found, layout.shared, log.place)
    whole = Arrivals(
        arrival_s=arrival_s - arrival_s[0],
        input_tokens=found["input"].to_numpy().astype(np.int32),
        output_tokens=found["output"].to_numpy().astype(np.int32),
        cached_tokens=None if shared is None else shared[0],
        keys=None if shared is None else shared[1],
        source=f"{found.num_rows:,} requests of {log.name}{_AS_THEY_CAME}",
        is_shuffled=False,
    )
    return whole if rate is None else whole.at_rate(rate)
