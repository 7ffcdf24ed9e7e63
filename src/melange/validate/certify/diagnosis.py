"""Why no plan meets the SLO: an infeasible target, or which requests miss and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from melange.errors import InfeasibleError
from melange.plan.question import Question
from melange.slo import Slo
from melange.units import duration, percent
from melange.validate.causes import CAUSES
from melange.validate.certify.attainable import Attainable, attainable
from melange.validate.certify.judge import Judge
from melange.validate.certify.plan_trial import Trial
from melange.workload.arrivals import Arrivals

# Number of buckets that an error names, those with most misses first; the error ends with what to do.
_NAMED = 3
# Number of requests whose times alone are examined: a hundred of these are beyond a target of 99.5 %.
REACH_REQUESTS = 20_000
# If a target is beyond reach, the planned target is below the reachable share by this part of the misses that the
# target would allow. With less, the last requests cost many replicas; with more, more is given up than necessary.
_MARGIN = 0.5
# A plan for less than this part of the SLO's target is no answer: its limits are for other types or models. Chosen by
# judgment.
_LEAST_PART = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The share of requests that any fleet can reach.

    Parameters
    ----------
    share
        Share of requests that meet the SLO on a replica of their own, 0-1.
    target
        The planned target, 0-1: the SLO's target, or a little less than the share if that target is above it.
    why
        Why the other requests miss, and what would help, one sentence each; empty if the target is within reach.
    is_lowered
        Whether the target is lower because no plan was found, rather than because no plan can exist.
    """

    share: float
    target: float
    why: tuple[str, ...] = ()
    is_lowered: bool = False


def reach_of(question: Question, slo: Slo, arrivals: Arrivals, wanted: float, *, is_log: bool = False) -> Reach:
    """The share that the requests of a question can reach, and the planned target if the SLO asks for more.

    Drawn requests stand for others, which may reach a little more; the requests of a log are all that will come.

    Raises
    ------
    InfeasibleError
        Less than half of what the SLO asks for can be reached.
    """
    bound = attainable(question, slo, [arrivals])
    if (bound.share if is_log else bound.high) >= wanted:
        return Reach(share=bound.share, target=wanted)
    target = bound.share - _MARGIN * (1.0 - wanted)
    why = (*bound.why, _lifted(slo, bound, wanted))
    if target < _LEAST_PART * wanted:
        raise InfeasibleError(
            f"infeasible: no fleet of the allowed replica types meets the SLO for {wanted:.2%} of the requests "
            f"({slo}): at most {percent(bound.share, 2)} meet it, each alone on an idle replica",
            reasons=why,
            hint="loosen the limit, or offer faster replica types",
        )
    return Reach(share=bound.share, target=target, why=why)


def reach_of_all(
    question: Question, slo: Slo, arrivals: Mapping[int, Arrivals], wanted: float, *, is_log: bool = False
) -> Reach:
    """:func:`reach_of` of the class whose target is lowered most, relative to the first class's target.

    ``arrivals`` are the requests of each class by its position; without classes, all requests under 0.
    """
    if not slo.classes:
        return reach_of(question, slo, arrivals[0], wanted, is_log=is_log)
    found = []
    for k, own in arrivals.items():
        one, off = slo.classes[k], slo.offsets[k]
        try:
            reach = reach_of(question, one.slo, own, wanted + off, is_log=is_log)
        except InfeasibleError as error:
            raise InfeasibleError(f"{one.name}: {error}", reasons=error.reasons, hint=error.hint) from error
        why = tuple(f"{one.name}: {sentence}" for sentence in reach.why)
        found.append(Reach(share=reach.share - off, target=reach.target - off, why=why))
    return min(found, key=lambda reach: reach.target)


def lowered(reach: Reach, wanted: float, judge: Judge, error: InfeasibleError) -> Reach:
    """The target after no plan was found that holds: a little less than the best share seen.

    Raises
    ------
    InfeasibleError
        ``error``, if no share was seen, or the target was lowered before.
    """
    most = max((one.attainment.low for one in judge.known.values()), default=0.0)
    target = min(most, reach.target) - _MARGIN * (1.0 - wanted)
    if target <= 0 or reach.is_lowered:
        raise error
    why = (f"no plan was found that reaches more than {most:.2%}, of {len(judge.known)} tried", *error.reasons)
    return Reach(share=reach.share, target=target, why=(*reach.why, *why), is_lowered=True)


def _lifted(slo: Slo, bound: Attainable, wanted: float) -> str:
    """Values of the limits that some requests exceed with which the target would be within reach."""
    times = bound.lifted_by(wanted)
    if not math.isfinite(times):
        return f"no looser limit makes {wanted:.2%} feasible: some requests fit on no allowed type"
    lifted = {metric: slo.limits[metric] for metric in bound.exceeded}
    # Rounded up: a limit in a message must be sufficient.
    limits = " and ".join(f"{key.upper()} <= {duration(_up(limit * times))}" for key, limit in lifted.items())
    return f"{wanted:.2%} becomes feasible with {limits}, or with faster replica types"


def _up(value: float) -> float:
    """The next number of three digits, as :func:`~melange.units.duration` prints it."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / digit) * digit


def no_headroom_helps(judge: Judge, trial: Trial, more: Sequence[str] = ()) -> InfeasibleError:
    """The error for a search that ends with ``trial``: what requests miss and why."""
    reasons = [*_by_cause(trial), *_by_bucket(judge, trial), *more]
    held = trial.attainment
    return InfeasibleError(
        f"no amount of headroom makes {judge.target:.2%} of the requests meet {judge.slo}: "
        f"the last plan ({trial.plan.cost_per_h:.2f} USD/h) reaches {percent(held.value, 2)}, "
        f"{percent(held.low, 2)} at least",
        reasons=reasons,
        hint="loosen the limit or the target, or offer faster replica types",
    )


def _by_cause(trial: Trial) -> list[str]:
    parts: dict[str, float] = {}
    for found in trial.causes:
        for name, share in found.items():
            parts[name] = parts.get(name, 0.0) + share / len(trial.causes)
    return [
        f"{percent(share, 2)} of the requests miss: {name} ({CAUSES[name]})"
        for name, share in sorted(parts.items(), key=lambda pair: -pair[1])
    ]


def _by_bucket(judge: Judge, trial: Trial) -> list[str]:
    buckets, missed = judge.question.profile.buckets, trial.missed.sum(axis=0)
    total = max(float(trial.sent.sum()), 1.0)
    places = np.argsort(missed, axis=None)[::-1][:_NAMED].tolist()
    return [
        f"{missed.flat[place] / total:.2%} of all requests miss in bucket "
        f"{buckets.label(*divmod(place, buckets.shape[1]))}"
        for place in places
        if missed.flat[place]
    ]
