"""Simulate candidate plans: each is tried on the same requests, and proven on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.slo import Slo
from melange.units import percent
from melange.validate.attainment import met, share_met
from melange.validate.causes import CAUSE_NAMES, causes, share_by_cause
from melange.validate.certify.ease import Ease, ease_of
from melange.validate.certify.effort import MOST_WORK_S, reserved_s, times_longer, work_of
from melange.validate.certify.looks import Looks
from melange.validate.certify.miss_clusters import least_missed
from melange.validate.certify.plan_trial import MOST_USED, Trial, cells_of, key_of, samples_with, worst_of
from melange.validate.certify.requests import Replays
from melange.validate.certify.runs_ahead import RunsAhead
from melange.validate.certify.throughput import at_full_throughput, most_used
from melange.validate.certify.trend import falls, falls_later
from melange.validate.observe import type_of_requests
from melange.validate.run_lengths import MOST_REQUESTS
from melange.validate.simulate import Run
from melange.workload.arrivals import Arrivals
from melange.workload.workload import Array

# The figures below are from the twelve cases of bench/certify.py at 4 requests a second.

# A plan is first tried with a part of the shortest run, which rules out most plans that miss by far, then with all of
# it; then with at most this many runs of at least this many requests, until the result is clear. A first part of 0.1
# and 1: no difference. Other runs change which plans near the target seem to hold, either way: 5,000 change six plans,
# by 20 % less to 19 % more cost; 20,000 three, by 7 % less to 18 % more; two runs three, by 5 % less to 19 % more.
_FIRST_PART, _LEAST_RUN, _MOST_RUNS = 0.25, 10_000, 4
# A plan to be certified is simulated with this many runs of at least this many requests and this many times the
# shortest run, none of which was used to choose it. They are long, because a queue that grows slowly shows in no other.
# 120,000 requests distinguish 99.5 % from 99.45 %. With shorter runs the interval is wider, and more is rented for the
# same target. Half: one plan costs 5 % more, in 0.85 times the CPU time. A proof that leaves a plan undecided is made
# longer by as many runs, up to the most; and by more for plans that would cost less than the answer, within this CPU
# time [s] for a whole search. Without, the plan of examples/chat.yaml costs 8 % more. A plan with savings may take
# 0.6 s longer for each percent: chosen by judgment, after two that would save 31 and 15 % were left undecided.
_PROOF_RUNS, _PROOF_REQUESTS, _PROOF_TIMES, _MOST_PROOF_RUNS, _MOST_FURTHER_S = 6, 20_000, 2.5, 18, 6.0
_SAVING_S = 60.0
# A plan is given up if a run is below the target by this many times the upper half of its interval, and its clusters of
# misses say so too. At 1, one of forty plans that hold is given up; with more, more plans take long runs. By judgment.
_SURELY = 1.5
# A plan is proven, at first, if it is above the target by this part of its interval's lower half. At none, with proofs
# of up to 18 runs, 90 of 94 plans of a fresh set of bench/services hold; at a half, with six runs, 92 of 93. But then 8
# of 95 services cost 2 to 35 % more than the cheapest single type that a longer simulation certifies; at none, only one
# of these 8 does, by 0.3 %.
_STRICTNESS = 0.5
# A first part that ends before the fleet has settled gives a plan up at more than this many times the allowed misses:
# the worst of nine large fleets had 1.5 times as many misses in that time as later. More costs simulations.
_BY_FAR = 2.0
# Factor by which runs become longer if a fleet has not filled. Chosen by judgment.
_LONGER = 3.0
# A plan that is below the target by at most this part of its interval's upper half may still be proven, also after a
# longer proof: with more, proofs are spent on plans that miss. Chosen by judgment.
_NEAR = 0.5
_SHOWN_RUNS = 3  # runs that show what the closed-form plan holds, only for comparison
# No further runs are made to try or to prove a plan once its runs have this many requests, if there are two of them.
_MOST_TRIED, _MOST_PROVEN = 200_000, 600_000
# Numbers of the runs that are used for no choice, of the runs of longer proofs, and of the one that shows whether a
# proven fleet has settled. That one is this many times as long as a run of the proof: a fleet in two pools held 93 % of
# its first 20,000 requests, 90.5 % of the next, and 88.2 % from 40,000 on. With more, fleets that settle later are
# found, and proofs take longer. Its share counts, too, if it has at least this part of the proof's requests. Chosen by
# judgment.
_FRESH, _LONG, _LATER, _LATER_TIMES, _LEAST_LATER = 1_000, 2_000, 3_000, 5.0, 0.5


@dataclass(slots=True, kw_only=True, eq=False)
class Judge:
    """Tries plans of one question on the same requests.

    Parameters
    ----------
    question
        The question to plan for.
    slo
        The SLO of the requests.
    target
        Share of requests that must meet the SLO, 0-1.
    policy
        How requests are balanced.
    draw
        Makes the requests of a run from its number; for a log, from the position of the first request.
    requests
        Requests of the shortest run, which is long enough for a fleet to fill; more, once a proof has shown that it is
        not.
    say
        Called with a sentence for each plan.
    settling
        Drawn requests that arrive while a fleet settles, and do not count.
    known
        The tried plans, by fleet and routing.
    strictness
        Part of its interval's lower half by which a plan must be above the target to count as holding, 0-1.
    replays
        Stretches of a log, all of which decide together; None: requests are drawn, as many as are needed to tell.
    rarity
        Factor on the usual requests of a run, so that enough of each class are among them; 1 without classes.
    full
        Rates at full throughput (R, I, O) [1/s].
    looks
        Looks at proofs on drawn requests so far.
    work_s
        Approximate CPU time of all simulations so far [s].
    further_s
        Approximate CPU time that longer proofs may still take [s].
    checks_each
        Whether every proven plan is checked for having settled; else only the answer of the main search is.
    """

    question: Question
    slo: Slo
    target: float
    policy: str
    draw: Callable[[int, int], Arrivals]
    requests: int
    say: Callable[[str], None]
    settling: int = 0
    known: dict[bytes, Trial] = field(default_factory=dict)
    strictness: float = _STRICTNESS
    replays: Replays | None = None
    rarity: float = 1.0
    looks: Looks = field(default_factory=Looks)
    work_s: float = 0.0
    further_s: float = _MOST_FURTHER_S
    checks_each: bool = False
    _arrivals: dict[tuple[int, int], Arrivals] = field(default_factory=dict)
    _ahead: RunsAhead = field(init=False)
    _eased: dict[tuple[bytes, int, int], Ease] = field(default_factory=dict)
    _proofs: dict[tuple[bytes, int], Trial] = field(default_factory=dict)
    full: Array = field(init=False)

    def __post_init__(self) -> None:
        self._ahead = RunsAhead(self.arrivals, self.policy, 0 if self.replays is not None else _FRESH)
        self.full = at_full_throughput(self.question).profile.max_request_rate
        if self.replays is not None and self.replays.is_one_run:
            self.strictness = 1.0  # the runs that choose a plan also certify it

    def holds(self, trial: Trial) -> bool:
        """Whether the target is met, by as many requests as were needed to tell; :meth:`proof` asks for confidence.

        A plan exactly at the target would be proven in one of two cases. So a plan must be above it by a part of its
        interval, and by a larger part after failed proofs.
        """
        held = trial.attainment
        if trial.is_refuted or not trial.keeps_up:
            return False
        return held.value - self.strictness * (held.value - held.low) >= self.target

    def may_hold(self, trial: Trial) -> bool:
        """Whether enough requests met the SLO, or so nearly enough that more requests may show it."""
        return self._may_reach(trial, _NEAR) and trial.keeps_up and self.replays is None

    def _may_reach(self, trial: Trial, part: float) -> bool:
        """Whether a plan is below the target by no more than a part of its interval's upper half."""
        return trial.attainment.value + part * (trial.attainment.high - trial.attainment.value) >= self.target

    def surely_misses(self, trial: Trial) -> bool:
        """Whether a plan is given up: its run is below the target by more than chance and clusters of misses explain.

        A replayed log has no further requests to show: with a log, a plan that does not hold is given up.
        """
        if self.replays is not None:
            return not self.holds(trial)
        if trial.is_refuted:
            return trial.attainment.high < self.target or not trial.keeps_up
        return not self._may_reach(trial, _SURELY) and least_missed(trial.samples) > 1.0 - self.target - trial.off

    def is_proven(self, proof: Trial) -> bool:
        """Whether a proof has shown that a plan holds, all looks so far considered."""
        return proof.attainment.value - self._doubt(proof) >= self.target and proof.keeps_up

    def _doubt(self, proof: Trial) -> float:
        """How far above the target a proof must be."""
        return self.looks.wider(proof.plan) * (proof.attainment.value - proof.attainment.low)

    def trial(self, plan: Plan, factor: Array) -> Trial:
        """A plan in simulation; a plan is simulated only once."""
        key = key_of(plan)
        found = self.known.get(key)
        if found is None or (found.shortest < self.requests and not found.is_refuted):
            found = self.known[key] = self._tried(plan, factor)
            held = found.attainment
            met = f"{percent(held.value, 2)} met ({percent(held.low, 2)} at least)"
            self.say(f"plan {len(self.known)}: {plan.cost_per_h:.2f} USD/h, {met}")
        return replace(found, factor=factor)

    def _tried(self, plan: Plan, factor: Array) -> Trial:
        """The plan in simulation, with more runs while it is open whether it holds."""
        if self.replays is not None:
            return self._replayed(plan, factor, self.replays.choosing)
        firsts = [(int(_FIRST_PART * self.requests), 0), (self.requests, 0)]
        self._ahead.prepare(plan, firsts)
        for one in firsts:
            trial = self._with_run(None, plan, factor, *one)
            is_by_far = 1.0 - trial.attainment.value > _BY_FAR * (1.0 - self.target - trial.off)
            if (one[0] > self.settling or is_by_far) and self.surely_misses(trial):
                return trial
        runs = int(self.run_length == self.requests)  # the first run counts if it is as long as the others
        self._ahead.prepare(plan, [(self.run_length, number) for number in range(1, 1 + _MOST_RUNS - runs)])
        for number in range(1, 1 + _MOST_RUNS - runs):
            trial = self._with_run(trial if number + runs > 1 else None, plan, factor, self.run_length, number)
            is_told = trial.attainment.low >= self.target or self.surely_misses(trial)
            if is_told or (number + runs) * self.run_length >= _MOST_TRIED:
                break
        if self.surely_misses(trial):
            return trial
        return replace(trial, used=most_used(plan, self.full, self.arrivals, self.policy))

    def _replayed(self, plan: Plan, factor: Array, stretches: Sequence[tuple[int, int]]) -> Trial:
        """The plan on all requests of some stretches of a log."""
        trial = None
        self._ahead.prepare(plan, [(requests, start) for start, requests in stretches])
        for start, requests in stretches:
            trial = self._with_run(trial, plan, factor, requests, start)
        assert trial is not None
        return trial

    @property
    def run_length(self) -> int:
        """Requests of a run that compares plans."""
        return max(int(_LEAST_RUN * self.rarity), self.requests)

    @property
    def proof_length(self) -> int:
        """Requests of a run that proves a plan."""
        return max(int(_PROOF_REQUESTS * self.rarity), min(int(_PROOF_TIMES * self.requests), MOST_REQUESTS))

    def shown(self, plan: Plan) -> float:
        """Share of the requests that meet the SLO under any plan, in a few of the runs of a proof."""
        if self.replays is None:
            count = int(np.clip(_MOST_TRIED // self.proof_length, 1, _SHOWN_RUNS))
            sets = [(self.proof_length, _FRESH + number) for number in range(count)]
        else:
            sets = [(length, start) for start, length in self.replays.proving]
        self._ahead.prepare(plan, sets)
        runs = [self._run(plan, *one) for one in sets]
        return float(np.mean([share_met(run.outcome, self.slo, run.counted) for run in runs]))

    def proof(self, trial: Trial) -> Trial:
        """A plan on requests of its own, or on a log; stops early if the plan surely misses."""
        key = (key_of(trial.plan), self.requests)
        if key in self._proofs:  # the same requests say nothing new
            return replace(self._proofs[key], factor=trial.factor)
        if self.replays is None:
            self.looks.add(trial.plan)
            proof = self._proof(trial)
            while self._is_too_short(proof):
                self.lengthen()
                proof = self._proof(trial)
        else:
            proof = self._replayed(trial.plan, trial.factor, self.replays.proving)
        self._proofs[key[0], self.requests] = proof
        return self._kept(proof)

    def lengthen(self) -> None:
        """Make all runs from now on longer: those so far ended before a fleet had settled."""
        self.requests = int(_LONGER * self.proof_length / _PROOF_TIMES)

    def _is_too_short(self, proof: Trial) -> bool:
        """Whether a plan that seems to hold may not hold, because its fleet had not filled yet."""
        if proof.attainment.high < self.target or self.proof_length >= MOST_REQUESTS:
            return False
        if falls(proof.samples, self.target + proof.off):
            return True
        return self.checks_each and self.is_proven(proof) and not self.has_settled(proof)

    def has_settled(self, proof: Trial) -> bool:
        """Whether a longer run than those of a proof nearly meets the target, and the SLO no less often at its end."""
        length = self._length_for(proof)
        longer = min(int(_LATER_TIMES * length), MOST_REQUESTS)
        if self.replays is not None or longer < 2 * length:
            return True
        later = self._with_run(None, proof.plan, proof.factor, longer, _LATER)
        halves = [run[len(run) // 2 :] for run in later.samples]
        is_near = later.requests < _LEAST_LATER * proof.requests or self._may_reach(later, _NEAR)
        return is_near and not falls_later(proof.samples, halves, self.target + proof.off)

    def _length_for(self, trial: Trial) -> int:
        """Requests of a run that proves a plan: a fleet that is nearly full takes long to settle."""
        rests = _PROOF_TIMES * self.requests / (1.0 - min(float(trial.used.max(initial=0.0)), MOST_USED))
        return max(self.proof_length, min(int(rests), _MOST_PROVEN // _PROOF_RUNS))

    def _proof(self, trial: Trial) -> Trial:
        proof, length, runs = None, self._length_for(trial), 0
        while True:
            if runs % _PROOF_RUNS == 0:
                self._ahead.prepare(trial.plan, [(length, _FRESH + runs + more) for more in range(_PROOF_RUNS)])
            proof = self._with_run(proof, trial.plan, trial.factor, length, _FRESH + runs)
            runs += 1
            is_enough = runs == _MOST_PROOF_RUNS or runs * length >= _MOST_PROVEN
            if runs > 1 and (is_enough or proof.attainment.high < self.target):
                break
            if runs % _PROOF_RUNS == 0:
                if self.is_proven(proof) or proof.attainment.value < self.target:
                    break
                self.looks.add(trial.plan)  # a second look may succeed by luck
        return replace(proof, used=trial.used)

    def longer_proof(self, proof: Trial, saves: float = 0.0) -> Trial:
        """Repeat a proof that left its plan undecided, with longer runs on other requests, as many as seem necessary.

        A proof on a log is final; so is any proof once the time for longer proofs is spent.

        Parameters
        ----------
        proof
            The proof of a plan that would cost less than the answer so far.
        saves
            Part of the answer's cost that the plan would save, 0-1: with more it may take longer. 0: no answer yet.
        """
        number, extra_s, reserve_s, part = _LONG, _SAVING_S * saves, reserved_s(self.further_s, saves), 1.0
        while self.replays is None and proof.keeps_up and self._may_reach(proof, part):
            left_s = min(self.further_s + extra_s - reserve_s, MOST_WORK_S - self.work_s)
            times = times_longer(proof.attainment.value - self.target, self._doubt(proof), left_s / proof.work_s)
            if self.is_proven(proof) or times * proof.work_s > left_s:
                break
            self.looks.add(proof.plan)
            longer, length = None, int(min(times * proof.requests / _PROOF_RUNS, MOST_REQUESTS))
            self._ahead.prepare(proof.plan, [(length, number + place) for place in range(_PROOF_RUNS)])
            for place in range(_PROOF_RUNS):
                longer = self._with_run(longer, proof.plan, proof.factor, length, number + place)
            assert longer is not None
            self.further_s -= max(0.0, longer.work_s - extra_s)
            extra_s = max(0.0, extra_s - longer.work_s)
            proof, number, part = replace(longer, used=proof.used), number + _PROOF_RUNS, _NEAR
        return self._kept(proof)

    def _kept(self, proof: Trial) -> Trial:
        """Keep a proof: if it failed, the plan does not hold from then on."""
        if not self.is_proven(proof):
            self.known[key_of(proof.plan)] = replace(proof, is_refuted=True)
        return proof

    def _with_run(self, before: Trial | None, plan: Plan, factor: Array, requests: int, number: int) -> Trial:
        """A plan after one more run."""
        began = self.work_s
        run = self._run(plan, requests, number)
        shape = self.question.profile.max_request_rate.shape
        is_met, mask = met(run.outcome, self.slo), np.zeros(len(run.arrivals), bool)
        mask[run.counted] = True
        found = causes(run.outcome, self.slo, run.engines, type_of_requests(run), run.arrivals.cached_tokens)
        hopeless = mask & (found == CAUSE_NAMES.index("too large"))
        cells = cells_of(run, shape)
        tables = np.zeros((3, *shape)) if before is None else np.stack([before.sent, before.missed, before.hopeless])
        for table, chosen in zip(tables, (mask, mask & ~is_met, hopeless), strict=True):
            np.add.at(table.reshape(-1), cells[chosen & (cells >= 0)], 1.0)
        by_class = samples_with(before, run, is_met, self.slo)
        worst, off, held = worst_of(by_class, self.slo)
        return Trial(
            plan=plan,
            factor=factor,
            attainment=held,
            sent=tables[0],
            missed=tables[1],
            hopeless=tables[2],
            by_class=by_class,
            worst=worst,
            off=off,
            causes=(*(before.causes if before else ()), share_by_cause(found[mask])),
            used=np.zeros(shape[0]),
            shortest=self.requests,
            work_s=self.work_s - began + (before.work_s if before else 0.0),
        )

    def ease(self, plan: Plan, sets: int) -> Ease:
        """How easily the requests of some sets meet the SLO; simulated only once."""
        key = (key_of(plan), sets, self.requests)
        if key not in self._eased:
            self._ahead.prepare(plan, self._sets(sets))
            runs = [self._run(plan, *one) for one in self._sets(sets)]
            self._eased[key] = ease_of(runs, self.slo)
        return self._eased[key]

    def _sets(self, sets: int) -> list[tuple[int, int]]:
        """Length and number of some short runs; for a log, of all runs that choose plans."""
        if self.replays is None:
            return [(self.requests, number) for number in range(1, 1 + sets)]
        return [(requests, start) for start, requests in self.replays.choosing]

    def arrivals(self, requests: int, number: int) -> Arrivals:
        """The requests of a simulation; a number always has the same requests."""
        if number >= _FRESH + _MOST_PROOF_RUNS:  # keeping them would fill the memory
            return self.draw(requests, number)
        if (requests, number) not in self._arrivals:
            self._arrivals[requests, number] = self.draw(requests, number)
        return self._arrivals[requests, number]

    def _run(self, plan: Plan, requests: int, seed: int) -> Run:
        """A simulation of a plan; with spare replicas, of what is left without them, in the worst case."""
        runs = self._ahead.runs(plan, requests, seed)
        self.work_s += sum(map(work_of, runs))
        return min(runs, key=lambda run: share_met(run.outcome, self.slo, run.counted))
