"""Break-even prices: the price at which an unused type would enter a plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.errors import MelangeError
from melange.plan.cheapest import cheapest
from melange.plan.exact.dominated import needed_types
from melange.plan.options import Options
from melange.plan.problem import ROUNDING, Positions, Problem, Requirement
from melange.plan.search_clock import now_s
from melange.workload.workload import Array

# With more types in the running than this, break-even prices are estimated from the relaxation, in which fractions of
# instances can be rented. So they are with more than twice as many unused types, since each needs its own search.
# On 24 random instances of 60 buckets (bench/instances.py) exact prices took 0.06 s with 4 types, 0.8 with 8 and 1.8
# (6.5 at most) with 12; estimated ones were 4 % too high in the median, and from 6 % too low to 30 % too high in four
# of five cases.
_EXACT_TYPES = 8
# Newton's method mostly needs two steps, and needed nine at most in 84 such searches. Past this many steps something
# else is wrong, and the last price is good enough.
_MOST_STEPS = 20
# Share of the plan's cost below which a price counts as zero.
_GIFT = 1e-6


def break_even(problem: Problem, options: Options, count: Positions, worth: Array) -> tuple[dict[str, float], bool]:
    """Break-even price by unused type name, and whether they are exact."""
    needed = needed_types(problem)
    unused = np.flatnonzero((count == 0) & (problem.most > 0))
    exact = int(needed.sum()) <= _EXACT_TYPES and len(unused) <= 2 * _EXACT_TYPES
    cost = float(problem.cost @ count)
    prices = {}
    for r in unused.tolist():
        relaxed = float((worth / problem.load[r]).max() * problem.capacity[r])
        price = relaxed
        if exact:
            kept = needed.copy()
            kept[r] = True
            kept |= count > 0
            price = _entry_price(problem.only(kept), int(kept[:r].sum()), cost, relaxed, options)
        prices[problem.names[r]] = price
    return prices, exact


def _entry_price(problem: Problem, r: int, cost_per_h: float, guess: float, options: Options) -> float:
    """Largest price of type r at which some fleet that uses it costs ``cost_per_h``: max_n (C - sum_s c_s n_s) / n_r.

    Newton's method on the ratio (Dinkelbach): the fleet that is cheapest at one price gives the next price.
    """
    member = np.arange(len(problem.cost)) == r
    forced = problem.with_changes(
        requirements=(*problem.requirements, Requirement(name=problem.names[r], member=member)),
        most=np.maximum(problem.most, member),
    )
    smallest = _GIFT * cost_per_h
    price = max(guess, smallest)
    for _ in range(_MOST_STEPS):
        priced = forced.with_changes(cost=np.where(member, price, problem.cost))
        try:
            fleet = cheapest(
                priced, replace(options, gap=0.0), say=lambda _: None, deadline=now_s() + options.time_limit_s
            )
        except MelangeError:
            return 0.0
        others = float(problem.cost @ np.where(member, 0, fleet.instances))
        following = (cost_per_h - others) / int(fleet.instances[r])
        if following <= smallest:
            if price <= smallest:
                return 0.0
            following = smallest
        if abs(following - price) <= ROUNDING * price:
            return following
        price = following
    return price
