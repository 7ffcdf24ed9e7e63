"""Work that may wait: how much of it waits after each hour, and which requests are then sent.

Requests of a class are sent in the order of their arrival, so the waiting work after each hour determines everything.
Let a_h be the work that arrives in hour h, s_h the work that is sent in it, and q_h the work that waits after it. Over
the hours of a cycle, which repeats,

    q_h = q_(h-1) + a_h - s_h,    0 <= q_h <= sum of the last L hours' arrivals

where L is the number of hours after the hour of arrival in which a request may still be sent. Work is the load of the
traffic on the cheapest machines, at on-demand prices. Arrays have the axes (hour H, size B).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from melange.plan.schedule.machines import Machines
from melange.workload.workload import Array

# Differences of work within this share of the cycle's arrivals are rounding errors.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Waiting:
    """A class of requests that may wait, over the hours of a cycle.

    Parameters
    ----------
    rates
        Its arrivals by hour and size (H, B) [1/s].
    weight
        Work of one request per second of each size (B,) [USD/h].
    lag
        Hours after the hour of arrival in which a request may still be sent.
    work
        Work that arrives in each hour (H,) [USD/h].
    most_waiting
        Most work that may wait after each hour (H,): the arrivals of the last ``lag`` hours [USD/h].
    """

    rates: Array
    weight: Array
    lag: int
    work: Array = field(init=False)
    most_waiting: Array = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "work", np.asarray(self.rates @ self.weight))
        object.__setattr__(self, "most_waiting", last_hours(self.work, self.lag))

    @classmethod
    def of(cls, machines: Machines, rates: Array, lag: int) -> Waiting:
        """From arrivals (H, B), with the work measured on some machines."""
        return cls(rates=rates, weight=machines.weights(machines.price), lag=lag)

    def left_by(self, room: Array) -> Array | None:
        """Work that waits after each hour (H,) if each hour takes up to its ``room`` (H,); None if some is late.

        All work is sent as soon as there is room.
        """
        arriving = self.work
        # The queue at the start of the cycle must equal the queue at its end: from empty, it gets there in one cycle. A
        # queue that starts empty is the excess of arrivals over room, less the minimum of that excess so far.
        beyond = np.cumsum(np.tile(arriving - room, 2))
        waiting = (beyond - np.minimum.accumulate(np.minimum(beyond, 0.0)))[len(arriving) :]
        total = float(arriving.sum())
        slack = _ROUNDING * max(total, 1e-300)
        if (total > 0 and float(np.sum(room)) < total - slack) or (waiting > self.most_waiting + slack).any():
            return None
        return waiting

    def sent(self, waiting: Array) -> Array:
        """Rates that are sent in each hour (H, B) if the work ``waiting`` is left after each hour (H,) [1/s]."""
        hours = len(self.rates)
        cycles = self.lag // hours + 2
        arrived = np.concatenate([[0.0], np.cumsum(np.tile(self.work, cycles))])
        sizes = np.concatenate(
            [np.zeros((1, self.rates.shape[1])), np.cumsum(np.tile(self.rates, (cycles, 1)), axis=0)]
        )
        begin = hours * (cycles - 1)
        reached = arrived[begin:] - np.concatenate([waiting[-1:], waiting])
        return np.maximum(np.diff(in_order(arrived, sizes, np.maximum.accumulate(reached)), axis=0), 0.0)


class Waiters:
    """Several classes that may wait, over the hours of a cycle: the work that is due first is sent first.

    All work is in time if no interval of hours has less room than the work that arrives and is due within it. If a
    cycle has room for all work, intervals up to a cycle decide: one more cycle adds at least as much room as work.
    """

    def __init__(self, classes: Sequence[Waiting]) -> None:
        """Set up for classes over the same hours, with work in the same unit."""
        self.classes = tuple(classes)
        self.work = np.asarray(np.sum([one.work for one in classes], axis=0))
        self.most_waiting = np.asarray(np.sum([one.most_waiting for one in classes], axis=0))
        self._due = _due_within(classes)

    def __len__(self) -> int:
        return len(self.work)

    def mix(self, waiting: Sequence[Array]) -> Array:
        """Rate of each size in a unit of the work sent in each hour (H, B); of all work if the hour sends none."""
        sent = self.sent(waiting)
        work, total = (sent @ self.classes[0].weight)[:, None], float(self.work.sum())
        of_all = np.sum([one.rates.sum(axis=0) for one in self.classes], axis=0) / max(total, 1e-300)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(work > _ROUNDING * total, sent / work, of_all))

    def sent(self, waiting: Sequence[Array]) -> Array:
        """Rates sent in each hour (H, B) if the work ``waiting`` of each class is left after it (K) (H,) [1/s]."""
        return np.asarray(np.sum([one.sent(left) for one, left in zip(self.classes, waiting, strict=True)], axis=0))

    def is_in_time(self, room: Array) -> bool:
        """Whether all work meets its deadline if the hours have this room (H,)."""
        if len(self.classes) == 1:
            return self.classes[0].left_by(room) is not None
        hours, total = len(room), float(self.work.sum())
        slack = _ROUNDING * max(total, 1e-300)
        if total > 0 and float(room.sum()) < total - slack:
            return False
        until = np.concatenate([[0.0], np.cumsum(np.tile(room, 2))])
        ends = sliding_window_view(until[1:], hours)[:hours]
        return bool((ends - until[:hours, None] >= self._due - slack).all())

    def left_by(self, room: Array) -> tuple[Array, ...] | None:
        """Work of each class that waits after each hour (K) (H,) if each hour takes up to its ``room`` (H,).

        None if some work is late. All work is sent as soon as there is room.
        """
        if len(self.classes) == 1:
            left = self.classes[0].left_by(room)
            return None if left is None else (left,)
        return _earliest_first(self.classes, room) if self.is_in_time(room) else None


def _due_within(classes: Sequence[Waiting]) -> Array:
    """Work that arrives and is due within 1, 2, ... hours from each hour, up to a cycle (H, H)."""
    hours = len(classes[0].work)
    first, count = np.arange(hours)[:, None], np.arange(1, hours + 1)[None, :]
    found = np.zeros((hours, hours))
    for one in classes:
        arrived = np.concatenate([[0.0], np.cumsum(np.tile(one.work, 2))])
        found += arrived[first + np.maximum(count - one.lag, 0)] - arrived[first]
    return found


def _earliest_first(classes: Sequence[Waiting], room: Array) -> tuple[Array, ...]:
    """Work of each class that waits after each hour (K) (H,), if the earliest deadline is sent first.

    The queues start empty and are run until each cycle is like the one before.
    """
    queues: list[deque[list[float]]] = [deque() for _ in classes]
    waiting = [np.zeros(len(room)) for _ in classes]
    for now in range((2 + max(one.lag for one in classes) // len(room)) * len(room)):
        hour = now % len(room)
        for queue, one in zip(queues, classes, strict=True):
            queue.append([float(now + one.lag), float(one.work[hour])])
        left = float(room[hour])
        while left > 0 and any(queues):
            queue = min(filter(None, queues), key=lambda one: one[0][0])
            part = min(left, queue[0][1])
            left -= part
            queue[0][1] -= part
            if queue[0][1] <= 0:
                queue.popleft()
        for kept, queue in zip(waiting, queues, strict=True):
            kept[hour] = sum(amount for _, amount in queue)
    return tuple(waiting)


def last_hours(work: Array, count: int) -> Array:
    """The sum over each hour and those before it (H,), ``count`` hours in total; the cycle wraps around."""
    hours = len(work)
    whole, rest = divmod(count, hours)
    padded = np.concatenate([[0.0], np.cumsum(np.tile(work, 2))])
    ends = np.arange(hours) + hours + 1
    return np.asarray(whole * work.sum() + padded[ends] - padded[ends - rest])


def in_order(arrived: Array, sizes: Array, reached: Array) -> Array:
    """Cumulative sizes (M, B) of the first amounts ``reached`` (M,) of work, in the order of arrival.

    ``arrived`` is the cumulative work at some times (T,), and ``sizes`` its cumulative sizes (T, B).
    """
    return np.stack([np.interp(reached, arrived, column) for column in sizes.T], axis=1)
