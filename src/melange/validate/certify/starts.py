"""Where the search for mixes starts: closed-form plans, the types worth a trial, and the factors on their rates."""

from __future__ import annotations

import numpy as np

from melange.errors import InfeasibleError
from melange.plan.certificate import MOST_CARRIED
from melange.plan.options import Options
from melange.plan.problem import loads
from melange.plan.question import Question
from melange.validate.certify.headroom import Search
from melange.workload.workload import Array, Mask

# The figures below are from the twelve cases of bench/certify.py at 4 requests a second, unless stated otherwise.

# Assumed capacity of types that were not tried, over the median of those that were. With more, mixes begin with types
# that carry less than assumed; with less, such types stay out of the first mixes. 1: one of twelve plans costs 7 %
# less; 1.5: one 2 % less, one 10 % more.
_BETTER = 1.2
# Factors start at no less than this part of the largest: a type that does this badly alone may do better with fewer
# sizes. Half and twice: no difference.
_LEAST_START = 0.1


def try_closed_form(search: Search) -> None:
    """Simulate closed-form plans, without headroom and with it, and cheaper plans like them if they hold.

    Some passes miss them. With the default headroom it is nearly the plan of ``melange plan --quick``.
    """
    shape = search.question.profile.max_request_rate.shape
    for headroom in (0.0, Options().headroom):
        try:
            tried = search.trial(np.full(shape, 1.0 - headroom))
        except InfeasibleError:  # the stock is enough only with the slack that simulation finds
            return
        best = search.best
        if search.judge.holds(tried) and (best is None or tried.plan.cost_per_h <= best.plan.cost_per_h):
            search.down(tried)
            return


def promising(question: Question, factor: Array, each_size: int) -> Mask:
    """The types for mixes (R,): the few that serve some size at least cost, if they carry what is expected."""
    types = question.profile.replica_types
    if question.options.require:
        return np.ones(len(types), bool)
    price = np.array([one.cost_per_h / one.replicas_per_instance for one in types])
    load = loads(question.workload, question.profile)[:, question.workload.request_rate.ravel() > 0]
    with np.errstate(invalid="ignore"):
        spent = price[:, None] * load / factor[:, 0, :1]
    mask = np.zeros(len(types), bool)
    mask[np.argsort(spent, axis=0, kind="stable")[:each_size]] = True
    return mask


def start(question: Question, carried: Array) -> Array:
    """Factors to start the search for mixes with (R, I, O): what single types carry, and a guess for the others."""
    known = carried[np.isfinite(carried)]
    guess = min(_BETTER * float(np.median(known)), MOST_CARRIED) if len(known) else 1.0
    start = np.where(np.isfinite(carried), carried, guess)
    start = np.clip(start, _LEAST_START * min(1.0, float(start.max())), MOST_CARRIED)
    return np.broadcast_to(start[:, None, None], question.profile.max_request_rate.shape).copy()
