"""Choose the scaling rule by back-test: the cheapest rule that would have met the limit on short requests.

Rules are chosen on the first two thirds of the history and evaluated on the last third. Holt-Winters, seasonal naive
and week-ago shapes were no better than the last window or a line, up to 20 minutes ahead, on services of ServeGen, so
they are not tried.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from melange.plan.schedule.backtest import History, RunningCost, deciding, live, outages, outcomes, spot_of
from melange.plan.schedule.contracts import ScheduleOptions
from melange.plan.schedule.machines import Machines
from melange.plan.schedule.peak import peak_load
from melange.plan.schedule.rule import HIGHEST, LAST, LINE, RuleSettings, look_ahead
from melange.plan.schedule.sending import late_fractions
from melange.plan.schedule.signals import Signals
from melange.units import S_PER_DAY
from melange.workload.workload import Array

# Settings that are tried. Look-backs are as long as a line still helps; margins are multiples of the recent steps of
# the load; targets go down to half of the planned capacity, below which there is no further gain.
_AHEAD = ((LAST, 1), (HIGHEST, 2), (HIGHEST, 3), (HIGHEST, 6), (LINE, 3), (LINE, 6))
_MARGINS = (0.0, 0.5, 1.0, 2.0)
_TARGETS = (1.0, 0.97, 0.94, 0.9, 0.86, 0.82, 0.78, 0.74, 0.7, 0.65, 0.6, 0.5)
_STABLE = (1, 3, 6)
# Quantile of the load's steps that a margin covers: in the last day of the training part, nine of ten were smaller.
_STEP_QUANTILE = 0.9
# Part of the history that rules are chosen on; they are evaluated on the rest.
TRAINING = 2 / 3
# Number of signals that a rule watches, and number of signals that measure its shortage.
_WATCHED, _JUDGED = 4, 16
# Number of machines that are tried as the scaled one: the cheapest with hindsight.
_SCALED = 2
# Windows whose fleets are checked by a linear program, rounds of these checks, and the overload from which a fleet is
# short: each short fleet adds a signal. Shares of short requests are not resolved more finely than this overload.
_CHECKED, _ROUNDS, _SHORT = 120, 2, 1e-3
# Points of the frontier that are shown.
_POINTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """A rule and its outcome in the last third of the history.

    Parameters
    ----------
    settings
        Settings of the rule.
    outcome
        Its outcome in the windows that it was not chosen on.
    """

    settings: RuleSettings
    outcome: RunningCost


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChosenRule:
    """The chosen rule and its outcome on the history.

    Parameters
    ----------
    place
        The machine that it scales.
    signals
        All signals that fleets are measured by.
    watched
        The signals that the rule watches (S).
    settings
        How it looks ahead.
    training, unseen, whole
        Its outcome in the first two thirds, in the last third, and in all of the history.
    frontier
        Rules by cost, with the outcome of each in the last third.
    wanted
        Instances in each window (W,).
    on_spot
        How many of these instances are on spot (W,).
    late
        Late share of each class that may wait, over the whole history (C), 0-1.
    """

    place: int
    signals: Signals
    watched: tuple[int, ...]
    settings: RuleSettings
    training: RunningCost
    unseen: RunningCost
    whole: RunningCost
    frontier: tuple[FrontierPoint, ...]
    wanted: Array
    on_spot: Array
    late: tuple[float, ...] = ()


def choose_rule(
    machines: Machines, signals: Signals, reserved: Array, history: History, options: ScheduleOptions, seed: int = 0
) -> ChosenRule:
    """Choose the machine that scales and the rule that scales it.

    Parameters
    ----------
    reserved
        Instances that run all the time (R,).
    """
    trained = history.part(0, max(1, round(TRAINING * len(history))))
    signals = sharpened(machines, signals, reserved, history)
    found = [
        _chosen_for(machines, signals, reserved, place, history, trained, options, seed)
        for place in _candidates(machines, signals, reserved, trained)
    ]
    return min(found, key=lambda one: (one.training.missed_fraction > options.short_fraction, one.training.cost_per_h))


def sharpened(machines: Machines, signals: Signals, reserved: Array, history: History) -> Signals:
    """The signals, extended by those that show a fleet of some window to be short.

    The checked fleets are those that the signals require of each candidate machine, in evenly spread windows.
    """
    known = np.flatnonzero(history.is_known & (history.rates.sum(axis=1) > 0))
    looked = np.unique(known[np.linspace(0, len(known) - 1, min(_CHECKED, len(known))).astype(int)])
    for place in _candidates(machines, signals, reserved, history):
        for _ in range(_ROUNDS):
            gives = signals.per_instance(machines)
            lack = signals.demand(history.rates[looked]) - signals.held(machines, reserved, place)
            with np.errstate(divide="ignore", invalid="ignore"):
                need = np.where(lack > 1e-9, lack / gives[:, place], 0.0).max(axis=1)
            prices = []
            for window, count in zip(looked.tolist(), np.ceil(need - 1e-9).tolist(), strict=True):
                fleet = reserved + count * (np.arange(len(machines)) == place)
                if fleet.any():
                    peak, price, _ = peak_load(machines, history.rates[window], fleet, enough=1.0)
                    if peak > 1 + _SHORT:
                        prices.append(price)
            if not prices:
                break
            signals = signals.with_more(machines, np.array(prices))
    return signals


def _candidates(machines: Machines, signals: Signals, reserved: Array, history: History) -> list[int]:
    """The cheapest machines with hindsight, each used alone in addition to the reserved instances.

    Machines of which there are too few for the busiest window come last.
    """
    most = machines.most_beside(reserved)
    gives = signals.per_instance(machines)
    demand = signals.demand(history.rates[history.is_known])
    cost, lacks = [], []
    for r in range(len(machines)):
        lack = demand - signals.held(machines, reserved, r)
        with np.errstate(divide="ignore", invalid="ignore"):
            need = np.where(lack > 1e-9, lack / gives[:, r], 0.0).max(axis=1)
        cheapest = min(machines.on_demand_per_h[r], machines.spot_per_h[r])
        cost.append(float(np.ceil(need - 1e-9).mean() * cheapest))
        lacks.append(bool(np.ceil(need.max(initial=0.0) - 1e-9) > most[r]))
    order = [int(r) for r in np.lexsort((cost, lacks)) if np.isfinite(cost[r])]
    return order[:_SCALED]


def settings_to_try(load: Array, window_s: float, min_up_s: float = 0.0) -> list[RuleSettings]:
    """Every rule that is tried; the margins come from the steps of the load (W,) in its last day.

    A rule keeps the highest count of the last ``stable_windows``, so an instance stays for at least that long, and
    never for less than ``min_up_s`` [s].
    """
    least = max(1, int(np.ceil(min_up_s / window_s)))
    stable_windows = sorted({max(count, least) for count in _STABLE})
    lately = load[-max(2, round(S_PER_DAY / window_s)) :]
    before = lately[:-1]
    steps = np.abs(np.diff(lately)[before > 0]) / before[before > 0]
    step = float(np.quantile(steps, _STEP_QUANTILE)) if len(steps) else 0.0
    return [
        RuleSettings(ahead=ahead, look_back=count, margin=round(part * step, 4), target=target, stable_windows=stable)
        for (ahead, count), part, target, stable in itertools.product(_AHEAD, _MARGINS, _TARGETS, stable_windows)
    ]


def decide(settings: list[RuleSettings], demand: Array, gives: Array, held: Array, delay_windows: float) -> Array:
    """Instances that each rule wants in each window, from the windows before it (W, N).

    Parameters
    ----------
    demand
        The traffic's demand for each watched signal (W, S).
    gives, held
        What an instance and what the reserved instances give to each signal (S,).
    """
    wanted = np.zeros((len(demand), len(settings)))
    aheads: dict[tuple[str, int], Array] = {}
    for n, one in enumerate(settings):
        key = (one.ahead, one.look_back)
        if key not in aheads:
            aheads[key] = np.stack([look_ahead(load, one, delay_windows) for load in demand.T], axis=1)
        each = (aheads[key] * (1 + one.margin) / one.target - held) / gives
        wanted[:, n] = np.maximum(np.ceil(each.max(axis=1) - 1e-9), 0.0)
    # The count for a window is decided at its beginning; the first window has none before it and uses itself.
    wanted = np.concatenate([wanted[:1], wanted[:-1]])
    stable = np.array([one.stable_windows for one in settings])
    for count in np.unique(stable[stable > 1]).tolist():
        where = stable == count
        padded = np.concatenate([np.repeat(wanted[:1, where], count - 1, axis=0), wanted[:, where]])
        wanted[:, where] = np.lib.stride_tricks.sliding_window_view(padded, count, axis=0).max(axis=2)
    return wanted


class Trial:
    """Rules run over a history on one machine, in addition to the reserved instances."""

    def __init__(
        self,
        machines: Machines,
        signals: Signals,
        reserved: Array,
        place: int,
        watched: list[int],
        options: ScheduleOptions,
        seed: int = 0,
    ) -> None:
        """Set up for one machine and the signals that it is scaled by."""
        self._machines, self._signals, self._reserved, self._place = machines, signals, reserved, place
        self._watched, self._options, self._seed = watched, options, seed
        spot = options.spot
        self.spot_share = 0.0
        if spot is not None and machines.spot_per_h[place] < machines.on_demand_per_h[place]:
            self.spot_share = spot.most_of_one_type

    def run(self, settings: list[RuleSettings], history: History) -> tuple[list[RunningCost], Array, Array, Array]:
        """Outcome of each rule, its instances and those on spot (W, N), and the late share of each class (C, N)."""
        options, machines, place = self._options, self._machines, self._place
        gives = self._signals.per_instance(machines)
        demand = self._signals.demand(history.rates)
        held = self._signals.held(machines, self._reserved, place)
        watched = self._watched
        delay = options.start_up_s / history.window_s
        wanted = decide(settings, demand[:, watched], gives[watched, place], held[watched], delay)
        wanted = np.minimum(wanted, machines.most_beside(self._reserved)[place])
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = np.where(gives[:, place] > 0, (demand - held) / gives[:, place], 0.0).max(axis=1)
        on_spot = spot_of(
            machines,
            place,
            wanted,
            np.ceil(np.maximum(needed, 0.0) - 1e-9),
            machines.work(history.rates),
            options.spot if self.spot_share else None,
        )
        lost = (
            outages(options, len(history), history.window_s, self._seed) if self.spot_share else np.zeros(len(history))
        )
        part = np.divide(on_spot, wanted, out=np.zeros_like(wanted), where=wanted > 0).mean(axis=1)
        judged = deciding(self._signals, machines, place, self._reserved, history.rates, _JUDGED)
        judged = list(dict.fromkeys([*watched, *judged]))
        given, kept = gives[judged, place], held[judged]
        counted = demand[:, judged] if history.own is None else self._signals.demand(history.own)[:, judged]
        lived = live(wanted, given, kept, counted, lost * part, options, history.window_s)
        weight = self._signals.weight[judged]
        late = late_fractions(history.sent, weight, given, lived.up, kept, counted, history.window_s)
        fixed = machines.fixed_per_h(self._reserved)
        return outcomes(machines, place, lived, on_spot, history, fixed, late), wanted, on_spot, late


def _chosen_for(
    machines: Machines,
    signals: Signals,
    reserved: Array,
    place: int,
    history: History,
    trained: History,
    options: ScheduleOptions,
    seed: int,
) -> ChosenRule:
    watched = deciding(signals, machines, place, reserved, trained.rates, _WATCHED)
    trial = Trial(machines, signals, reserved, place, watched, options, seed)
    settings = settings_to_try(trained.rates @ signals.weight[watched[0]], history.window_s, options.min_up_s)
    seen, *_ = trial.run(settings, trained)
    best = cheapest_within(seen, options.short_fraction)
    front = frontier_of(seen)
    kept = [settings[n] for n in [*front, best]]
    whole, wanted, on_spot, late = trial.run(kept, history)
    unseen = history.part(len(trained), len(history)) if len(trained) < len(history) else trained
    # Rules look back into the training part, so its last windows are the context of the last third.
    context = history.part(max(0, len(trained) - 12), len(history))
    later = trial.run(kept, _only_last(context, len(unseen)))[0]
    return ChosenRule(
        place=place,
        signals=signals,
        watched=tuple(watched),
        settings=settings[best],
        training=seen[best],
        unseen=later[-1],
        whole=whole[-1],
        frontier=tuple(
            FrontierPoint(settings=one, outcome=after) for one, after in zip(kept[:-1], later[:-1], strict=True)
        ),
        wanted=wanted[:, -1],
        on_spot=on_spot[:, -1],
        late=tuple(late[:, -1].tolist()),
    )


def _only_last(history: History, count: int) -> History:
    """The same windows, but only the last ``count`` of them count."""
    counts = history.is_known & (np.arange(len(history)) >= len(history) - count)
    return replace(history, is_known=counts)


def cheapest_within(found: list[RunningCost], short_fraction: float) -> int:
    """The cheapest rule within the limit on short requests; if there is none, the rule with the fewest.

    The limit also applies to late requests of classes that may wait.
    """
    cost = np.array([one.cost_per_h for one in found])
    short = np.array([one.missed_fraction for one in found])
    fits = short <= short_fraction
    return int(np.argmin(np.where(fits, cost, np.inf))) if fits.any() else int(np.lexsort((cost, short))[0])


def frontier_of(found: list[RunningCost], most: int = _POINTS) -> list[int]:
    """Rules that no other rule beats in both cost and short requests, the cheapest first, reduced to a few."""
    order = sorted(range(len(found)), key=lambda n: (found[n].cost_per_h, found[n].missed_fraction))
    front: list[int] = []
    for n in order:
        if not front or found[n].missed_fraction < found[front[-1]].missed_fraction - 1e-6:
            front.append(n)
    places = np.unique(np.round(np.linspace(0, len(front) - 1, most)).astype(int))
    return [front[k] for k in places]
