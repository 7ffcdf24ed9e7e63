"""How much simulation a part of the search may take.

Effort is computed from the size of simulations, not timed, so that a question has the same answer on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from melange.validate.simulate import Run

# CPU time of a run [s]: per run, per request, per request and doubling of the replicas that may take it, and per step
# of a replica. Fitted to 4,800 runs of nine services of bench/services, of 1 to 800 replicas and 3 to 310 steps a
# request, on one of two shared cores; it includes drawing the requests and evaluating them.
_RUN_S, _REQUEST_S, _CHOICE_S, _STEP_S = 2.2e-3, 6e-7, 1.6e-7, 1.5e-9

# Effort after which nothing more is tried [s]. With more, fleets of hundreds of instances take minutes; at 26, three of
# nine services that reach it cost 3 to 15 % more.
MOST_WORK_S = 34.0

# Part of the effort for longer proofs that a plan may take however little it saves, and the saving with which it may
# take all of it (part of the cost): a plan that saved 0.1 % took all, and one that saved 2 % was left undecided. Chosen
# by judgment.
_LEAST_PART, _ALL_SAVING = 0.25, 0.02
# Requests of a longer proof, as multiples of the proof's: the least; then of those that would just prove the share
# seen; then if the share seen is below the target or too close to it. Chosen by judgment.
_LEAST_MORE, _ROOM, _MORE = 1.5, 1.3, 3.0


def work_of(run: Run) -> float:
    """Approximate CPU time of a simulation [s], the same on every machine."""
    steps = run.outcome.steps
    each_s = _REQUEST_S + _CHOICE_S * math.log2(1 + len(steps))
    return _RUN_S + each_s * len(run.arrivals) + _STEP_S * int(steps.sum())


class Working(Protocol):
    """An object that counts the work of its simulations."""

    work_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effort:
    """The simulation budget of a part of the search.

    Parameters
    ----------
    judge
        The judge, which simulates plans.
    first
        Work of all simulations before this part [s].
    most_s
        Largest work of this part [s].
    """

    judge: Working
    first: float
    most_s: float

    def is_spent(self, part: float = 1.0) -> bool:
        """Whether this fraction of the budget is spent."""
        return self.judge.work_s - self.first > part * self.most_s


def is_late(judge: Working, part: float = 1.0) -> bool:
    """Whether this part of the effort of a whole search is spent."""
    return judge.work_s > part * MOST_WORK_S


def reserved_s(left_s: float, saves: float) -> float:
    """Effort for longer proofs that a plan leaves to plans that may save more [s].

    Parameters
    ----------
    left_s
        Effort that is left for longer proofs [s].
    saves
        Part of the answer's cost that the plan would save, 0-1; 0: there is no answer yet, so nothing is reserved.
    """
    return left_s * max(0.0, 1.0 - _LEAST_PART - saves / _ALL_SAVING) if saves > 0.0 else 0.0


def times_longer(above: float, doubt: float, affordable: float) -> float:
    """Requests of a longer proof, as a multiple of those of a proof that left its plan undecided.

    Parameters
    ----------
    above
        How far the proof's share is above the target; negative below it.
    doubt
        How far above the target a share of as many requests must be.
    affordable
        The most that the effort left allows. If the share asks for more, it may be low by chance: fewer are tried.
    """
    times = max(_LEAST_MORE, _ROOM * (doubt / above) ** 2) if above > 0.0 else _MORE
    return times if times <= affordable else min(times, _MORE)
