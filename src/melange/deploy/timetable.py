"""The hours of a schedule as a timetable: KEDA's cron triggers, which ask for a count from one time to another.

KEDA takes the highest count of the triggers that are active. Each trigger starts earlier than its hours by the start-up
time, and ends with them, so that an old fleet stays until the new one is up.

A trigger is active where its next end comes before its next start. Local times that clocks skip when they are set
forward never come. If a start is skipped, its trigger is active all the time before; if an end is skipped, it is not
active at all. So starts are moved to the minute before such a gap, and an additional trigger ends there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import numpy as np

from melange.deploy.manifest import Manifest
from melange.deploy.scaled_objects import (
    capped,
    common_cautions,
    deployment_names,
    files_of,
    ignored_steps,
    scaled_object,
)
from melange.deploy.schedule_options import CronOptions, ScheduleTarget
from melange.errors import Caution, InputError
from melange.plan.problem import Positions
from melange.plan.schedule.schedule import Schedule
from melange.units import MIN_PER_DAY, MIN_PER_H, S_PER_H, S_PER_MIN
from melange.workload.cycle import WEEK
from melange.workload.demand import zone_of

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# Years of changes of the clocks that the timetable is right for; rules of time zones rarely last longer.
_YEARS = 10
# Time in a cycle in which a trigger must be inactive [min]: more than any gap of the clocks.
_INACTIVE_MIN = 4 * MIN_PER_H
_ABOUT = """\
A fleet for each hour of the {over} in {zone} time, whatever the traffic is. Counts are pods: an instance has one for
each of its replicas. Triggers start {lead} min before their hours, for the start-up, and end with them; KEDA takes the
highest count of all active triggers.

Apply: kubectl apply -f this folder, with KEDA in the cluster and the Deployments of melange deploy --to kubernetes.
"""

Gap = tuple[int, int]


def _render(schedule: Schedule, options: CronOptions, written: date) -> Manifest:
    zone, lead = time_zone_of(schedule, options.time_zone), lead_of(schedule)
    cycle = len(schedule.labels) * MIN_PER_H
    gaps = clock_gaps(zone, written, cycle)
    names = deployment_names(schedule, options.deployment)
    counts = (schedule.on_demand + schedule.spot).astype(int)
    used = [r for r in range(counts.shape[1]) if counts[:, r].any()]
    if not used:
        raise InputError("no hour has instances beyond the reserved ones", hint="there is nothing to scale")
    scaled = [schedule.replica_types[r] for r in used]
    cautions = common_cautions(schedule, scaled)
    objects = {}
    for one, r in zip(scaled, used, strict=True):
        pods = counts[:, r] * one.replicas_per_instance
        most = int(pods.max()) if options.most is None else options.most * one.replicas_per_instance
        cautions += [*capped(one.name, options.most, counts[:, r].max()), *_too_small(one.name, pods)]
        triggers = [
            {
                "type": "cron",
                "metadata": {
                    "timezone": zone,
                    "start": _clock(start, schedule.over),
                    "end": _clock(end, schedule.over),
                    "desiredReplicas": str(count),
                },
            }
            for start, end, count in stretches(pods, lead, gaps)
        ]
        name = names[one.name]
        objects[f"scaled-object-{name}.yaml"] = scaled_object(name, options, triggers, (int(pods.min()), most), 0)
    cautions += _on_spot(schedule)
    about = _ABOUT.format(over=schedule.over, zone=zone, lead=lead)
    return Manifest(
        target="cron", files=files_of(schedule, written, about, cautions, objects), cautions=tuple(cautions)
    )


def time_zone_of(schedule: Schedule, given: str | None) -> str:
    """The time zone of a schedule's hours: the given one, or the schedule's own.

    Raises
    ------
    InputError
        There is none.
    """
    if zone := given or schedule.time_zone:
        return zone
    raise InputError(
        "the schedule's hours are local times, and their time zone is missing",
        hint="--option time_zone=Europe/Berlin: that of the service's workload.time_zone, or Etc/UTC",
    )


def lead_of(schedule: Schedule) -> int:
    """Minutes from the start of a trigger to its first hour.

    It is at least one: a trigger that starts with an hour that clocks repeat would not be active in its first pass.
    """
    lead = max(1, math.ceil(schedule.options.start_up_s / S_PER_MIN - 1e-9))
    most = len(schedule.labels) * MIN_PER_H // 2 - _INACTIVE_MIN
    if lead > most:
        raise InputError(
            f"start-up must be at most {most // MIN_PER_H} h for a timetable of a {schedule.over}, got "
            f"{schedule.options.start_up_s / S_PER_H:g} h",
            hint="set schedule.start_up in the service, and plan again",
        )
    return lead


def stretches(pods: Positions, lead: int, gaps: tuple[Gap, ...] = ()) -> Iterator[tuple[int, int, int]]:
    """Start and end [minutes of the cycle], and count, of the triggers for the counts of the hours.

    Parameters
    ----------
    pods
        Count of each hour (H,).
    lead
        Minutes by which a trigger starts before its hours.
    gaps
        Times that clocks skip, from and to [minutes of the cycle].
    """
    cycle = len(pods) * MIN_PER_H
    begins = [0, *(np.flatnonzero(np.diff(pods)) + 1).tolist()]
    for begin, end in zip(begins, [*begins[1:], len(pods)], strict=True):
        if not pods[begin]:
            continue
        # KEDA has no trigger that is always active.
        is_long = (end - begin) * MIN_PER_H + lead > cycle - _INACTIVE_MIN
        middle = (begin + end) // 2
        for first, last in [(begin, middle), (middle, end)] if is_long else [(begin, end)]:
            start, stop = (first * MIN_PER_H - lead) % cycle, last * MIN_PER_H % cycle
            start = next(((a - 1) % cycle for a, b in gaps if a <= start < b), start)
            yield start, stop, int(pods[begin])
            for early in {(a - 1) % cycle for a, b in gaps if a <= stop < b} - {start}:
                yield start, early, int(pods[begin])


def clock_gaps(zone: str, since: date, cycle: int) -> tuple[Gap, ...]:
    """Local times that clocks skip in the next years, from and to [minutes of a cycle that begins on a Monday].

    >>> clock_gaps("Europe/Berlin", date(2026, 1, 1), 24 * 60)
    ((120, 180),)
    """
    moved = {
        ((at + before) % cycle, after - before) for at, before, after in clock_changes(zone, since) if after > before
    }
    return tuple(sorted((begin, begin + minutes) for begin, minutes in moved))


def clock_repeats(zone: str, since: date, cycle: int) -> tuple[Gap, ...]:
    """Local times that clocks repeat in the next years, from and to [minutes of a cycle that begins on a Monday].

    >>> clock_repeats("America/New_York", date(2026, 1, 1), 24 * 60)
    ((60, 120),)
    """
    moved = {
        ((at + after) % cycle, before - after) for at, before, after in clock_changes(zone, since) if before > after
    }
    return tuple(sorted((begin, begin + minutes) for begin, minutes in moved))


def clock_changes(zone: str, since: date) -> list[tuple[int, int, int]]:
    """When clocks are set in the next years [min from Monday 0:00 UTC], and what is added to UTC before and after.

    >>> clock_changes("Europe/Berlin", date(2026, 3, 23))[0]
    (8700, 60, 120)
    """
    place = zone_of(zone)

    def offset(minutes: int) -> int:
        return round((first + timedelta(minutes=minutes)).astimezone(place).utcoffset().total_seconds() / S_PER_MIN)  # type: ignore[union-attr]

    monday = since - timedelta(days=since.weekday())
    first = datetime(monday.year, monday.month, monday.day, tzinfo=UTC)
    days = [offset(day * MIN_PER_DAY) for day in range(_YEARS * 366 + 1)]
    found = []
    for day in np.flatnonzero(np.diff(days)).tolist():
        low, high = day * MIN_PER_DAY, (day + 1) * MIN_PER_DAY
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == days[day] else (low, middle)
        found.append((high, days[day], days[day + 1]))
    return found


def _clock(minute: int, over: str) -> str:
    """A minute of the week or of the day, as a cron expression.

    >>> _clock(7 * 24 * 60 - 5, "week"), _clock(65, "day")
    ('55 23 * * sun', '5 1 * * *')
    """
    day, rest = divmod(minute, MIN_PER_DAY)
    return f"{rest % MIN_PER_H} {rest // MIN_PER_H} * * {_DAYS[day] if over == WEEK else '*'}"


def _too_small(name: str, pods: Positions) -> list[Caution]:
    steps = ignored_steps([*pods.tolist(), int(pods[0])])
    if not steps:
        return []
    words = f"Kubernetes ignores changes of up to 10 %, such as from {steps[0][0]} to {steps[0][1]} pods"
    return [
        Caution("tolerance", f"{name}: {words} ({len(steps)} in a cycle); see --horizontal-pod-autoscaler-tolerance")
    ]


def _on_spot(schedule: Schedule) -> list[Caution]:
    most = int(schedule.spot.sum(axis=1).max())
    if not most:
        return []
    words = f"the schedule has up to {most} instances on spot in an hour, but a Deployment does not divide its pods"
    return [Caution("spot", f"{words} between markets: on-demand and spot instances are added up")]


TARGET = ScheduleTarget(
    name="cron",
    about="A fleet for each hour on a fixed timetable: KEDA ScaledObjects with cron triggers.",
    options=CronOptions,
    render=_render,
)
