"""Suggest measurements: those with the lowest expected cost of a cautious plan afterwards.

A cautious plan counts on the low end of what replicas carry (:mod:`melange.plan.confidence`). Measuring a replica type
narrows its interval to a share k of its width, around a middle that is not known yet. The plan is solved again for
three outcomes (10 %, 50 % and 90 % quantile, with weights 0.3, 0.4 and 0.3), while all else stays as uncertain as it
is::

    saving = cost(now) - sum over outcomes of weight cost(type at outcome, its interval k as wide)

k is the share that the ridge regression of :mod:`melange.profile.correction` leaves at the sizes that the type would
serve. A type that does not enter the plan even at the high end of its interval is not worth measuring. Savings of
different types are evaluated one by one, and points are chosen one after another, the most valuable first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.errors import InfeasibleError
from melange.files import Json
from melange.plan.confidence import DECILE, NOT_KNOWN, at_quantile, quantile_of, with_rates
from melange.plan.options import COST
from melange.plan.plan import Plan
from melange.plan.problem import ROUNDING
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.profile.correction import REFERENCE_BATCH, SHARES, Sample, correction
from melange.profile.profile import MEASURED
from melange.replica.parallelism import Layout
from melange.units import MIN_PER_H, S_PER_MIN, significant
from melange.workload.workload import Array

# Swanson's rule: the mean of a skewed quantity is close to 0.3, 0.4 and 0.3 of its 10 %, 50 % and 90 % quantiles. More
# outcomes would be closer, but each is a plan to solve.
_OUTCOMES = ((-DECILE, 0.3), (0.0, 0.4), (DECILE, 0.3))
# Confidences: cautious, less cautious, not cautious. Savings are counted against the first with which a plan exists. At
# 0.9 a size may have no type left to count on, and then no measurement could be worth anything.
_CONFIDENCES = (0.9, 0.75, 0.5)
# Number of a type's sizes that are candidates, and stand for the type: those that take most of its time. With fewer,
# one point seems to settle the type. On examples/chat.yaml and mixed.yaml at two rates one size promised 9 to 43 % more
# savings than four, eight 0 to 19 % less; time hardly changed (16: 5 to 12 % more).
_MOST_SIZES = 4
# Steps of a measurement: start the server, one turn of all requests to warm up, then this many turns, or this many
# requests if that is more, at the given concurrency. The resulting cost is a rough estimate: a server that loads 70 GB
# over the network takes longer, a server with local weights takes less. Chosen by judgment.
START_MINUTES = 5.0
TURNS, LEAST_REQUESTS = 4, 100
# Share of the plan's cost that a measurement must save: plans are solved to this gap, so smaller savings may be chance.
_WORTH = 1e-3

# Replica types that share one measurement: accelerator, tensor-parallel degree, interconnect, engine.
_Kind = tuple[str, Layout, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One load point worth measuring.

    Parameters
    ----------
    replica_type
        The replica type of its kind that serves these requests; the cheapest if several do.
    accelerator, tensor_parallel
        Accelerator and tensor-parallel degree of that type.
    input_tokens, output_tokens
        Size of the requests to send [tokens].
    concurrency
        Requests to keep in flight; None if the profile does not have it.
    request_rate
        The alternative, a rate to send them at: the most that it serves within the SLO by the middle estimate [1/s].
    saves_per_h
        Expected savings of a cautious plan [USD/h].
    gpu_minutes
        Accelerator time of the measurement: 5 minutes to start a replica (once per type), one turn of all requests to
        warm up, then 4 turns and at least 100 requests [min].
    cost
        Price of the cheapest instance for that time [USD].
    """

    replica_type: str
    accelerator: str
    tensor_parallel: int
    input_tokens: int
    output_tokens: int
    concurrency: int | None
    request_rate: float
    saves_per_h: float
    gpu_minutes: float
    cost: float

    def to_json(self) -> Json:
        """As a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __str__(self) -> str:
        load = f"{self.concurrency} in flight" if self.concurrency else f"{significant(self.request_rate)} requests/s"
        shards = f"{self.tensor_parallel} x " if self.tensor_parallel > 1 else ""
        return (
            f"{shards}{self.accelerator} ({self.replica_type}) with requests of {self.input_tokens:,} tokens in and "
            f"{self.output_tokens:,} out, {load}: expected to save {self.saves_per_h:.2f} USD/h, takes "
            f"{self.gpu_minutes:.0f} GPU-minutes ({self.cost:.2f} USD)"
        )


def suggest_measurements(
    question: Question, *, count: int = 3, in_flight: Array | None = None
) -> tuple[Suggestion, ...]:
    """The load points whose measurement saves a cautious plan most, most valuable first.

    Parameters
    ----------
    question
        The question to plan for. If it sets no confidence, cautious means 0.9, or the highest of 0.75 and 0.5 with
        which there is a plan. A budget is ignored; with the carbon objective, the cheapest plan is used.
    count
        At most this many.
    in_flight
        Requests in flight at the maximum rate (R, I, O), for the concurrency to measure at.

    Returns
    -------
    tuple
        Fewer than ``count``, or none, if no other measurement would change the cost of a plan.

    Raises
    ------
    InfeasibleError
        No plan exists even on the middle estimates.
    """
    case = _case(question.with_options(objective=COST))
    values = [_value(case, kind, in_flight) for kind in case.worthwhile()]
    gains = [value.next_saving() for value in values]
    found: list[Suggestion] = []
    while len(found) < count and max(gains, default=0.0) > _WORTH * case.base.cost_per_h:
        best = gains.index(max(gains))
        found.append(values[best].take(gains[best]))
        gains[best] = values[best].next_saving() if len(found) < count else 0.0
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Case:
    """The current plan, and a way to solve it again with some types known better."""

    question: Question
    quantile: float
    base: Plan
    types_by_kind: Mapping[_Kind, list[int]]

    def with_kind(self, kind: _Kind, deviation: float) -> Plan | None:
        """The plan with the types of one kind at another quantile of their intervals, and the types used now.

        None if there is no plan. Other types are excluded, which keeps the question small: the saving is one that the
        current plan and this kind give together.
        """
        types, profile = self.types_by_kind[kind], self.question.profile
        deviations = np.full(len(profile.replica_types), self.quantile)
        deviations[types] = deviation
        # A load point corrects step times; a rate that was measured by a search keeps its interval.
        searched = at_quantile(profile, np.full(len(deviations), self.quantile))
        moved = at_quantile(profile, deviations)
        moved = np.where(profile.provenance == MEASURED, searched, moved)
        rates = with_rates(profile, moved, NOT_KNOWN)
        kept = {*np.flatnonzero(self.base.instances).tolist(), *types}
        others = [item.name for r, item in enumerate(profile.replica_types) if r not in kept]
        try:
            asked = replace(self.question, profile=rates)
            plan = solve(asked.with_options(exclude=(*asked.options.exclude, *others)))
        except InfeasibleError:
            return None
        # A plan that leaves more requests out is cheaper for the wrong reason: ignore it.
        return plan if plan.served_fraction >= self.base.served_fraction - ROUNDING else None

    def worthwhile(self) -> list[_Kind]:
        """Kinds with uncertain rates that are in the plan, or enter it at the high end of their interval."""
        profile, able = self.question.profile, self.question.workload.request_rate > 0
        is_open = (profile.high > profile.low) & (profile.provenance != MEASURED) & able
        kinds, enough = [], self.base.cost_per_h * (1 - _WORTH)
        least_per_h = self._least_costs()
        for kind, types in self.types_by_kind.items():
            if not is_open[types].any():
                continue
            if self.base.instances[types].any():
                kinds.append(kind)
                continue
            if least_per_h[kind] >= enough:
                continue
            best = self.with_kind(kind, -DECILE)
            if best is not None and best.cost_per_h < enough:
                kinds.append(kind)
        return kinds

    def _least_costs(self) -> dict[_Kind, float]:
        """What a plan with a kind at the high end costs at least [USD/h]: no other kind has to be solved for.

        It rents one instance of the kind, and each size costs at least its load on the cheapest of the types.
        """
        question, profile = self.question, self.question.profile
        served = (self.base.share.sum(axis=0) > 0).ravel()
        rate = question.workload.request_rate.ravel()[served] / (1.0 - question.options.headroom)
        cost = np.array([one.cost_per_h for one in profile.replica_types])
        replicas = np.array([one.replicas_per_instance for one in profile.replica_types], float)

        def costs(deviation: float) -> Array:
            highest = at_quantile(profile, np.full(len(cost), deviation)).reshape(len(cost), -1)[:, served]
            each = np.divide(rate, highest, out=np.full_like(highest, np.inf), where=highest > 0)
            return np.asarray(each * (cost / replicas)[:, None])

        now, best = costs(self.quantile)[self.base.instances > 0].min(axis=0), costs(-DECILE)
        part = self.base.served_fraction
        return {
            kind: max(float(cost[types].min()), part * float(np.minimum(now, best[types].min(axis=0)).sum()))
            for kind, types in self.types_by_kind.items()
        }


def _case(question: Question) -> _Case:
    profile, asked = question.profile, question.options.confidence
    plain = question.with_options(confidence=None, budget_per_h=None)
    confidences = _CONFIDENCES if asked is None else (asked, *_CONFIDENCES)
    for place, confidence in enumerate(confidences):
        deviations = np.full(len(profile.replica_types), quantile_of(confidence))
        rates = with_rates(profile, at_quantile(profile, deviations), NOT_KNOWN)
        try:
            base = solve(replace(plain, profile=rates))
        except InfeasibleError:
            if place == len(confidences) - 1:
                raise
            continue
        break
    kinds: dict[_Kind, list[int]] = {}
    for r, item in enumerate(profile.replica_types):
        kind = (item.offer.accelerator, item.layout, item.offer.interconnect, item.engine)
        kinds.setdefault(kind, []).append(r)
    return _Case(question=plain, quantile=quantile_of(confidence), base=base, types_by_kind=kinds)


@dataclass(slots=True, kw_only=True, eq=False)
class _Value:
    """The value of measuring one kind of replica, point by point.

    Parameters
    ----------
    cells
        Buckets to choose from, flattened; those that take most of the type's time come first.
    weight
        Share of the type's time that each of these buckets takes.
    taken
        Positions in ``cells`` of the points chosen so far.
    saved_per_h
        Savings of the points chosen so far [USD/h].
    """

    case: _Case
    kind: _Kind
    type_: int
    cells: Sequence[int]
    weight: Array
    in_flight: Array | None
    taken: list[int]
    saved_per_h: float = 0.0

    def next_saving(self) -> float:
        """Additional savings of the best further point [USD/h]."""
        left = self._candidates()
        return self._saving(min(left.values())) - self.saved_per_h if left else 0.0

    def take(self, saving: float) -> Suggestion:
        """Choose the best further point."""
        left = self._candidates()
        place = min(left, key=lambda one: left[one])
        is_first = not self.taken
        self.taken.append(place)
        self.saved_per_h += saving
        return self._suggestion(self.cells[place], saving, is_first)

    def _candidates(self) -> dict[int, float]:
        """Share of the interval's width that is left after each further point."""
        places = [place for place in range(len(self.cells)) if place not in self.taken]
        return {place: self._left([*self.taken, place]) for place in places}

    def _left(self, places: Sequence[int]) -> float:
        points = [self._sample(place) for place in places]
        every = [self._sample(place) for place in range(len(self.cells))]
        inputs = np.array([one.inputs for one in every])[None]
        outputs = np.array([one.outputs for one in every])[None]
        batch = np.array([one.batch for one in every])[None]
        spread = correction(points, inputs, outputs, 1.0).spread(batch)[0]
        x = np.log(np.maximum(batch[0], 1.0) / REFERENCE_BATCH)
        before = np.sqrt(SHARES.type_ + SHARES.size + SHARES.noise + SHARES.slope * x**2)
        return float((self.weight * spread / before).sum() / self.weight.sum())

    def _sample(self, place: int) -> Sample:
        workload, cell = self.case.question.workload, self.cells[place]
        return Sample(
            inputs=float(workload.input_tokens.ravel()[cell]),
            outputs=float(workload.output_tokens.ravel()[cell]),
            batch=self._concurrency(cell) or REFERENCE_BATCH,
        )

    def _concurrency(self, cell: int) -> float:
        return 0.0 if self.in_flight is None else float(self.in_flight[self.type_].ravel()[cell])

    def _saving(self, left: float) -> float:
        """Expected savings if the interval shrinks to the share ``left`` of its width [USD/h]."""
        case, now = self.case, self.case.base.cost_per_h
        moved = math.sqrt(max(1.0 - left**2, 0.0))
        expected = 0.0
        for outcome, weight in _OUTCOMES:
            plan = case.with_kind(self.kind, case.quantile * left + outcome * moved)
            expected += weight * (now if plan is None else plan.cost_per_h)
        return now - expected

    def _suggestion(self, cell: int, saving: float, is_first: bool) -> Suggestion:
        profile, workload = self.case.question.profile, self.case.question.workload
        item = profile.replica_types[self.type_]
        rate = float(profile.max_request_rate[self.type_].ravel()[cell] or profile.high[self.type_].ravel()[cell])
        concurrency = max(1, round(self._concurrency(cell))) if self.in_flight is not None else None
        at_once = concurrency or 1
        requests = at_once + max(LEAST_REQUESTS, TURNS * at_once)
        minutes = requests / rate / S_PER_MIN + START_MINUTES * is_first
        return Suggestion(
            replica_type=item.name,
            accelerator=item.offer.accelerator,
            tensor_parallel=item.tensor_parallel,
            input_tokens=round(float(workload.input_tokens.ravel()[cell])),
            output_tokens=round(float(workload.output_tokens.ravel()[cell])),
            concurrency=concurrency,
            request_rate=rate,
            saves_per_h=saving,
            gpu_minutes=minutes * item.layout.accelerators,
            cost=minutes / MIN_PER_H * item.cost_per_h,
        )


def _value(case: _Case, kind: _Kind, in_flight: Array | None) -> _Value:
    """A kind of replica with the sizes that it serves in the plan, or would serve at the high end of its interval."""
    types = case.types_by_kind[kind]
    plan = case.base if case.base.instances[types].any() else case.with_kind(kind, -DECILE) or case.base
    rates = np.maximum(case.question.profile.max_request_rate, case.question.profile.high)[types]
    served = plan.share[types] * case.question.workload.request_rate
    is_open = (rates > 0) & (case.question.profile.provenance[types] != MEASURED)
    busy = np.divide(served, rates, out=np.zeros_like(served), where=is_open).sum(axis=0).ravel()
    cells = [int(cell) for cell in np.argsort(-busy, kind="stable")[:_MOST_SIZES] if busy[cell] > 0]
    # A variant may serve sizes that the model as published cannot: the type to measure is one that serves them.
    able = rates.reshape(len(types), -1)[:, cells] > 0
    used, items = plan.instances[types] > 0, case.question.profile.replica_types
    place = min(range(len(types)), key=lambda r: (-able[r].sum(), not used[r], items[types[r]].cost_per_h))
    cells = [cell for cell, is_able in zip(cells, able[place], strict=True) if is_able]
    return _Value(
        case=case,
        kind=kind,
        type_=types[place],
        cells=cells,
        weight=busy[cells],
        in_flight=in_flight,
        taken=[],
    )
