"""Why no plan holds: a target beyond what any fleet can reach, or which requests miss, and what keeps them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melange.errors import InfeasibleError
from melange.validate.causes import CAUSES
from melange.validate.certify.attainable import Attainable, attainable
from melange.validate.certify.judge import Judge, Trial

# Buckets that are named, those with most misses first: the list of an error, which ends with what to do.
_NAMED = 3
# Requests whose times alone are looked at: a hundred lie beyond a target of 99.5 %.
_REQUESTS = 20_000


def refuse_beyond_reach(judge: Judge) -> None:
    """Refuse a target that no fleet of the allowed types reaches, before anything is searched.

    Raises
    ------
    InfeasibleError
        With the share that is within reach, and what keeps the other requests.
    """
    bound = _bound(judge)
    if bound.high < judge.target:
        raise InfeasibleError(
            f"no fleet of the allowed replica types makes {judge.target:.2%} of the requests meet {judge.slo}: at most "
            f"{bound.share:.2%} meet it, each with a replica to itself",
            reasons=bound.why,
            hint=f"lower the target below {bound.share:.2%}, loosen the limit, or offer faster replica types",
        )


def _bound(judge: Judge) -> Attainable:
    return attainable(judge.question, judge.slo, [judge.arrivals(_REQUESTS, 0)])


def no_headroom_helps(judge: Judge, trial: Trial, more: Sequence[str] = ()) -> InfeasibleError:
    """The error for a search whose last plan is ``trial``: what requests miss and why."""
    most = f"no fleet serves more than {_bound(judge).share:.2%}: the others miss even with a replica to themselves"
    reasons = [*_by_cause(trial), *_by_bucket(judge, trial), most, *more]
    held = trial.attainment
    return InfeasibleError(
        f"no headroom makes {judge.target:.2%} of the requests meet {judge.slo}: "
        f"the last plan ({trial.plan.cost_per_h:.2f} USD/h) holds {held.value:.2%}, {held.low:.2%} at least",
        reasons=reasons,
        hint="loosen the limit or the target, or offer faster replica types",
    )


def _by_cause(trial: Trial) -> list[str]:
    parts: dict[str, float] = {}
    for found in trial.causes:
        for name, share in found.items():
            parts[name] = parts.get(name, 0.0) + share / len(trial.causes)
    return [
        f"{share:.2%} of the requests miss: {name} ({CAUSES[name]})"
        for name, share in sorted(parts.items(), key=lambda pair: -pair[1])
    ]


def _by_bucket(judge: Judge, trial: Trial) -> list[str]:
    buckets, missed = judge.question.profile.buckets, trial.missed.sum(axis=0)
    total = max(float(trial.sent.sum()), 1.0)
    places = np.argsort(missed, axis=None)[::-1][:_NAMED].tolist()
    return [
        f"{missed.flat[place] / total:.2%} of all requests miss in the bucket "
        f"{buckets.label(*divmod(place, buckets.shape[1]))}"
        for place in places
        if missed.flat[place]
    ]
