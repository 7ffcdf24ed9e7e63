"""A demand folded into the hours of a day or of a week, in its users' local time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.errors import Caution, InputError
from melange.units import S_PER_DAY, S_PER_H, S_PER_WEEK
from melange.workload.clock import check_statistic, window_statistic
from melange.workload.demand import Demand, Indices, clock_text
from melange.workload.rows import lasting
from melange.workload.workload import Array, Mask

DAY, WEEK = "day", "week"
HOURS_BY_CYCLE = {DAY: 24, WEEK: 7 * 24}
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# Share of the hours of a day or week that must be observed before the others are filled in from similar hours. Chosen
# by judgment: with fewer, most of the answer would be invented.
_LEAST_SEEN = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cycle:
    """The hours of a day or of a week, each with its traffic.

    Parameters
    ----------
    over
        ``day`` or ``week``.
    request_rate
        Arrivals per second by hour and size (H, I x O) [1/s]: what is planned for.
    mean_rate
        Mean arrivals per second by hour (H,) [1/s].
    windows
        Number of windows observed for each hour (H,).
    is_filled
        Hours without observations (H,): they have the mean of the same hour on the other days.
    labels
        Name of each hour (H): ``Mon 09:00``, or ``day 1 09:00`` if the clock has no dates.
    statistic
        The statistic of the window rates within an hour that is planned for: ``max``, ``mean`` or a percentile.
    """

    over: str
    request_rate: Array
    mean_rate: Array
    windows: Indices
    is_filled: Mask
    labels: tuple[str, ...]
    statistic: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """A caution about hours that were filled in."""
        count = int(self.is_filled.sum())
        if not count:
            return ()
        first = self.labels[int(np.argmax(self.is_filled))]
        return (
            Caution(
                "filled-hours",
                f"of {count} of the {len(self)} hours of a {self.over} there is no data (first: {first}): they are "
                "planned like the same hour of the other days; a longer log would cover them",
            ),
        )


def hours_of(demand: Demand, over: str) -> Indices:
    """The hour of the day or week that each window lies in, on the clock of the demand's time zone (W,).

    When clocks are set back, the day has one hour twice; when they are set forward, it lacks an hour. Windows are
    sorted by the hour that clocks show, so the cycle keeps its 24 or 168 hours.
    """
    moments = demand.moments()
    if moments is None:
        hours = (np.arange(len(demand)) * demand.window_s // S_PER_H).astype(np.int64)
    else:
        hours = np.array([moment.weekday() * 24 + moment.hour for moment in moments], np.int64)
    return np.asarray(hours % HOURS_BY_CYCLE[over])


def fold(demand: Demand, over: str = WEEK, *, statistic: str = "max") -> Cycle:
    """Fold a demand into the hours of a day or of a week.

    Parameters
    ----------
    over
        ``day`` or ``week``.
    statistic
        The statistic of the rates of an hour's windows that is planned for: ``max`` (the busiest observed window),
        ``mean``, or ``p50`` to ``p99.9``. Sizes are those of the hour's requests.

    Raises
    ------
    InputError
        The demand is shorter than the cycle, or less than half of the hours are known.
    """
    if over not in HOURS_BY_CYCLE:
        raise InputError(f"workload.over must be day or week, got {over!r}")
    check_statistic(statistic, demand.window_s)
    length_s = S_PER_DAY if over == DAY else S_PER_WEEK
    # The first and the last window of a log may have been dropped, as the log covers less than half of them.
    if demand.duration_s + 2 * demand.window_s < length_s:
        raise InputError(
            f"workload.over: {over} needs a log of at least a {over}, got {lasting(demand.duration_s)}",
            hint="over: day" if over == WEEK and demand.duration_s >= S_PER_DAY else "give a longer log",
        )
    hour, known = hours_of(demand, over), ~demand.is_missing
    count = HOURS_BY_CYCLE[over]
    windows = np.bincount(hour[known], minlength=count)
    if (windows > 0).mean() < _LEAST_SEEN:
        raise InputError(
            f"demand: only {int((windows > 0).sum())} of the {count} hours of a {over} are known, half of them must be"
        )
    rates = demand.rates()
    total = np.zeros((count, rates.shape[1]))
    np.add.at(total, hour[known], rates[known])
    mean = total / np.maximum(windows, 1)[:, None]
    filled = windows == 0
    _fill(mean, filled)
    sums = mean.sum(axis=1)
    planned = sums.copy()
    for place in np.flatnonzero(~filled):
        planned[place] = window_statistic(demand.rate[known & (hour == place)], statistic)
    _fill(planned, filled)
    scale = np.divide(planned, sums, out=np.zeros_like(sums), where=sums > 0)
    return Cycle(
        over=over,
        request_rate=mean * scale[:, None],
        mean_rate=sums,
        windows=windows,
        is_filled=filled,
        labels=_labels(over, demand.start is not None),
        statistic=statistic,
    )


def _fill(mean: Array, filled: Mask) -> None:
    """Give hours without observations the mean of the same hour on the other days, or else the mean of all hours."""
    hour = np.arange(len(mean)) % 24
    for place in np.flatnonzero(filled):
        alike = ~filled & (hour == hour[place])
        mean[place] = mean[alike if alike.any() else ~filled].mean(axis=0)


def _labels(over: str, has_dates: bool) -> tuple[str, ...]:
    clock = [clock_text(hour * S_PER_H) for hour in range(24)]
    if over == DAY:
        return tuple(clock)
    days: Sequence[str] = _DAYS if has_dates else [f"day {day + 1}" for day in range(7)]
    return tuple(f"{day} {time}" for day in days for time in clock)
