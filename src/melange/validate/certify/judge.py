"""What simulations say of plans: each is tried on the same requests, and proven on others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.slo import Slo
from melange.validate.attainment import Interval, attainment, counted, limit_ratio, met
from melange.validate.causes import CAUSE_NAMES, causes
from melange.validate.observe import type_of_requests
from melange.validate.simulate import Run, simulate
from melange.workload.arrivals import Arrivals
from melange.workload.workload import Array

# Figures are from the twelve cases of bench/certify.py at 4 requests a second.

# A plan that cannot be distinguished from one that holds is simulated with up to this many times the requests: beyond
# it the interval of the attainment narrows by less than a tenth for each doubling of the work that a small miss would
# save. Half: 0.84 times the CPU time, twice: 1.15 times; both cost 1.6 % more, all of it in one case.
_MOST_TIMES = 4
# A plan that is to be certified is simulated with this many times the requests, none of which it was chosen by: what a
# certificate at 99.5 % needs for an interval of about a quarter of what it allows to miss. Half: 0.92 times the CPU
# time, twice: 1.22 times; one plan costs 1 % more in either.
_PROOF_TIMES = 12
# Of the shares by which plans are known again: four decimals are one request in ten thousand.
_SHARE_DECIMALS = 4
# How steeply a request counts as it nears its limit: less steep, and requests far from it count as well; steeper, and
# only misses do, of which there are few. 4: one certified plan held 99.48 % of fresh requests, where 99.5 % was
# promised; 16: 1.1 % more cost.
_SHARPNESS = 8.0
# A request that takes next to nothing, over its limit: keeps the power finite.
_LEAST_RATIO = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """One plan in simulation.

    Parameters
    ----------
    plan
        With loads and rates as the profile has them, whatever the factors.
    factor
        What the rates were multiplied with to find it (R, I, O).
    attainment
        Share of requests that met the SLO, with its interval.
    sent, missed, hopeless
        Requests by type and bucket (R, I, O): all, those that missed, and those that would have missed alone.
    runs
        The simulations.
    """

    plan: Plan
    factor: Array
    attainment: Interval
    sent: Array
    missed: Array
    hopeless: Array
    runs: tuple[Run, ...]


@dataclass(slots=True, kw_only=True, eq=False)
class Judge:
    """Tries plans of one question on the same requests.

    Parameters
    ----------
    question
        What is planned.
    slo
        What requests must meet.
    target
        Share of requests that must meet it, 0-1.
    policy
        How requests are balanced.
    draw
        Makes the requests of a simulation, by number.
    seeds
        Simulations that a plan is tried with at first.
    say
        Called with a sentence for each plan.
    known
        The plans that were tried, by what they rent and where they send requests.
    """

    question: Question
    slo: Slo
    target: float
    policy: str
    draw: Callable[[int], Arrivals]
    seeds: int
    say: Callable[[str], None]
    known: dict[bytes, Trial] = field(default_factory=dict)
    _arrivals: dict[int, Arrivals] = field(default_factory=dict)

    def holds(self, trial: Trial) -> bool:
        """Whether the target is met, by as many requests as were needed to tell; :meth:`proof` asks for confidence."""
        return trial.attainment.value >= self.target

    def trial(self, plan: Plan, factor: Array) -> Trial:
        """A plan in simulation; one that was simulated before is not again."""
        # Shares that differ by less send hardly a request elsewhere, and a simulation would say the same.
        key = plan.instances.tobytes() + np.round(plan.share, _SHARE_DECIMALS).tobytes()
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = self._tried(plan, factor)
            held = found.attainment
            met = f"{held.value:.2%} met ({held.low:.2%} at least)"
            self.say(f"plan {len(self.known)}: {plan.cost_per_h:.2f} USD/h, {met}")
        return replace(found, factor=factor)

    def _tried(self, plan: Plan, factor: Array) -> Trial:
        """The plan on the requests that factors are chosen by; if it holds there, on others, and those decide."""
        trial = self._decided(plan, factor, 0, self.seeds)
        return self._decided(plan, factor, self.seeds * _MOST_TIMES, self.seeds) if self.holds(trial) else trial

    def _decided(self, plan: Plan, factor: Array, first: int, least: int) -> Trial:
        """The plan in simulation, with more sets of requests while these leave open whether it holds."""
        trial = self._simulated(plan, factor, first, 1, ())
        while trial.attainment.low < self.target <= trial.attainment.high:
            count = min(max(least, 2 * len(trial.runs)), _MOST_TIMES * self.seeds)
            if count == len(trial.runs):
                break
            trial = self._simulated(plan, factor, first, count, trial.runs)
        if self.holds(trial) and len(trial.runs) < least:
            trial = self._simulated(plan, factor, first, least, trial.runs)
        return trial

    def proof(self, trial: Trial) -> Trial:
        """A plan on requests of its own, many at once: stopping at the first favorable ones would choose again."""
        return self._simulated(trial.plan, trial.factor, 2 * _MOST_TIMES * self.seeds, _PROOF_TIMES * self.seeds, ())

    def _simulated(self, plan: Plan, factor: Array, first: int, count: int, before: tuple[Run, ...]) -> Trial:
        """A plan with ``count`` sets of requests, from number ``first`` on; some of them simulated before."""
        runs = [*before, *(self._run(plan, seed) for seed in range(first + len(before), first + count))]
        shape = self.question.profile.max_request_rate.shape
        tables = np.zeros((3, *shape))
        samples = []
        for run in runs:
            is_met, mask = met(run.outcome, self.slo), counted(run.outcome)
            samples.append(is_met[mask])
            is_hopeless = self.causes_of(run) == CAUSE_NAMES.index("too large")
            cells = _cells(run, shape)
            for table, chosen in zip(tables, (mask, mask & ~is_met, mask & is_hopeless), strict=True):
                np.add.at(table.reshape(-1), cells[chosen & (cells >= 0)], 1.0)
        return Trial(
            plan=plan,
            factor=factor,
            attainment=attainment(samples),
            sent=tables[0],
            missed=tables[1],
            hopeless=tables[2],
            runs=tuple(runs),
        )

    def met_share(self, plan: Plan, sets: int) -> float:
        """Share of the requests of some sets that meet the SLO under a plan, and no more than that."""
        runs = [self._run(plan, seed) for seed in range(sets)]
        return float(np.mean([met(run.outcome, self.slo)[counted(run.outcome)].mean() for run in runs]))

    def strain(self, plan: Plan, sets: int) -> float:
        """How hard it is for the requests of some sets to meet the SLO, 0-1.

        Each counts ``x^8 / (1 + x^8)`` at ``x`` times its limit: nearly nothing well within it, a half at it, nearly
        one beyond. Few requests miss, and many come near: that distinguishes plans with fewer requests than misses do.
        """
        runs = [self._run(plan, seed).outcome for seed in range(sets)]
        over = np.concatenate([limit_ratio(one, self.slo)[counted(one)] for one in runs])
        return float((1.0 / (1.0 + np.maximum(over, _LEAST_RATIO) ** -_SHARPNESS)).mean())

    def arrivals(self, number: int) -> Arrivals:
        """The requests of a simulation; those of a number are always the same."""
        if number not in self._arrivals:
            self._arrivals[number] = self.draw(number)
        return self._arrivals[number]

    def _run(self, plan: Plan, seed: int) -> Run:
        return simulate(plan, self.arrivals(seed), policy=self.policy, seed=seed)

    def causes_of(self, run: Run) -> Array:
        """Why each request of a run missed (N,)."""
        return causes(run.outcome, self.slo, run.engines, type_of_requests(run), run.arrivals.cached_tokens)


def _cells(run: Run, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Place of each request in a table over type and bucket, flattened (N,); -1 where no replica took it."""
    buckets = run.plan.workload.buckets
    i = np.minimum(np.searchsorted(buckets.input_edges, run.outcome.input_tokens), shape[1] - 1)
    o = np.minimum(np.searchsorted(buckets.output_edges, run.outcome.output_tokens), shape[2] - 1)
    t = type_of_requests(run).astype(int)
    r = np.asarray(run.types)[np.maximum(t, 0)]
    return np.where(t >= 0, (r * shape[1] + i) * shape[2] + o, -1)
