"""Windows of a schedule played out request by request: the traffic of before, instances that start and drain, the rule.

The balancer sends requests by the shares of the window's own mix. Large fleets are played out as a part of themselves:
as many replicas of each type fewer, and as much traffic as keeps their load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.problem import build
from melange.plan.question import Question
from melange.plan.routing import policy_state, replica_engines, types_of
from melange.plan.schedule.backtest import History
from melange.plan.schedule.schedule import PlayedStretch, Schedule
from melange.plan.servable import scope_of
from melange.plan.solve import with_instances
from melange.processes import each_of
from melange.profile.profile import Profile
from melange.replica.simulated.cluster import Event, play
from melange.validate.attainment import attainment, met
from melange.validate.simulate import within_context
from melange.workload.arrivals import Arrivals, draw
from melange.workload.demand import Demand
from melange.workload.workload import Array, Mask, Workload

# Requests of a stretch: as many are played out in about two seconds.
_MOST_REQUESTS = 120_000
# Share of a window that is played before it, for queues to be as they are [windows].
_BEFORE = 0.5
# Windows that are drawn at random besides the busiest and those with the most starts and drains.
_DRAWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """A window to play, and why."""

    window: int
    why: str


def play_rule(
    schedule: Schedule,
    demand: Demand,
    profile: Profile,
    options: Options,
    *,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> tuple[PlayedStretch, ...]:
    """Play out the busiest window, those with the most starts and drains, and some drawn at random.

    Parameters
    ----------
    schedule
        With its rule.
    demand, profile, options
        What it was made from.

    Raises
    ------
    InputError
        Types whose steps are not known, or no SLO to meet.
    """
    if profile.slo is None:
        raise InputError("the profile has no SLO to simulate for")
    names = [one.name for one in profile.replica_types]
    history = History.of(demand.rates(), demand.window_s)
    shape = (len(history), *demand.buckets.shape)
    scaled = np.zeros(len(history))
    if schedule.rule is not None:
        scaled = schedule.rule.wanted_over(history.rates.reshape(shape))
    held = np.zeros(len(names))
    for one, count in zip(schedule.replica_types, schedule.reserved, strict=True):
        held[names.index(one.name)] = count
    place = None if schedule.rule is None else names.index(schedule.rule.replica_type)
    player = _Player(demand, profile, options, schedule.options.start_up_s, held, place)
    stretches = _stretches(history, scaled, seed)
    played = []
    jobs = [(player, stretch, history.rates, scaled, seed + place) for place, stretch in enumerate(stretches)]
    for done, found in enumerate(each_of(_played_stretch, jobs, len(jobs) + 1)):
        played.append(found)
        if progress is not None:
            progress((done + 1) / len(stretches))
    return tuple(played)


def _stretches(history: History, scaled: Array, seed: int) -> list[_Stretch]:
    """The windows that are played; each has a known one before it."""
    able = np.flatnonzero(history.is_known[1:] & history.is_known[:-1]) + 1
    if not len(able):
        raise InputError("demand: no two consecutive windows are known")
    able = able[history.rates[able].sum(axis=1) > 0]
    step = scaled[able] - scaled[able - 1]
    total = history.rates.sum(axis=1)[able]
    found = [_Stretch(window=int(able[np.argmax(total)]), why="the busiest window")]
    if step.max() > 0:
        found.append(_Stretch(window=int(able[np.argmax(step)]), why="the most starts"))
    if step.min() < 0:
        found.append(_Stretch(window=int(able[np.argmin(step)]), why="the most drains"))
    drawn = np.random.default_rng(seed).choice(able, size=min(_DRAWN, len(able)), replace=False)
    found += [_Stretch(window=int(window), why="drawn at random") for window in sorted(drawn.tolist())]
    seen: set[int] = set()
    return [one for one in found if not (one.window in seen or seen.add(one.window))]  # type: ignore[func-returns-value]


class _Player:
    """Windows played out, one after the other."""

    def __init__(
        self, demand: Demand, profile: Profile, options: Options, start_up_s: float, held: Array, place: int | None
    ) -> None:
        self._demand, self._profile = demand, profile
        self._options = Options(headroom=options.headroom, drop_unservable=options.drop_unservable)
        self._start_up_s, self._held, self._place = start_up_s, held, place
        self._replicas = np.array([one.replicas_per_instance for one in profile.replica_types])

    def play(self, stretch: _Stretch, rates: Array, scaled: Array, seed: int) -> PlayedStretch:
        window = stretch.window
        before, after = self._held.copy(), self._held.copy()
        if self._place is not None:
            before[self._place] += scaled[window - 1]
            after[self._place] += scaled[window]
        most = np.maximum(before, after)
        length_s = self._demand.window_s
        expected = length_s * (_BEFORE * rates[window - 1].sum() + rates[window].sum())
        part = min(1.0, _MOST_REQUESTS / max(float(expected), 1.0))
        kept = most if part >= 1 else np.where(most > 0, np.maximum(1, np.round(most * part)), 0)
        plan, scale = self._plan(rates[window], most), 1.0
        if part < 1:
            # As much traffic as loads the part as the whole is loaded.
            less = self._plan(rates[window] * part, kept)
            scale = part * float(plan.load.max() / less.load.max())
            plan = less
        load = float(plan.load.max()) / (1 - self._options.headroom)
        arrivals = self._arrivals(rates[window - 1] * scale, rates[window] * scale, seed)
        starting = round(max(0.0, float((after - before).sum())) * self._share(kept, most))
        draining = round(max(0.0, float((before - after).sum())) * self._share(kept, most))
        counts = {
            one.name: int(n) * one.replicas_per_instance
            for one, n in zip(self._profile.replica_types, kept, strict=True)
            if n
        }
        change_s = _BEFORE * length_s
        each = 0 if self._place is None else int(self._replicas[self._place])
        outcome_met, count = _played(
            plan, counts, arrivals, self._named(), starting * each, draining * each, change_s, self._start_up_s, seed
        )
        share = attainment([outcome_met])
        words = f"{stretch.why}: {length_s * (1 + _BEFORE):,.0f} s"
        if scale < 1:
            words += f" of {scale:.1%} of the traffic and the fleet"
        return PlayedStretch(
            label=self._demand.label(window),
            requests=count,
            load=load * (scale / part if part < 1 else 1.0),
            attainment=share.value,
            low=share.low,
            started=starting * each,
            drained=draining * each,
            words=words,
        )

    def _named(self) -> str:
        return "" if self._place is None else self._profile.replica_types[self._place].name

    def _share(self, kept: Array, most: Array) -> float:
        """Share of the scaled type's instances that is played."""
        if self._place is None or not most[self._place]:
            return 0.0
        return float(kept[self._place] / most[self._place])

    def _workload(self, rate: Array) -> Workload:
        return replace(self._demand.workload(), request_rate=rate.reshape(self._demand.buckets.shape), cautions=())

    def _plan(self, rate: Array, instances: Array) -> Plan:
        """The plan of some instances (R,) under rates of sizes (I x O,)."""
        workload = self._workload(rate)
        question = Question(workload=workload, profile=self._profile, options=self._options)
        scope = scope_of(question)
        problem = build(question, scope.allowed, scope.served)
        # Of a large base more may run than the window could use; the shares are those of the part that it could.
        useful = np.zeros(len(instances), np.int64)
        useful[problem.types] = np.minimum(instances[problem.types], problem.most)
        plan = with_instances(question, useful)
        if plan is None:
            raise InputError(f"no fleet of the schedule serves the sizes of the window: {workload.source}")
        return plan

    def _arrivals(self, before: Array, after: Array, seed: int) -> Arrivals:
        """The second half of the window before, then the window."""
        parts, start = [], 0.0
        for rate, share, each in ((before, _BEFORE, 2 * seed), (after, 1.0, 2 * seed + 1)):
            length_s = share * self._demand.window_s
            count = int(np.random.default_rng([each, 7]).poisson(rate.sum() * length_s))
            if count:
                drawn = draw(self._workload(rate), count, seed=each)
                # A given number of Poisson arrivals in a time is spread evenly at random over it.
                times = np.sort(np.random.default_rng([each, 8]).uniform(start, start + length_s, count))
                parts.append(replace(drawn, arrival_s=times))
            start += length_s
        return Arrivals(
            arrival_s=np.concatenate([one.arrival_s for one in parts]),
            input_tokens=np.concatenate([one.input_tokens for one in parts]),
            output_tokens=np.concatenate([one.output_tokens for one in parts]),
        )


def _played_stretch(job: tuple[_Player, _Stretch, Array, Array, int]) -> PlayedStretch:
    player, stretch, rates, scaled, seed = job
    return player.play(stretch, rates, scaled, seed)


def _played(
    plan: Plan,
    counts: Mapping[str, int],
    arrivals: Arrivals,
    scaled: str,
    starting: int,
    draining: int,
    change_s: float,
    start_up_s: float,
    seed: int,
) -> tuple[Mask, int]:
    """Whether each request of the window met the SLO, and how many there were."""
    types = types_of(plan, counts)
    engines = replica_engines(plan, types)
    fleet = policy_state(plan, counts, "arrays")
    type_of = np.asarray(fleet.type_of)
    arrivals = within_context(arrivals, max(engine.max_context for engine in engines))
    events: list[Event] = []
    if starting or draining:
        own = types.index([one.name for one in plan.replica_types].index(scaled))
        last = np.flatnonzero(type_of == own)[::-1]
        coming, going = last[:starting].tolist(), last[:draining].tolist()
        for replica in coming:
            fleet.is_up[replica] = 0
        events += [Event(at_s=change_s + start_up_s, replica=replica, is_up=True) for replica in coming]
        events += [Event(at_s=change_s, replica=replica, is_up=False, is_drained=True) for replica in going]
    outcome = play(
        [engines[t] for t in type_of],
        fleet,
        0,
        arrivals.arrival_s,
        arrivals.input_tokens,
        arrivals.output_tokens,
        events=events,
        seed=seed,
    )
    assert plan.slo is not None
    counted = np.asarray(arrivals.arrival_s >= change_s)
    return met(outcome, plan.slo)[counted], int(counted.sum())
