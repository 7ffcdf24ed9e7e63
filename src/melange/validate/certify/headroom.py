"""The search for the headroom that an SLO needs: factors on rates, plans, and what simulations say of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from melange.errors import InfeasibleError
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.validate.attainment import Interval, attainment, counted, excess, met
from melange.validate.causes import CAUSES, NAMES, causes, shares_of
from melange.validate.observe import type_of_requests
from melange.validate.simulate import Run, simulate
from melange.workload.arrivals import Arrivals
from melange.workload.workload import Array, Workload

ROUNDS_UP, ROUNDS_DOWN = 40, 7
# What a round takes from the rates of a type where requests miss, at least and at most.
LEAST_CUT, MOST_CUT = 0.03, 0.2
# The most that rates are raised by where the simulation shows room.
MOST_ROOM = 2.5
# A factor this small: more of the same replicas does not help.
HOPELESS = 0.15
# A plan that cannot be told from one that holds is simulated with up to so many times the requests.
MOST_TIMES = 4
# A plan that is to be certified is simulated with so many times the requests, none of which it was chosen by.
PROOF_TIMES = 12


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


class Search:
    """Plans of one workload, tried on the same requests.

    Parameters
    ----------
    workload, profile, options, slo
        What is planned.
    target
        Share of requests that must meet the SLO, 0-1.
    policy
        How requests are balanced.
    draw
        Makes the requests of a simulation, by number.
    seeds
        Simulations that a plan is tried with at first.
    say
        Called with a sentence for each plan.
    """

    def __init__(
        self,
        workload: Workload,
        profile: Profile,
        options: Options,
        slo: Slo,
        target: float,
        policy: str,
        draw: Callable[[int], Arrivals],
        seeds: int,
        say: Callable[[str], None],
    ) -> None:
        self.workload, self.profile, self.options, self.slo = workload, profile, options, slo
        self.target, self.policy, self.draw, self.seeds, self.say = target, policy, draw, seeds, say
        self.known: dict[bytes, Trial] = {}
        self._arrivals: dict[int, Arrivals] = {}

    def holds(self, trial: Trial) -> bool:
        """Whether the target is met, by as many requests as were needed to tell; :meth:`proven` asks for confidence."""
        return trial.attainment.value >= self.target

    def trial(self, factor: Array) -> Trial:
        """The cheapest plan at those factors, simulated; one that was simulated before is not again."""
        plan = solve(self.workload, self.at(factor), self.options)
        return self.known_or_tried(as_profiled(plan, factor), factor)

    def at(self, factor: Array) -> Profile:
        """The profile with its rates multiplied."""
        rates = {name: getattr(self.profile, name) * factor for name in ("max_request_rate", "low", "high")}
        return replace(self.profile, **rates)

    def known_or_tried(self, plan: Plan, factor: Array) -> Trial:
        """A plan in simulation; one that was simulated before is not again."""
        key = plan.instances.tobytes() + np.round(plan.share, 4).tobytes()
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
        return self._decided(plan, factor, self.seeds * MOST_TIMES, self.seeds) if self.holds(trial) else trial

    def _decided(self, plan: Plan, factor: Array, first: int, least: int) -> Trial:
        """The plan in simulation, with more sets of requests while these leave open whether it holds."""
        trial = self._simulated(plan, factor, first, 1, ())
        while trial.attainment.low < self.target <= trial.attainment.high:
            count = min(max(least, 2 * len(trial.runs)), MOST_TIMES * self.seeds)
            if count == len(trial.runs):
                break
            trial = self._simulated(plan, factor, first, count, trial.runs)
        if self.holds(trial) and len(trial.runs) < least:
            trial = self._simulated(plan, factor, first, least, trial.runs)
        return trial

    def proven(self) -> Trial:
        """The cheapest plan that has held, and holds with confidence on requests by which no plan was chosen.

        Of many plans that were tried on the same requests, the best one owes part of that to those requests.

        Raises
        ------
        InfeasibleError
            When none does, and no more headroom helps.
        """
        holding = sorted((one for one in self.known.values() if self.holds(one)), key=lambda one: one.plan.cost_per_h)
        for trial in holding:
            proof = self._proof(trial)
            if proof.attainment.low >= self.target:
                return proof
        for _ in range(ROUNDS_UP):
            factor = self._lower(proof)
            if factor is None:
                break
            proof = self._proof(self.up(self.trial(factor)))
            if proof.attainment.low >= self.target:
                return proof
        raise self.no_headroom_helps(proof)

    def _proof(self, trial: Trial) -> Trial:
        """A plan on requests of its own, many at once: stopping at the first favorable ones would choose again."""
        return self._simulated(trial.plan, trial.factor, 2 * MOST_TIMES * self.seeds, PROOF_TIMES * self.seeds, ())

    def _simulated(self, plan: Plan, factor: Array, first: int, count: int, before: tuple[Run, ...]) -> Trial:
        """A plan with ``count`` sets of requests, from number ``first`` on; some of them simulated before."""
        runs = [*before, *(self._run(plan, seed) for seed in range(first + len(before), first + count))]
        shape = self.profile.max_request_rate.shape
        tables = np.zeros((3, *shape))
        samples = []
        for run in runs:
            is_met, mask = met(run.outcome, self.slo), counted(run.outcome)
            samples.append(is_met[mask])
            is_hopeless = self.causes_of(run) == NAMES.index("too large")
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
        one beyond. Few requests miss, and many come near: that tells plans apart with fewer requests than misses do.
        """
        runs = [self._run(plan, seed).outcome for seed in range(sets)]
        over = np.concatenate([excess(one, self.slo)[counted(one)] for one in runs])
        return float((1.0 / (1.0 + np.maximum(over, 1e-9) ** -8.0)).mean())

    def _run(self, plan: Plan, seed: int) -> Run:
        if seed not in self._arrivals:
            self._arrivals[seed] = self.draw(seed)
        return simulate(plan, self._arrivals[seed], policy=self.policy, seed=seed)

    def causes_of(self, run: Run) -> Array:
        """Why each request of a run missed (N,)."""
        return causes(run.outcome, self.slo, run.engines, type_of_requests(run), run.arrivals.cached_tokens)

    def up(self, trial: Trial) -> Trial:
        """Lower factors where requests miss until the plan holds.

        Raises
        ------
        InfeasibleError
            When no headroom helps, with what requests miss and why.
        """
        tried = trial
        for _ in range(ROUNDS_UP):
            if self.holds(tried):
                return tried
            factor = self._lower(tried)
            if factor is None:
                break
            try:
                tried = self.trial(factor)
            except InfeasibleError as error:
                raise self.no_headroom_helps(tried, error.reasons) from error
        raise self.no_headroom_helps(tried)

    def _lower(self, trial: Trial) -> Array | None:
        """More headroom where requests miss; None where there is nothing left to lower."""
        factor = trial.factor.copy()
        allowed = 1.0 - self.target
        sent, missed = trial.sent.sum(axis=(1, 2)), trial.missed.sum(axis=(1, 2))
        rate = np.divide(missed, sent, out=np.zeros_like(sent), where=sent > 0)
        worst = int(np.argmax(missed))
        for r in np.flatnonzero(sent):
            if rate[r] > allowed or r == worst:
                factor[r] *= 1.0 - float(np.clip(LEAST_CUT * rate[r] / allowed, LEAST_CUT, MOST_CUT))
        self._take_away(trial, factor)
        used = factor[sent > 0]
        return None if used[used > 0].max(initial=0.0) < HOPELESS else factor

    def _take_away(self, trial: Trial, factor: Array) -> None:
        """Take prompts of a size from types on which too many of them miss even alone.

        All outputs of an input bucket go together: what a balancer sees is the prompt. Too many is a quarter of all
        requests that may miss; and some other type must be able to serve the prompts.
        """
        allowed = 0.25 * (1.0 - self.target) * max(float(trial.sent.sum()), 1.0)
        able = (self.profile.max_request_rate > 0) & (factor > 0)
        needed = (self.workload.request_rate > 0) & able.any(axis=0)
        hopeless, sent = trial.hopeless.sum(axis=2), trial.sent.sum(axis=2)
        for r, i in np.argwhere(hopeless > allowed).tolist():
            others = np.any(np.delete(able[:, i], r, axis=0), axis=0)
            if np.all(others | ~needed[i]) and hopeless[r, i] > (1.0 - self.target) * sent[r, i]:
                factor[r, i] = 0.0
                able[r, i] = False

    def down(self, best: Trial) -> Trial:
        """Cheaper plans: all factors raised together, then each type's."""
        low, high = 1.0, MOST_ROOM
        start = best.factor
        for _ in range(ROUNDS_DOWN):
            middle = (low * high) ** 0.5
            tried = self._cheaper(best, start * middle)
            if tried is None:
                high = middle
            else:
                low, best = middle, tried
        for r in np.flatnonzero(best.plan.instances):
            for room in (1.08, 1.2, 1.5):
                factor = best.factor.copy()
                factor[r] *= room
                best = self._cheaper(best, factor) or best
        return best

    def _cheaper(self, best: Trial, factor: Array) -> Trial | None:
        """The plan at those factors if it holds and costs no more; None otherwise."""
        try:
            tried = self.trial(factor)
        except InfeasibleError:
            return None
        return tried if self.holds(tried) and tried.plan.cost_per_h <= best.plan.cost_per_h + 1e-9 else None

    def no_headroom_helps(self, trial: Trial, more: Sequence[str] = ()) -> InfeasibleError:
        """What requests miss and why."""
        held = trial.attainment
        parts: dict[str, float] = {}
        for run in trial.runs:
            for name, share in shares_of(self.causes_of(run), counted(run.outcome)).items():
                parts[name] = parts.get(name, 0.0) + share / len(trial.runs)
        reasons = [
            f"{share:.2%} of the requests miss: {name} ({CAUSES[name]})"
            for name, share in sorted(parts.items(), key=lambda pair: -pair[1])
        ]
        by_bucket = trial.missed.sum(axis=0)
        for place in np.argsort(by_bucket, axis=None)[::-1][:3].tolist():
            i, o = divmod(place, self.profile.buckets.shape[1])
            if by_bucket[i, o]:
                share = by_bucket[i, o] / max(float(trial.sent.sum()), 1.0)
                reasons.append(f"{share:.2%} of all requests miss in the bucket {self.profile.buckets.label(i, o)}")
        return InfeasibleError(
            f"no headroom makes {self.target:.2%} of the requests meet {self.slo}: "
            f"the last plan ({trial.plan.cost_per_h:.2f} USD/h) holds {held.value:.2%}, {held.low:.2%} at least",
            reasons=(*reasons, *more),
            hint="loosen the limit or the target, or offer faster replica types",
        )


def as_profiled(plan: Plan, factor: Array) -> Plan:
    """A plan that was made at other rates, with the profile's own: rates and loads divided by the factors."""
    rate = np.divide(plan.max_request_rate, factor, out=np.zeros_like(factor), where=factor > 0)
    work = np.divide(
        plan.share * plan.workload.request_rate, rate, out=np.zeros_like(rate), where=(rate > 0) & (plan.share > 0)
    ).sum(axis=(1, 2))
    running = np.array([plan.replicas[one.name] for one in plan.replica_types], float)
    load = np.divide(work, running, out=np.zeros_like(work), where=running > 0)
    return replace(plan, max_request_rate=rate, load=load)


def _cells(run: Run, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Place of each request in a table over type and bucket, flattened (N,); -1 where no replica took it."""
    buckets = run.plan.workload.buckets
    i = np.minimum(np.searchsorted(buckets.input_edges, run.outcome.input_tokens), shape[1] - 1)
    o = np.minimum(np.searchsorted(buckets.output_edges, run.outcome.output_tokens), shape[2] - 1)
    t = type_of_requests(run).astype(int)
    r = np.asarray(run.types)[np.maximum(t, 0)]
    return np.where(t >= 0, (r * shape[1] + i) * shape[2] + o, -1)
