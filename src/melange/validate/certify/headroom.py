"""The search for the headroom that an SLO needs: factors on rates, and the cheapest plan at each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from melange.errors import InfeasibleError
from melange.plan.confidence import with_rates
from melange.plan.plan import Plan
from melange.plan.problem import ROUNDING
from melange.plan.question import Question
from melange.plan.solve import solve, with_instances
from melange.validate.certify.diagnosis import no_headroom_helps
from melange.validate.certify.effort import is_late
from melange.validate.certify.judge import Judge
from melange.validate.certify.plan_trial import Trial, nearest_shares
from melange.validate.certify.thinning import TAKEN_AWAY
from melange.workload.workload import Array, Mask

# The figures below are from the twelve cases of bench/certify.py at 4 requests a second: cost of all certified plans,
# CPU time of all certificates (known to a tenth). Fleets have one to five instances there, so the next fleet is far,
# and most figures change none of them; for larger fleets the values are chosen by judgment.

# Rounds of lowering factors until a plan holds: forty of the smallest cuts leave 0.3 of the rates, and more of the same
# replicas no longer helps. Halvings of the range above it: seven of a factor of 2.5 leave 0.7 %, less than one instance
# in a hundred. Half and twice of both: no difference.
_ROUNDS_UP, _ROUNDS_DOWN = 40, 7
# Least and largest cut of a round in the rates of a type where requests miss. Small cuts cost simulations; large cuts
# skip the cheapest plan that holds, which the way down then finds again. Half: no difference; twice: the same plans in
# 0.85 times the CPU time.
_LEAST_CUT, _MOST_CUT = 0.03, 0.2
# Largest raise of rates if the simulation shows slack: more costs halvings, less leaves slack unused. 1.5 and 5: no
# difference.
_MOST_ROOM = 2.5
# Factors by which one type's rates are raised alone, after all were raised together. Without them, and with six steps
# up to 1.5: no difference.
_TYPE_ROOMS = (1.08, 1.2, 1.5)
# A search fails once its largest factor is below this part of the starting value: more of the same replicas does not
# help. With a smaller part, a failing search takes longer. Half and twice: no difference.
_HOPELESS = 0.15
# Prompts that miss even alone are taken from a type if they are this share of all requests that may miss. With less,
# types lose prompts that cause few misses; with more, headroom may be bought where none helps. 0, twice and never: no
# difference.
_SHARE_TAKEN_AWAY = 0.25
# Most plans that are proven one after another: more finds plans after many failed proofs, and takes long runs for each.
# Half: no difference.
_MOST_PROOFS = 16
# Plans that seemed to miss, by less than a run can tell, and are proven anyway. With fewer, the margin that the search
# keeps can hide a cheaper plan; more take a proof each. Chosen by judgment.
_MOST_CHANCES = 8
# Cut after a failed proof. The plan was near the edge, so it is small: less costs simulations, more costs money. Half
# and twice: no difference.
_FINE_CUT = 0.01
# The same for a fleet of one type, as a part of its instances. Three times: no difference for two services of more than
# a hundred instances.
_FINE_STEP = 0.003
# Each failed proof shows that plans were accepted too early: from then on they must be above the target by this much
# more of the interval's lower half. With less, more proofs fail; with more, cheaper plans that would be proven are
# skipped. Half and twice: no difference.
_STRICTER = 0.25
# Relative gap of the plans tried: smaller than the error of summed loads, and several times faster than a full search.
# From 0.1 to 2 %: no difference in the twelve cases; a quarter takes 1.6 times the CPU time with a hundred types.
_GAP = 0.02
# CPU time of a program per pair of type and size [s]: 0.2 s for 800 pairs.
_PAIR_S = 2.5e-4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """The plans of one question with factors on its rates (R, I, O).

    Parameters
    ----------
    question
        The question to plan for.
    judge
        The judge, which simulates its plans.
    among
        The types of mixes, and the sizes that each of them serves in a mix (R, I, O).
    begins
        The largest factor at the start of mixes, at most 1: small for bursts that are many times the mean rate.
    peaks
        Highest load of known fleets over the capacity that the factors leave, by instances and factors.
    """

    question: Question
    judge: Judge
    among: Mask
    begins: float = 1.0
    peaks: dict[bytes, float] = field(default_factory=dict)

    @property
    def best(self) -> Trial | None:
        """The cheapest known plan that holds, by runs of the required length."""
        while True:
            held = [one for one in self.judge.known.values() if self.judge.holds(one)]
            best = min(held, key=lambda one: one.plan.cost_per_h, default=None)
            if best is None or best.shortest >= self.judge.requests:
                return best
            self.judge.trial(best.plan, best.factor)

    def of_one_type(self, place: int, count: int, carried: float) -> Trial | None:
        """``count`` instances of one type, each replica with a load of ``carried``; None if a limit forbids it."""
        instances = np.zeros(len(self.question.profile.replica_types), np.int64)
        instances[place] = count
        factor = np.ones(self.question.profile.max_request_rate.shape)
        factor[place] = carried
        plan = self.of(instances, factor)
        return None if plan is None else self.judge.trial(plan, factor)

    def trial(self, factor: Array) -> Trial:
        """The cheapest plan with these factors, simulated; a plan is simulated only once."""
        return self.judge.trial(self.planned(factor), factor)

    def planned(self, factor: Array) -> Plan:
        """The cheapest plan with these factors, as an answer to the question."""
        pairs = np.count_nonzero(self.among & (factor > 0) & (self.question.workload.request_rate > 0))
        self.judge.work_s += _PAIR_S * pairs
        return as_asked(solve(self.at(factor * self.among)), self.without_hopeless(factor))

    def at(self, factor: Array) -> Question:
        """The question with its rates multiplied by the factors."""
        profile = self.question.profile
        rates = {name: getattr(profile, name) * factor for name in ("max_request_rate", "low", "high")}
        return replace(self.question, profile=replace(profile, **rates)).with_options(
            headroom=0.0, gap=max(self.question.options.gap, _GAP)
        )

    def without_hopeless(self, factor: Array) -> Question:
        """The question itself, without the sizes that a type must not serve: those with a factor of 0."""
        if factor.all():
            return self.question
        profile = self.question.profile
        able = factor > 0
        profile = replace(profile, low=np.where(able, profile.low, 0.0), high=np.where(able, profile.high, 0.0))
        rates = np.where(able, profile.max_request_rate, 0.0)
        return replace(self.question, profile=with_rates(profile, rates, TAKEN_AWAY))

    def proven(self) -> Trial:
        """The cheapest plan that has held, and holds with confidence on requests that were used to choose no plan.

        The best of many plans tried on the same requests owes part of its result to those requests. If a proof fails, a
        little headroom is added to that plan, and the cheapest plan that has held is proven next.

        Raises
        ------
        InfeasibleError
            No plan holds.
        """
        judge, proof = self.judge, None
        for _ in range(_MOST_PROOFS):
            best = self.best
            if best is None:
                break
            proof = judge.proof(best)
            if judge.is_proven(proof):
                return proof
            judge.strictness = min(1.0, judge.strictness + _STRICTER)
            self._again(best)
        if proof is None:
            raise no_headroom_helps(judge, max(judge.known.values(), key=lambda one: one.attainment.value))
        raise no_headroom_helps(judge, proof)

    def second_chance(self, best: Trial | None) -> Trial | None:
        """The cheapest plan that is proven after all, of those that seemed to miss by less than a run can tell.

        Parameters
        ----------
        best
            The cheapest plan that is proven so far, which is returned if no other is; None: none is proven.
        """
        ceiling = np.inf if best is None else best.plan.cost_per_h - ROUNDING
        cheaper = [one for one in self.judge.known.values() if one.plan.cost_per_h < ceiling]
        near = nearest_shares(filter(self.judge.may_hold, cheaper))
        refuted = [one.plan for one in self.judge.known.values() if one.is_refuted]
        for tried in sorted(near, key=lambda one: one.plan.cost_per_h)[:_MOST_CHANCES]:
            if best is not None and is_late(self.judge):
                break
            if not tried.is_refuted and any(_is_smaller(tried.plan, one) for one in refuted):
                continue
            proof = self.proof(tried, best)
            if self.judge.is_proven(proof):
                return proof
        return best

    def proof(self, trial: Trial, best: Trial | None) -> Trial:
        """Prove a plan that costs less than the best one: as long as it takes, within the effort for proofs."""
        saves = 0.0 if best is None else 1.0 - trial.plan.cost_per_h / best.plan.cost_per_h
        return self.judge.longer_proof(trial if trial.is_refuted else self.judge.proof(trial), saves)

    def _again(self, refuted: Trial) -> None:
        """Try slightly larger fleets of the same types after a failed proof, until one holds."""
        used = np.flatnonzero(refuted.plan.instances)
        factor, count = refuted.factor.copy(), int(refuted.plan.instances.sum())
        for _ in range(_ROUNDS_UP):
            best = self.best
            factor[used] *= 1.0 - _FINE_CUT
            if len(used) == 1:
                more = count + max(1, round(_FINE_STEP * count))
                factor[used] = refuted.factor[used] * refuted.plan.instances.sum() / more
                count = more
                plan = self.of(np.where(refuted.plan.instances > 0, count, 0), factor)
            else:
                plan = self._of_types(used, factor)
            if plan is None or (best is not None and plan.cost_per_h >= best.plan.cost_per_h - ROUNDING):
                return
            if plan.cost_per_h > refuted.plan.cost_per_h + ROUNDING and self.judge.holds(
                self.judge.trial(plan, factor)
            ):
                return

    def of(self, instances: npt.NDArray[np.int64], factor: Array) -> Plan | None:
        """The plan of given instances (R,), with the shares of lowest peak load at some factors; None: not possible."""
        plan = with_instances(self.at(factor), instances)
        return None if plan is None else as_asked(plan, self.without_hopeless(factor))

    def _of_types(self, used: npt.NDArray[np.intp], factor: Array) -> Plan | None:
        """The cheapest plan of some types with these factors; None if there is none."""
        only = np.zeros_like(factor)
        only[used] = factor[used]
        try:
            return as_asked(solve(self.at(only)), self.without_hopeless(factor))
        except InfeasibleError:
            return None

    def up(self, trial: Trial, pace: float = 1.0) -> Trial:
        """Lower factors where requests miss, until the plan holds or a known plan that holds costs no more.

        Parameters
        ----------
        trial
            The plan to start from.
        pace
            Factor on the usual cuts: other cuts lead to other mixes.

        Raises
        ------
        InfeasibleError
            No headroom helps; the error says what requests miss and why.
        """
        tried = trial
        for _ in range(_ROUNDS_UP):
            if self.judge.holds(tried):
                return tried
            best = self.best
            if best is not None and tried.plan.cost_per_h >= best.plan.cost_per_h - ROUNDING:
                return best
            factor = self._lower(tried, pace)
            if factor is None:
                break
            try:
                tried = self.trial(factor)
            except InfeasibleError as error:
                if best is not None:
                    return best
                raise no_headroom_helps(self.judge, tried, error.reasons) from error
        best = self.best
        if best is not None:
            return best
        raise no_headroom_helps(self.judge, tried)

    def _lower(self, trial: Trial, pace: float) -> Array | None:
        """Factors with more headroom where requests miss; None if nothing is left to lower."""
        factor = trial.factor.copy()
        allowed = 1.0 - self.judge.target
        sent, missed = trial.sent.sum(axis=(1, 2)), trial.missed.sum(axis=(1, 2))
        rate = np.divide(missed, sent, out=np.zeros_like(sent), where=sent > 0)
        worst = int(np.argmax(missed))
        excess = trial.excess
        for r in np.flatnonzero(sent):
            if rate[r] > allowed or r == worst or excess[r]:
                wanted = max(_LEAST_CUT * rate[r] / allowed, excess[r])
                factor[r] *= 1.0 - pace * float(np.clip(wanted, _LEAST_CUT, _MOST_CUT))
        self._take_away(trial, factor)
        used = factor[sent > 0]
        return None if used[used > 0].max(initial=0.0) < _HOPELESS * self.begins else factor

    def _take_away(self, trial: Trial, factor: Array) -> None:
        """Take prompts of a size away from types on which too many of them miss even alone.

        All outputs of an input bucket go together, because a balancer sees only the prompt. Too many is a quarter of
        all requests that may miss; and some other type must be able to serve the prompts.
        """
        allowed = _SHARE_TAKEN_AWAY * (1.0 - self.judge.target) * max(float(trial.sent.sum()), 1.0)
        able = (self.question.profile.max_request_rate > 0) & (factor > 0)
        needed = (self.question.workload.request_rate > 0) & able.any(axis=0)
        hopeless, sent = trial.hopeless.sum(axis=2), trial.sent.sum(axis=2)
        for r, i in np.argwhere(hopeless > allowed).tolist():
            others = np.any(np.delete(able[:, i], r, axis=0), axis=0)
            if np.all(others | ~needed[i]) and hopeless[r, i] > (1.0 - self.judge.target) * sent[r, i]:
                factor[r, i] = 0.0
                able[r, i] = False

    def down(self, best: Trial) -> Trial:
        """Find cheaper plans: raise all factors together, then those of each type."""
        low, high = 1.0, _MOST_ROOM
        start = best.factor
        for _ in range(_ROUNDS_DOWN):
            middle = (low * high) ** 0.5
            tried = self._cheaper(best, start * middle)
            if tried is None:
                high = middle
            else:
                low, best = middle, tried
        for r in np.flatnonzero(best.plan.instances):
            for room in _TYPE_ROOMS:
                factor = best.factor.copy()
                factor[r] *= room
                best = self._cheaper(best, factor) or best
        return best

    def _cheaper(self, best: Trial, factor: Array) -> Trial | None:
        """The plan with these factors if it holds and costs no more; None otherwise."""
        try:
            tried = self.trial(factor)
        except InfeasibleError:
            return None
        return tried if self.judge.holds(tried) and tried.plan.cost_per_h <= best.plan.cost_per_h + ROUNDING else None


def _is_smaller(plan: Plan, other: Plan) -> bool:
    """Whether two fleets are of one type each, on equal engines, and the first one has no more replicas."""
    ours, theirs = np.flatnonzero(plan.instances), np.flatnonzero(other.instances)
    if len(ours) != 1 or len(theirs) != 1 or plan.engines[ours[0]] != other.engines[theirs[0]]:
        return False
    return sum(plan.replicas.values()) <= sum(other.replicas.values())


def as_asked(plan: Plan, question: Question) -> Plan:
    """A plan made at other rates, as the answer to a question, with its loads at the question's rates."""
    plan = replace(plan, question=question)
    rate = plan.max_request_rate
    work = np.divide(
        plan.share * plan.workload.request_rate, rate, out=np.zeros_like(rate), where=(rate > 0) & (plan.share > 0)
    ).sum(axis=(1, 2))
    running = plan.instances * np.array([one.replicas_per_instance for one in plan.replica_types], float)
    return replace(plan, load=np.divide(work, running, out=np.zeros_like(work), where=running > 0))
