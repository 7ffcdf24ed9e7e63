"""Whether a fleet is small enough to be simulated."""

from __future__ import annotations

import numpy as np

from melange.plan.problem import loads
from melange.plan.question import Question

# Most replicas of a fleet that is certified: the search takes a minute at this size, and longer beyond. Chosen by
# judgment.
_MOST_REPLICAS = 5_000


def too_large(question: Question) -> str:
    """Why a fleet is too large to simulate, as words after a colon; empty if it is not."""
    load = loads(question.workload, question.profile)
    price = np.array([one.cost_per_h / one.replicas_per_instance for one in question.profile.replica_types])
    cheapest = np.take_along_axis(load, np.argmin(price[:, None] * load, axis=0)[None], axis=0)
    replicas = float(cheapest[np.isfinite(cheapest)].sum())
    if replicas <= _MOST_REPLICAS:
        return ""
    return f"about {replicas:,.0f} replicas are needed, and at most {_MOST_REPLICAS:,} are simulated"
