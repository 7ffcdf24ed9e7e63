"""Work that may wait: how much of it waits after each hour, and which requests are then sent.

Requests of a class are sent in the order of their arrival. So what waits after an hour says everything: with a_h the
work that arrives in hour h, s_h what is sent and q_h what waits after it, the hours of a cycle one after the other,

    q_h = q_(h-1) + a_h - s_h,    0 <= q_h <= sum of the last L hours' arrivals

where L is the number of hours after its own in which a request may still be sent. Work is what the traffic takes of the
load of the cheapest machines, at on-demand prices. Arrays have the axes (hour H, size B).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from melange.plan.schedule.machines import Machines
from melange.workload.workload import Array

# Work that is within this share of what arrives in the cycle is rounding.
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
        Hours after the one of its arrival in which a request may still be sent.
    work
        What arrives in each hour (H,) [USD/h].
    most_waiting
        What may wait after each hour (H,): the arrivals of the last ``lag`` hours [USD/h].
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
        """Of arrivals (H, B), in work of some machines."""
        return cls(rates=rates, weight=machines.weights(machines.price), lag=lag)

    def mix(self, waiting: Array) -> Array:
        """Rate of each size in a unit of the work that is sent in each hour (H, B); of all where nothing is."""
        sent = self.sent(waiting)
        work = (sent @ self.weight)[:, None]
        of_all = self.rates.sum(axis=0) / max(float(self.work.sum()), 1e-300)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(work > _ROUNDING * self.work.sum(), sent / work, of_all))

    def left_by(self, room: Array) -> Array | None:
        """What waits after each hour (H,) if each takes as much as it has room for (H,); None if some comes too late.

        All is sent as soon as there is room.
        """
        arriving = self.work
        # What waits when the cycle begins is what is left at its end: from nothing on it grows for a cycle, and stays.
        # Started at nothing, it is how far the arrivals beyond the room have risen above their lowest so far.
        beyond = np.cumsum(np.tile(arriving - room, 2))
        waiting = (beyond - np.minimum.accumulate(np.minimum(beyond, 0.0)))[len(arriving) :]
        total = float(arriving.sum())
        slack = _ROUNDING * max(total, 1e-300)
        if (total > 0 and float(np.sum(room)) < total - slack) or (waiting > self.most_waiting + slack).any():
            return None
        return waiting

    def sent(self, waiting: Array) -> Array:
        """Rates that are sent in each hour (H, B) if so much waits after each (H,) [1/s]."""
        hours = len(self.rates)
        cycles = self.lag // hours + 2
        arrived = np.concatenate([[0.0], np.cumsum(np.tile(self.work, cycles))])
        sizes = np.concatenate(
            [np.zeros((1, self.rates.shape[1])), np.cumsum(np.tile(self.rates, (cycles, 1)), axis=0)]
        )
        begin = hours * (cycles - 1)
        reached = arrived[begin:] - np.concatenate([waiting[-1:], waiting])
        return np.maximum(np.diff(in_order(arrived, sizes, np.maximum.accumulate(reached)), axis=0), 0.0)


def last_hours(work: Array, count: int) -> Array:
    """The sum of each hour's and the hours before it (H,), ``count`` of them, the cycle going round."""
    hours = len(work)
    whole, rest = divmod(count, hours)
    padded = np.concatenate([[0.0], np.cumsum(np.tile(work, 2))])
    ends = np.arange(hours) + hours + 1
    return np.asarray(whole * work.sum() + padded[ends] - padded[ends - rest])


def in_order(arrived: Array, sizes: Array, reached: Array) -> Array:
    """The sizes (M, B) that work in the order of its arrival has reached at some amounts (M,).

    ``arrived`` is the work that has arrived by some times (T,), and ``sizes`` what it consists of (T, B).
    """
    return np.stack([np.interp(reached, arrived, column) for column in sizes.T], axis=1)
