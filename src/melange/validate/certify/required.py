"""Types that a plan has to contain: the best fleet of one type, with an instance of each of them.

The search for mixes finds types that carry their share at the least cost. A required type that carries little is cheap
only as a single instance beside a fleet that needs none of it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.plan.problem import build
from melange.plan.servable import scope_of
from melange.validate.certify.fewer_instances import with_fewer_instances
from melange.validate.certify.headroom import Search
from melange.validate.certify.single_types import cheapest_single_type
from melange.workload.workload import Array


def try_required(search: Search, factor: Array) -> None:
    """Simulate the cheapest fleet of one type as if none were required, and one instance of each required type.

    Parameters
    ----------
    search
        The plans tried so far, and the judge.
    factor
        Factors on rates of the required types (R, I, O).
    """
    question, judge = search.question, search.judge
    if not question.options.require:
        return
    anything = question.with_options(require=())
    free = Search(question=anything, judge=replace(judge, question=anything, known={}), among=search.among)
    cheapest_single_type(free)
    judge.work_s = free.judge.work_s
    alone = free.best
    if alone is None:
        return
    scope = scope_of(question)
    problem = build(question, scope.allowed, scope.served)
    instances = alone.plan.instances.copy()
    for one in problem.requirements:
        places = problem.types[one.member]
        if len(places) and not instances[places].any():
            instances[places[int(np.argmin(problem.cost[one.member]))]] = 1
    own = np.where((alone.plan.instances > 0)[:, None, None], alone.factor, factor)
    plan = search.of(instances, own)
    if plan is not None:
        trial = judge.trial(plan, own)
        if judge.holds(trial):
            with_fewer_instances(search, trial)
