"""A cost below which no fleet holds, whatever its types are and however requests are balanced.

A request meets its limits only if its tokens come fast enough. So its steps must be short on average, which limits how
many requests run beside it, and with them the rate of a replica. Requests that may miss under the target need no short
steps, but they take replica time too. A linear program finds the fewest replicas for both: some types serve a size
within the limits, others serve it late. Queueing and randomness cost more and are left out, so a fleet at the bound may
still miss. Loads of sizes do not add up exactly, so replicas are assumed to carry more than the sum of loads says.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.errors import InfeasibleError
from melange.plan.milp.highs import LinearRows, minimise
from melange.plan.problem import allowed_types
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.replica.engine import Engine
from melange.slo import Slo
from melange.validate.certify.thinning import with_types, worth_types
from melange.validate.certify.throughput import ANY_S, at_full_throughput, rates_under
from melange.workload.workload import Array, Workload

# Assumed capacity of replicas over the capacity that summed loads give. Of 170 drawn fleets of one type that were
# smaller than the bound at 1, five held in simulation, the smallest at 0.86 of it (tests/validate/test_bound.py draws
# them); at 1.2 none of 336 others did. With less, the bound rejects fleets that hold; with more, it is weaker.
_CARRIED = 1.2
# Relative gap of the program in whole instances; its bound is valid at any gap. Less takes longer. Chosen by judgment.
_GAP = 0.01
# The bound is lowered by this much, the possible error of a linear program.
_ROUNDING = 1e-6


def least_cost(question: Question, slo: Slo, target: float) -> float | None:
    """A lower bound on the cost of fleets that hold [USD/h], as far as loads add up; None if not known.

    Parameters
    ----------
    question
        The question to plan for.
    slo
        The SLO of the requests.
    target
        Share of the requests that must meet it, 0-1.
    """
    loosest = at_full_throughput(question)
    profile = loosest.profile
    rates = {name: _CARRIED * getattr(profile, name) for name in ("low", "max_request_rate", "high")}
    loosest = replace(loosest, profile=replace(profile, **rates))
    found = [_in_instances(loosest), _in_time(question, loosest.profile.max_request_rate, slo, target)]
    return max((one for one in found if one is not None), default=None)


def _in_instances(loosest: Question) -> float | None:
    """The least cost of whole instances that keep up with the traffic, without limits on times."""
    asked = loosest.with_options(headroom=0.0, gap=_GAP)
    try:
        return solve(with_types(asked, worth_types(asked))).bound_per_h
    except InfeasibleError:
        return None


def _in_time(question: Question, full: Array, slo: Slo, target: float) -> float | None:
    """The least cost of fractions of instances that serve a share of the requests in time, and the others late."""
    workload, profile = question.workload, question.profile
    # The first token may be late: it gives no bound here.
    fast = np.minimum(_CARRIED * rates_under(question, {"tpot": _token_limit(slo, workload)[None]}), full)
    price_of: dict[Engine, float] = {}
    row_of: dict[Engine, int] = {}
    for r in np.flatnonzero(allowed_types(question)).tolist():
        engine, one = profile.engines[r], profile.replica_types[r]
        if engine is not None:
            price = one.cost_per_h / one.replicas_per_instance
            price_of[engine] = min(price, price_of.get(engine, np.inf))
            row_of.setdefault(engine, r)
    rows = list(row_of.values())
    is_served = (workload.request_rate > 0) & (full[rows] > 0).any(axis=0)
    if not is_served.any():
        return None
    rate = workload.request_rate[is_served]
    missing = max(0.0, _may_miss(slo, workload, target) - (workload.total_rate - rate.sum()))
    program = _program(
        np.array(list(price_of.values())), fast[rows][:, is_served], full[rows][:, is_served], rate, missing
    )
    solved = minimise(program)
    return float(solved.bound) * (1.0 - _ROUNDING) if solved.status == "optimal" else None


def _program(price: Array, fast: Array, full: Array, rate: Array, missing: float) -> LinearRows:
    """Replicas of each type (R), and parts of each size's requests in time and late: fast, full (R, K), rate (K,)."""
    types, sizes = fast.shape
    entries: list[tuple[int, float]] = [(r, -1.0) for r in range(types)]  # row and value, column by column
    start, cost = list(range(types + 1)), price.tolist()
    for table, is_late in ((fast, False), (full, True)):
        for r, k in np.argwhere(table > 0).tolist():
            entries += [(r, rate[k] / table[r, k]), (types + k, 1.0)]
            if is_late:
                entries.append((types + sizes, rate[k]))
            start.append(len(entries))
            cost.append(0.0)
    count = len(cost)
    return LinearRows(
        cost=np.array(cost),
        lower=np.zeros(count),
        upper=np.full(count, np.inf),
        row_lower=np.concatenate([np.full(types, -np.inf), np.ones(sizes), [-np.inf]]),
        row_upper=np.concatenate([np.zeros(types), np.ones(sizes), [missing]]),
        start=np.array(start, np.int32),
        row=np.array([place for place, _ in entries], np.int32),
        value=np.array([value for _, value in entries]),
    )


def _may_miss(slo: Slo, workload: Workload, target: float) -> float:
    """Requests that may miss under the targets of all classes [1/s]."""
    rates = [float(one.sum()) for one in np.split(workload.request_rate, len(slo.offsets))]
    return sum((1.0 - target - off) * rate for rate, off in zip(rates, slo.offsets, strict=True))


def _token_limit(slo: Slo, workload: Workload) -> Array:
    """The longest time between two tokens within every limit, for the shortest request of each size (I, O) [s]."""
    edges = np.array([0, *workload.buckets.output_edges[:-1]], float)
    outputs = np.broadcast_to(edges + 1.0, workload.request_rate.shape)
    with np.errstate(divide="ignore"):
        times = {
            "tpot": np.ones(outputs.shape),
            "ntpot": outputs / edges,
            "latency": 1.0 / np.broadcast_to(edges, outputs.shape),
        }
    found = np.full(outputs.shape, ANY_S)
    for metric, limit in slo.limits_of(workload.buckets.class_of_rows).items():
        if metric in times:
            found = np.minimum(found, limit * times[metric])
    return found
