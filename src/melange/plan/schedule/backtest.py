"""Run rules over the history: the cost of each rule, and the requests beyond the fleet's capacity.

A rule decides on a window from the windows before it. An ordered instance is paid from the order and serves once it
has started; a returned instance is paid until it is drained. A request is short if it exceeds the planned capacity of
the fleet, with headroom kept; all sizes count equally. If some requests may wait (sending.py), only the others count.
Arrays have the axes (window W, rule N).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from melange.plan.schedule.contracts import ScheduleOptions, Spot
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.sending import Sent
from melange.plan.schedule.signals import Signals
from melange.plan.schedule.spot_room import SpotRoom
from melange.workload.workload import Array, Mask


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """Windows that rules are run over.

    Parameters
    ----------
    rates
        Arrivals per second by window and size (W, B); a missing window has the rates of the window before [1/s].
    is_known
        Windows that count (W,).
    window_s
        Length of a window [s].
    own
        Rates of the requests that may not wait (W, B) [1/s]; None: all.
    sent
        Requests of each class that may wait, as sent; ``rates`` includes them.
    """

    rates: Array
    is_known: Mask
    window_s: float
    own: Array | None = None
    sent: tuple[Sent, ...] = ()

    @classmethod
    def of(cls, rates: Array, window_s: float) -> History:
        """From rates in which missing windows are nan."""
        known: Mask = np.asarray(~np.isnan(rates).any(axis=1), bool)
        place = np.maximum.accumulate(np.where(known, np.arange(len(rates)), 0))
        place[: int(np.argmax(known))] = int(np.argmax(known))
        return cls(rates=rates[place], is_known=known, window_s=window_s)

    def __len__(self) -> int:
        return len(self.rates)

    def part(self, first: int, end: int) -> History:
        """The windows from ``first`` up to ``end``."""
        return History(
            rates=self.rates[first:end],
            is_known=self.is_known[first:end],
            window_s=self.window_s,
            own=None if self.own is None else self.own[first:end],
            sent=tuple(one.part(first, end) for one in self.sent),
        )

    @property
    def counted(self) -> Array:
        """Rates of the requests that count as short if they exceed the capacity (W, B) [1/s]."""
        return self.rates if self.own is None else self.own


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lived:
    """What rules did in each window.

    Parameters
    ----------
    paid
        Instances of the scaled type that are paid (W, N), including those that start or drain.
    served
        Share of the requests that fit into the fleet (W, N), 0-1.
    up
        Instances that serve, on average over the window (W, N).
    """

    paid: Array
    served: Array
    up: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningCost:
    """Cost and shortage of a way to run a fleet.

    Parameters
    ----------
    cost_per_h
        Average cost, including reserved instances [USD/h].
    on_demand_per_h, spot_per_h
        Parts of it [USD/h].
    short_fraction
        Share of the requests beyond the fleet's capacity, 0-1.
    short_windows_fraction
        Share of the windows with any such request, 0-1.
    late_fraction
        Share of late requests among those that may wait, 0-1; with several classes, the largest share.
    """

    cost_per_h: float
    on_demand_per_h: float
    spot_per_h: float
    short_fraction: float
    short_windows_fraction: float
    late_fraction: float = 0.0

    @property
    def missed_fraction(self) -> float:
        """The larger of the shares of short and of late requests, 0-1."""
        return max(self.short_fraction, self.late_fraction)


def live(
    wanted: Array, gives: Array, held: Array, demand: Array, lost: Array, options: ScheduleOptions, window_s: float
) -> Lived:
    """Run decisions through start-up and drain.

    Parameters
    ----------
    wanted
        Instances that are wanted in each window, decided before it (W, N).
    gives, held
        What an instance gives to each signal, and what the reserved ones give (K,).
    demand
        The traffic's demand for each signal (W, K).
    lost
        Share of the wanted instances that are lost at the beginning of each window and are being replaced (W,).
    """
    delay = options.start_up_s / window_s
    whole, part = int(delay), delay - int(delay)
    late = _least_of_last(wanted, whole + 1)
    early = _least_of_last(wanted, whole + 2) if part > 0 else late
    gone = _started_late(lost[:, None] * wanted, delay)
    served = np.ones(wanted.shape)
    if part > 0:
        served = part * _served(early - gone, gives, held, demand) + (1 - part) * _served(
            late - gone, gives, held, demand
        )
    else:
        served = _served(late - gone, gives, held, demand)
    given_back = np.maximum(0.0, np.vstack([np.zeros((1, wanted.shape[1])), wanted[:-1] - wanted[1:]]))
    up = np.maximum(part * early + (1 - part) * late - gone, 0.0)
    return Lived(paid=wanted + given_back * options.drain_s / window_s, served=served, up=up)


def _least_of_last(values: Array, count: int) -> Array:
    """The minimum over each window and those before it (W, N): instances ordered in time and not given back since."""
    padded = np.concatenate([np.repeat(values[:1], count - 1, axis=0), values])
    return np.asarray(sliding_window_view(padded, count, axis=0).min(axis=2))


def _started_late(lost: Array, delay: float) -> Array:
    """Instances that are missing on average while their replacements start (W, N)."""
    missing = np.zeros_like(lost)
    for step in range(min(int(np.ceil(delay)), len(lost))):
        part = min(1.0, delay - step)
        missing[step:] += part * lost[: len(lost) - step]
    return missing


def _served(count: Array, gives: Array, held: Array, demand: Array) -> Array:
    """Share of the requests that ``count`` instances and the reserved ones carry (W, N)."""
    served = np.ones(count.shape)
    for k in range(len(gives)):
        with np.errstate(divide="ignore", invalid="ignore"):
            fits = (held[k] + gives[k] * np.maximum(count, 0.0)) / demand[:, [k]]
        np.minimum(served, np.where(demand[:, [k]] > 0, fits, 1.0), out=served)
    return served


def spot_of(machines: Machines, place: int, wanted: Array, needed: Array, work: Array, spot: Spot | None) -> Array:
    """Number of the wanted instances on spot (W, N), from the work of the window before (W,).

    If pools may be lost, the remaining instances must cover the number ``needed`` in the window before (W,).
    """
    if spot is None or not machines.spot_per_h[place] < machines.on_demand_per_h[place]:
        return np.zeros_like(wanted)
    price = machines.on_demand_per_h[[place]]
    most = SpotRoom.of(machines, work, spot).most(price)
    needed = needed[:, None]
    most, needed = (np.concatenate([one[:1], one[:-1]]) for one in (most, needed))
    most = np.minimum(most, spot.most_that_may_go(np.maximum(wanted - needed, 0.0)))
    return np.asarray(np.minimum(wanted, most))


def outages(options: ScheduleOptions, windows: int, window_s: float, seed: int = 0) -> Array:
    """Share of the spot instances that is lost at the beginning of each window (W,): zones fail independently.

    A zone is lost as a whole, because most losses take a whole pool. Each zone comes back after an outage. The rate of
    outages follows from the share of the time for which the settings say that a zone is unavailable.
    """
    spot, lost = options.spot, np.zeros(windows)
    if spot is None or spot.unavailable_fraction == 0:
        return lost
    up_s = spot.outage_s * (1 - spot.unavailable_fraction) / spot.unavailable_fraction
    for zone in range(spot.zones):
        random = np.random.default_rng([seed, zone])
        time = float(random.exponential(up_s))
        while time < windows * window_s:
            lost[int(time / window_s)] += 1 / spot.zones
            time += float(random.exponential(spot.outage_s)) + float(random.exponential(up_s))
    return np.minimum(lost, 1.0)


def outcomes(
    machines: Machines,
    place: int,
    lived: Lived,
    on_spot: Array,
    history: History,
    reserved_per_h: float,
    late: Array | None = None,
) -> list[RunningCost]:
    """Cost and shortage of each rule over the known windows (N); ``late`` is the late share of each class (C, N)."""
    known = history.is_known
    total = history.counted.sum(axis=1)[known]
    spot = np.minimum(on_spot, lived.paid)[known] * np.where(
        np.isfinite(machines.spot_per_h[place]), machines.spot_per_h[place], 0.0
    )
    demand = (lived.paid - np.minimum(on_spot, lived.paid))[known] * machines.on_demand_per_h[place]
    if machines.is_covered[place]:
        demand = np.maximum(demand - machines.allowance_per_h, 0.0)
    short = 1.0 - lived.served[known]
    share = total @ short / max(float(total.sum()), 1e-300)
    windows = (short > 1e-9).mean(axis=0)
    return [
        RunningCost(
            cost_per_h=reserved_per_h + float(demand[:, n].mean() + spot[:, n].mean()),
            on_demand_per_h=float(demand[:, n].mean()),
            spot_per_h=float(spot[:, n].mean()),
            short_fraction=float(share[n]),
            short_windows_fraction=float(windows[n]),
            late_fraction=0.0 if late is None else float(late[:, n].max(initial=0.0)),
        )
        for n in range(lived.paid.shape[1])
    ]


def deciding(signals: Signals, machines: Machines, place: int, reserved: Array, rates: Array, most: int) -> list[int]:
    """A few signals that need nearly as many instances of one machine as all signals do; the most demanding first."""
    gives = signals.per_instance(machines)
    demand = signals.demand(rates)
    with np.errstate(divide="ignore", invalid="ignore"):
        held = signals.held(machines, reserved, place)
        need = np.where(gives[:, place] > 0, (demand - held) / gives[:, place], -np.inf)
    need = np.maximum(need, 0.0)
    chosen: list[int] = []
    covered = np.zeros(len(need))
    for _ in range(most):
        gain = np.maximum(need, covered[:, None]).sum(axis=0)
        best = int(np.argmax(gain))
        if chosen and gain[best] <= covered.sum() * (1 + 1e-4):
            break
        chosen.append(best)
        covered = np.maximum(covered, need[:, best])
    return chosen
