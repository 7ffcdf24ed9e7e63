"""Instances by the hour, as the schedules of clouds: when a number begins to apply, or from when for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

from melange.deploy.group import Group
from melange.deploy.timetable import Gap, stretches
from melange.plan.problem import Positions
from melange.units import H_PER_WEEK, MIN_PER_DAY, MIN_PER_H

_DAYS = 7
Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hours:
    """The instances of a group in each hour.

    Parameters
    ----------
    instances
        Instances in each hour of a day or a week (H,).
    time_zone
        Time zone of the hours.
    lead_min
        Minutes by which instances start before their hours.
    gaps, repeats
        Local times that clocks skip and that they repeat, from and to [minutes of the cycle].
    """

    instances: Positions
    time_zone: str
    lead_min: int
    gaps: tuple[Gap, ...] = ()
    repeats: tuple[Gap, ...] = ()

    @property
    def least(self) -> int:
        """Fewest instances of an hour."""
        return int(self.instances.min())

    @property
    def most(self) -> int:
        """Most instances of an hour."""
        return int(self.instances.max())

    @property
    def minutes(self) -> int:
        """Length of the cycle [min]."""
        return len(self.instances) * MIN_PER_H


@dataclass(frozen=True, slots=True, kw_only=True)
class Resizing:
    """What a schedule adds to the groups of Terraform files.

    Parameters
    ----------
    hours
        The hours of groups whose instances change, by key.
    address_by_key
        The key of the address of a group, by the group's own key; groups of one type in several markets share one.
    """

    hours: Mapping[str, Hours] = field(default_factory=dict)
    address_by_key: Mapping[str, str] = field(default_factory=dict)

    def addresses(self, groups: Sequence[Group]) -> dict[str, list[Group]]:
        """The groups of each address."""
        found: dict[str, list[Group]] = {}
        for group in groups:
            found.setdefault(self.address_by_key.get(group.key, group.key), []).append(group)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A time at which another number of instances begins to apply.

    Parameters
    ----------
    cron
        The time, as a cron expression.
    count
        Instances.
    """

    cron: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time for which at least a number of instances runs.

    Parameters
    ----------
    cron
        Its start, as a cron expression.
    count
        Instances.
    lasts_min
        Its length [min].
    """

    cron: str
    count: int
    lasts_min: int


def steps(hours: Hours) -> tuple[Step, ...]:
    """When the number of instances changes; none if it never does.

    No change is at a time that clocks may skip: before and in such times, the most of them applies.
    """
    by_minute = np.repeat(hours.instances, MIN_PER_H)
    ahead = [*range(0, hours.lead_min, MIN_PER_H), hours.lead_min]
    wanted = np.max([np.roll(by_minute, -minutes) for minutes in ahead], axis=0)
    for begin, end in hours.gaps:
        skipped = np.arange(begin - 1, end) % hours.minutes
        wanted[skipped] = wanted[skipped].max()
    changes = np.flatnonzero(wanted != np.roll(wanted, 1)).tolist()
    days: dict[tuple[int, int], list[int]] = {}
    for minute in changes:
        days.setdefault((minute % MIN_PER_DAY, int(wanted[minute])), []).append(minute // MIN_PER_DAY)
    return tuple(Step(cron=_cron(at, some, hours), count=count) for (at, count), some in days.items())


def spans(hours: Hours) -> tuple[Span, ...]:
    """When more than the fewest instances run, and for how long; the length is right where clocks repeat a time too."""
    above = np.where(hours.instances > hours.least, hours.instances, 0)
    days: dict[tuple[int, int, int], list[int]] = {}
    for begin, end, count in stretches(above, hours.lead_min):
        start = next(((a - 1) % hours.minutes for a, b in hours.gaps if a <= begin < b), begin)
        for minute, lasts in _apart(start, (end - start) % hours.minutes, hours):
            days.setdefault((minute % MIN_PER_DAY, count, lasts), []).append(minute // MIN_PER_DAY)
    return tuple(
        Span(cron=_cron(at, some, hours), count=count, lasts_min=lasts) for (at, count, lasts), some in days.items()
    )


def _apart(start: int, lasts: int, hours: Hours) -> list[tuple[int, int]]:
    """A span in two where clocks repeat a time within it: the first lasts longer by that time, over the second."""
    for begin, end in hours.repeats:
        more, before = end - begin, (begin - start) % hours.minutes
        # Not at a time that clocks skip on another day.
        apart = next((b for a, b in hours.gaps if a <= end % hours.minutes < b), end)
        until, inside = (apart - start) % hours.minutes, (end - start) % hours.minutes
        if 0 < until < lasts:
            return [(start, until + more), *_apart(apart % hours.minutes, lasts - until, hours)]
        if before < lasts or 0 < inside <= lasts:
            return [(start, lasts + more)]
    return [(start, lasts)]


def fitted(hours: Hours, of: Callable[[Hours], tuple[Entry, ...]], most: int) -> tuple[Hours, int]:
    """The hours with at most some entries, and the instance-hours that were added for that.

    One stretch of hours after the other gets the higher number beside it, each time the one that this costs least.
    """
    counts, before = hours.instances.copy(), int(hours.instances.sum())
    while len(of(hours)) > most:
        edges = [0, *(np.flatnonzero(np.diff(counts)) + 1).tolist(), len(counts)]
        options = []
        for begin, end in pairwise(edges):
            beside = [int(counts[begin - 1]), int(counts[end % len(counts)])]
            if higher := [count for count in beside if count > counts[begin]]:
                options.append(((end - begin) * (min(higher) - int(counts[begin])), begin, end, min(higher)))
        _, begin, end, count = min(options)
        counts[begin:end] = count
        hours = replace(hours, instances=counts.copy())
    return hours, int(counts.sum()) - before


def _cron(minute: int, days: list[int], hours: Hours) -> str:
    """A minute of the day on some days from Monday = 0, as a cron expression."""
    is_week = len(hours.instances) == H_PER_WEEK and len(days) < _DAYS
    some = ",".join(str(day) for day in sorted((one + 1) % _DAYS for one in days)) if is_week else "*"
    return f"{minute % MIN_PER_H} {minute // MIN_PER_H} * * {some}"
