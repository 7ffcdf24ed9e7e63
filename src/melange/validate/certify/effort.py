"""How much simulation a part of the search may take.

It is counted in what simulations take, and not timed, so that the same question has the same answer on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from melange.validate.simulate import Run

# CPU time of a run [s]: by itself, by request, by request and doubling of the replicas that may take it, and
# by step of a replica. Fitted to 4,800 runs of nine services of bench/services, of 1 to 800 replicas and 3 to 310 steps
# a request, on one of two shared cores; with what it takes to draw requests and to look at them.
_RUN_S, _REQUEST_S, _CHOICE_S, _STEP_S = 2.2e-3, 6e-7, 1.6e-7, 1.5e-9


def work_of(run: Run) -> float:
    """About how much CPU time a simulation takes [s], the same on every machine."""
    steps = run.outcome.steps
    each_s = _REQUEST_S + _CHOICE_S * math.log2(1 + len(steps))
    return _RUN_S + each_s * len(run.arrivals) + _STEP_S * int(steps.sum())


class Working(Protocol):
    """What counts its simulations."""

    work_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effort:
    """What a part of the search may spend.

    Parameters
    ----------
    judge
        Who simulates.
    first
        What all simulations had taken when the part began [s].
    most_s
        What it may take [s].
    """

    judge: Working
    first: float
    most_s: float

    def is_spent(self, part: float = 1.0) -> bool:
        """Whether a part of it is spent."""
        return self.judge.work_s - self.first > part * self.most_s
