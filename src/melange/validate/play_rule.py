"""Play out windows of a schedule request by request: the traffic before, instances that start and drain, the rule.

The balancer sends requests by the shares of the window's own mix. A large fleet is played out in part: with fewer
replicas of each type, and with traffic that keeps their load the same. Requests that may wait arrive as the schedule
sends them; each window is also played without them, to see their effect on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.problem import Positions, build
from melange.plan.question import Question
from melange.plan.routing import policy_state, replica_engines, types_of
from melange.plan.schedule.backtest import History
from melange.plan.schedule.deferred import history_as_sent
from melange.plan.schedule.schedule import PlayedStretch, Schedule
from melange.plan.servable import scope_of
from melange.plan.solve import with_instances
from melange.processes import each_of
from melange.profile.profile import Profile
from melange.replica.simulated.cluster import Event, play
from melange.validate.attainment import attainment, met
from melange.validate.simulate import levels, looked_up, within_context
from melange.workload.arrivals import Arrivals, draw
from melange.workload.demand import Demand
from melange.workload.workload import Array, Mask, Workload

# Most requests of a stretch: this many are played out in about two seconds.
_MOST_REQUESTS = 120_000
# Share of a window that is played before it, so that queues start as they would be [windows].
_BEFORE = 0.5
# Offset between the seeds of requests that may wait and the seeds of the others.
_APART = 1_000_003
# Number of windows drawn at random, besides the busiest and those with the most starts and drains.
_DRAWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """A window to play, and the reason."""

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
        A schedule with its rule.
    demand, profile, options
        The demand, profile and options of the schedule.

    Raises
    ------
    InputError
        The step times of some types are not known, or there is no SLO.
    """
    if profile.slo is None:
        raise InputError("the profile has no SLO to simulate for")
    names = [one.name for one in profile.replica_types]
    history = history_as_sent(schedule.deferred, demand, schedule.over)
    shape = (len(history), *demand.buckets.shape)
    scaled = np.zeros(len(history))
    if schedule.rule is not None:
        scaled = schedule.rule.wanted_over(history.rates.reshape(shape))
    held = np.zeros(len(names))
    for one, count in zip(schedule.replica_types, schedule.reserved, strict=True):
        held[names.index(one.name)] = count
    place = None if schedule.rule is None else names.index(schedule.rule.replica_type)
    waits = () if schedule.deferred is None else tuple(one.name for one in schedule.deferred.classes)
    player = _Player(demand, profile, options, schedule.options.start_up_s, held, place, waits)
    stretches = _stretches(history, scaled, seed)
    played = []
    jobs = [(player, stretch, history.rates, scaled, seed + place) for place, stretch in enumerate(stretches)]
    for done, found in enumerate(each_of(_played_stretch, jobs, len(jobs) + 1)):
        played.append(found)
        if progress is not None:
            progress((done + 1) / len(stretches))
    return tuple(played)


def _stretches(history: History, scaled: Array, seed: int) -> list[_Stretch]:
    """The windows to play; each has a known window before it."""
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
    """Windows played out, one after another."""

    def __init__(
        self,
        demand: Demand,
        profile: Profile,
        options: Options,
        start_up_s: float,
        held: Array,
        place: int | None,
        waits: tuple[str, ...] = (),
    ) -> None:
        self._demand, self._profile = demand, profile
        self._options = Options(headroom=options.headroom, drop_unservable=options.drop_unservable)
        self._start_up_s, self._held, self._place = start_up_s, held, place
        self._may_wait: Mask = np.array([name in waits for name in demand.buckets.classes or ("",)], bool)
        cells = len(demand.buckets.input_edges) * demand.buckets.shape[1]
        self._waits: Mask = np.repeat(self._may_wait, cells)  # sizes, in the flattened grid
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
            # Scale the traffic so that the part has the same load as the whole.
            less = self._plan(rates[window] * part, kept)
            scale = part * float(plan.load.max() / less.load.max())
            plan = less
        load = float(plan.load.max()) / (1 - self._options.headroom)
        change_s, start_up_s = _BEFORE * length_s, min(self._start_up_s, length_s)
        starting = round(max(0.0, float((after - before).sum())) * self._share(kept, most))
        draining = round(max(0.0, float((before - after).sum())) * self._share(kept, most))
        scaled_type = np.arange(len(kept)) == self._place
        early, late = kept - starting * scaled_type, kept - draining * scaled_type
        stages = (
            (change_s, rates[window - 1] * scale, early),
            (start_up_s, rates[window] * scale, np.minimum(early, late)),
            (length_s - start_up_s, rates[window] * scale, late),
        )
        own = [(change_s, stages[0][1] * ~self._waits), (length_s, stages[1][1] * ~self._waits)]
        own_arrivals = self._arrivals(own, 2 * seed)
        sent = [(long_s, rate * self._waits * self._room(plan, rate, fleet)) for long_s, rate, fleet in stages]
        arrivals = _merged([*own_arrivals, *self._arrivals(sent, 2 * seed + _APART)])
        counts = {
            one.name: int(n) * one.replicas_per_instance
            for one, n in zip(self._profile.replica_types, kept, strict=True)
            if n
        }
        each = 0 if self._place is None else int(self._replicas[self._place])
        events = (self._named(), starting * each, draining * each, change_s, self._start_up_s)
        is_met, class_of = _played(plan, counts, arrivals, events, seed)
        may_wait = np.zeros(len(is_met), bool) if class_of is None else self._may_wait[class_of]
        others, deferred = is_met[~may_wait], is_met[may_wait]
        share, alone = attainment([others]), None
        if len(deferred):
            alone = float(_played(plan, counts, _merged(own_arrivals), events, seed)[0].mean())
        words = f"{stretch.why}: {length_s * (1 + _BEFORE):,.0f} s"
        if scale < 1:
            words += f" of {scale:.1%} of the traffic and the fleet"
        return PlayedStretch(
            label=self._demand.label(window),
            requests=len(others),
            load=load * (scale / part if part < 1 else 1.0),
            attainment=share.value,
            low=share.low,
            started=starting * each,
            drained=draining * each,
            words=words,
            deferred_requests=len(deferred),
            deferred_attainment=float(deferred.mean()) if len(deferred) else None,
            attainment_alone=alone,
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
        """The plan of given instances (R,) under rates of sizes (I x O,)."""
        workload = self._workload(rate)
        question = Question(workload=workload, profile=self._profile, options=self._options)
        scope = scope_of(question)
        problem = build(question, scope.allowed, scope.served)
        useful = np.zeros(len(instances), np.int64)  # only types that serve some size of the window
        useful[problem.types] = instances[problem.types]
        plan = with_instances(question, useful)
        if plan is None:
            raise InputError(f"no fleet of the schedule serves the sizes of the window: {workload.source}")
        return plan

    def _arrivals(self, stages: Sequence[tuple[float, Array]], seed: int) -> list[Arrivals]:
        """The requests of successive stages, each given by its length [s] and rates [1/s]."""
        parts, start = [], 0.0
        for each, (length_s, rate) in enumerate(stages, seed):
            count = int(np.random.default_rng([each, 7]).poisson(rate.sum() * length_s))
            if count:
                drawn = draw(self._workload(rate), count, seed=each)
                # Given their number, Poisson arrivals in an interval are uniformly distributed over it.
                times = np.sort(np.random.default_rng([each, 8]).uniform(start, start + length_s, count))
                parts.append(replace(drawn, arrival_s=times))
            start += length_s
        return parts

    def _room(self, plan: Plan, rate: Array, fleet: Array) -> float:
        """Share of the requests that may wait for which a fleet (R,) has room beside the others, 0-1.

        They go where the plan sends them, as far as those replicas are up. The rest is held back until there is room.
        """
        if not (rate * self._waits).any():
            return 1.0
        share = plan.share.reshape(len(fleet), -1) * (fleet > 0)[:, None]
        speed = self._profile.max_request_rate.reshape(len(fleet), -1)
        # If all types of the plan are down, the type that carries most takes the size, as in the balancer.
        fittest = np.eye(len(fleet))[(speed * (fleet > 0)[:, None]).argmax(axis=0)].T
        share = np.where(share.sum(axis=0) > 1e-12, share, fittest)
        share = share / share.sum(axis=0)
        load = np.where(share > 0, rate * share / np.where(speed > 0, speed, np.inf), 0.0)
        own, waiting = load[:, ~self._waits].sum(axis=1), load[:, self._waits].sum(axis=1)
        if not waiting.any():
            return 0.0
        left = (1 - self._options.headroom) * self._replicas * fleet - own
        return float(np.clip((left[waiting > 0] / waiting[waiting > 0]).min(), 0.0, 1.0))


def _merged(parts: Sequence[Arrivals]) -> Arrivals:
    """Requests of several kinds, merged in the order of their arrival."""
    arrival_s = np.concatenate([one.arrival_s for one in parts])
    order = np.argsort(arrival_s, kind="stable")
    classes = [one.class_of for one in parts if one.class_of is not None]
    return Arrivals(
        arrival_s=arrival_s[order],
        input_tokens=np.concatenate([one.input_tokens for one in parts])[order],
        output_tokens=np.concatenate([one.output_tokens for one in parts])[order],
        class_of=np.concatenate(classes)[order] if classes else None,
    )


def _played_stretch(job: tuple[_Player, _Stretch, Array, Array, int]) -> PlayedStretch:
    player, stretch, rates, scaled, seed = job
    return player.play(stretch, rates, scaled, seed)


def _played(
    plan: Plan, counts: Mapping[str, int], arrivals: Arrivals, change: tuple[str, int, int, float, float], seed: int
) -> tuple[Mask, Positions | None]:
    """Whether each request of the window met the SLO (N,), and its class (N,).

    ``change`` has the scaled type, the replicas that start and drain, when, and how long they take to start.
    """
    scaled, starting, draining, change_s, start_up_s = change
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
    assert plan.slo is not None
    outcome = play(
        [engines[t] for t in type_of],
        fleet,
        0,
        arrivals.arrival_s,
        arrivals.input_tokens,
        arrivals.output_tokens,
        looked_up=looked_up(plan, arrivals),
        levels=levels(plan, arrivals),
        events=events,
        seed=seed,
    )
    outcome = outcome if arrivals.class_of is None else replace(outcome, class_of=arrivals.class_of)
    counted = np.asarray(arrivals.arrival_s >= change_s)
    class_of = None if arrivals.class_of is None else arrivals.class_of[counted].astype(np.int64)
    return met(outcome, plan.slo)[counted], class_of
