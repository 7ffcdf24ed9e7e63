"""One plan in simulation: the result of a judge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melange.plan.plan import Plan
from melange.slo import Slo
from melange.validate.attainment import Interval, attainment, by_class
from melange.validate.observe import type_of_requests
from melange.validate.simulate import Run
from melange.workload.workload import Array, Mask

# Largest part of its throughput that a type may need; the part is known to 1 %: a need of 98 % was steady over 600,000
# requests, 99 % was not. With less, fleets that keep up are rejected; with more, some are certified that fall behind.
MOST_USED = 0.97
# Decimals of the shares that identify a plan: four are one request in ten thousand. With more, plans are simulated
# again that send hardly a request elsewhere. Chosen by judgment.
_SHARE_DECIMALS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """One plan in simulation.

    Parameters
    ----------
    plan
        The plan, with loads and rates as in the profile, whatever the factors.
    factor
        Factors on the rates with which the plan was found (R, I, O).
    attainment
        Share of requests that met the SLO, with its interval. With classes, it is for the class that is farthest below
        its target, shifted by the difference to the first class's target.
    sent, missed, hopeless
        Requests by type and bucket (R, I, O): all, those that missed, and those that would have missed even alone.
    by_class
        Whether each counted request met the SLO, by class and run (K); without classes, all in one.
    worst
        The class that is farthest below its target.
    off
        Target of that class minus the target of the first class.
    causes
        Share of the requests that missed by cause, for each run.
    used
        Part of the throughput of each type's replicas that the traffic needs (R,); 0 if not asked for.
    shortest
        Requests of the judge's shortest run at that time.
    is_refuted
        Whether a proof has failed.
    work_s
        Approximate CPU time of its runs [s].
    """

    plan: Plan
    factor: Array
    attainment: Interval
    sent: Array
    missed: Array
    hopeless: Array
    by_class: tuple[tuple[Mask, ...], ...]
    worst: int
    off: float
    causes: tuple[Mapping[str, float], ...]
    used: Array
    shortest: int
    is_refuted: bool = False
    work_s: float = 0.0

    @property
    def samples(self) -> tuple[Mask, ...]:
        """Whether each counted request of the worst class met the SLO, for each run."""
        return self.by_class[self.worst]

    @property
    def requests(self) -> int:
        """Counted requests of all runs."""
        return sum(len(run) for runs in self.by_class for run in runs)

    @property
    def excess(self) -> Array:
        """Share of its requests by which each type is too slow (R,); 0 if it keeps up."""
        return np.where(self.used > MOST_USED, 1.0 - MOST_USED / np.maximum(self.used, MOST_USED), 0.0)

    @property
    def keeps_up(self) -> bool:
        """Whether every type completes requests as fast as they arrive, without limits on times."""
        return bool((self.used <= MOST_USED).all())


def nearest_shares(trials: Iterable[Trial]) -> list[Trial]:
    """Of each fleet the trial with the largest attainment: fleets are tried with several shares."""
    near = {one.plan.instances.tobytes(): one for one in sorted(trials, key=lambda each: each.attainment.value)}
    return list(near.values())


def key_of(plan: Plan) -> bytes:
    """The key of a plan; plans with smaller differences send hardly a request elsewhere, and would do the same."""
    return plan.instances.tobytes() + np.round(plan.share, _SHARE_DECIMALS).tobytes()


def cells_of(run: Run, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Position of each request in a table over type and bucket, flattened (N,); -1 if no replica took it."""
    outcome = run.outcome
    cell = run.plan.workload.buckets.cells(outcome.input_tokens, outcome.output_tokens, run.arrivals.class_of)
    t = type_of_requests(run).astype(int)
    r = np.asarray(run.types)[np.maximum(t, 0)]
    return np.where(t >= 0, r * shape[1] * shape[2] + cell, -1)


def samples_with(before: Trial | None, run: Run, is_met: Mask, slo: Slo) -> tuple[tuple[Mask, ...], ...]:
    """Whether each counted request met the SLO, by class and run, with one more run added (N,)."""
    class_of = None if run.outcome.class_of is None else run.outcome.class_of[run.counted]
    parts = by_class(is_met[run.counted], class_of, slo)
    earlier: tuple[tuple[Mask, ...], ...] = before.by_class if before else ((),) * len(parts)
    return tuple((*known, part) for known, part in zip(earlier, parts, strict=True))


def worst_of(samples: tuple[tuple[Mask, ...], ...], slo: Slo) -> tuple[int, float, Interval]:
    """The class farthest below its target, that target minus the first class's, and its attainment less that."""
    found = {k: attainment(one) for k, one in enumerate(samples) if sum(map(len, one))}
    worst = min(found, key=lambda k: found[k].low - slo.offsets[k])
    held, off = found[worst], slo.offsets[worst]
    return worst, off, Interval(value=held.value - off, low=held.low - off, high=held.high - off)
