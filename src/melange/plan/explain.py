"""Explain a plan: break-even prices of other types, cost by request size, and why no cheaper fleet works."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from melange.errors import InputError, MelangeError
from melange.files import Json
from melange.plan.break_even import break_even
from melange.plan.cheaper_fleet import CheaperFleet, nearest_cheaper
from melange.plan.cheapest import cheapest
from melange.plan.exact.dominated import needed_types
from melange.plan.milp.formulation import formulate
from melange.plan.milp.highs import minimise
from melange.plan.options import CARBON
from melange.plan.plan import Plan
from melange.plan.problem import Problem, build
from melange.plan.question import Question
from melange.plan.search_clock import now_s
from melange.plan.servable import scope_of
from melange.plan.solve import solve
from melange.units import S_PER_H, TOKENS_PER_MTOK
from melange.workload.workload import Array, Workload

# The gap to which an explained plan is solved, however roughly it was solved before: at a gap of 1 %, a plan with one
# instance more looks the same as one with one less.
_GAP = 1e-3
# Unused types whose price gets its own sentence, the most expensive first. Chosen by judgment; the pages have a table.
_MOST_LINES = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """The reasons for a plan.

    Parameters
    ----------
    break_even_per_h
        By unused type name: the largest price of an instance at which a plan that uses it costs no more than this one
        [USD/h]; 0 if it would not be used even for free.
    is_exact
        True if the break-even prices come from solving again; False if they are estimated from the linear relaxation,
        in which fractions of instances can be rented (many types).
    marginal_per_h
        Cost of one more request per second of a bucket in the linear relaxation (I, O), by the duals of its cover rows
        [USD/h per 1/s]; nan if a bucket has no traffic.
    cost_per_mtok
        Plan cost per million tokens, input and output together, by bucket (I, O) [USD]. The cost of each type is
        divided among its buckets by the load that they put on it, so that all buckets add up to the plan; nan without
        traffic or token counts.
    next_request_per_h
        Cost of one more request per second of the same mix in the linear relaxation, by the same duals [USD/h].
    next_step_per_h
        The same as a true step: cost of the plan for that rate, solved again, less this cost [USD/h]; None: no plan.
    cheaper
        The cheaper fleet that comes nearest; None if there is none.
    """

    break_even_per_h: dict[str, float]
    is_exact: bool
    marginal_per_h: Array
    cost_per_mtok: Array
    next_request_per_h: float
    next_step_per_h: float | None
    cheaper: CheaperFleet | None

    def to_json(self) -> Json:
        """As a JSON object; cells without traffic are null."""
        cheaper = self.cheaper
        return {
            "break_even_per_h": self.break_even_per_h,
            "is_exact": self.is_exact,
            "marginal_per_h": _with_nulls(self.marginal_per_h),
            "cost_per_mtok": _with_nulls(self.cost_per_mtok),
            "next_request_per_h": self.next_request_per_h,
            "next_step_per_h": self.next_step_per_h,
            "cheaper": None
            if cheaper is None
            else {
                "replicas": cheaper.replicas,
                "cost_per_h": cheaper.cost_per_h,
                "peak": cheaper.peak if np.isfinite(cheaper.peak) else None,
                "violation": cheaper.violation,
            },
        }

    def lines(self) -> tuple[str, ...]:
        """The explanation in sentences."""
        said = [f"One more request per second of this mix costs {self.next_request_per_h:.2f} USD/h on average."]
        if self.next_step_per_h is not None:
            step = f"{'adds' if self.next_step_per_h >= 0 else 'saves'} {abs(self.next_step_per_h):.2f} USD/h"
            said[0] = said[0].replace("on average.", f"on average; the next one {step}.")
        if self.cheaper is not None:
            fleet = " + ".join(f"{count} x {name}" for name, count in self.cheaper.replicas.items()) or "nothing"
            cost = f"{self.cheaper.cost_per_h:.2f} USD/h"
            said.append(f"The closest cheaper fleet is {fleet} at {cost}, but {self.cheaper.violation}.")
        offers = sorted(self.break_even_per_h.items(), key=lambda item: -item[1])
        for name, price in offers[:_MOST_LINES]:
            about = "" if self.is_exact else "about "
            said.append(
                f"{name} would be used at {about}{price:.2f} USD/h."
                if price > 0
                else f"{name} would not be used even for free."
            )
        return tuple(said)


def explain(plan: Plan) -> Explanation:
    """Explain ``plan``, from the question that it answers.

    Under a budget, the traffic that the plan serves is explained. For a certified plan, the closed form of its question
    is explained: prices and duals come from the program, and a search by simulation has none.

    Raises
    ------
    InputError
        A plan of least emissions: prices do not decide it.
    """
    if plan.options.objective == CARBON:
        raise InputError(
            "plan.objective: carbon: the effect of other prices is known only for the cheapest plan",
            hint="set plan.objective=cost to explain that",
        )
    if plan.certificate is not None:
        plan = solve(plan.question)
    question = _explained(plan)
    workload = question.workload
    problem = _problem(question)
    count = plan.instances[problem.types]
    worth = _worth(problem)
    marginal = np.full(workload.request_rate.size, np.nan)
    rate = workload.request_rate.ravel()[problem.cells]
    marginal[problem.cells] = worth / rate
    prices, exact = break_even(problem, question.options, count, worth)
    return Explanation(
        break_even_per_h=prices,
        is_exact=exact,
        marginal_per_h=marginal.reshape(workload.request_rate.shape),
        cost_per_mtok=_cost_per_mtok(plan, workload, problem),
        next_request_per_h=float(worth.sum() / workload.total_rate),
        next_step_per_h=_next_step(question, plan.cost_per_h),
        cheaper=nearest_cheaper(problem, question.profile, count),
    )


def _explained(plan: Plan) -> Question:
    """The plan's question at its confidence, for the traffic that it serves, to a gap that distinguishes fleets."""
    question = plan.question.at_confidence()
    if question.options.budget_per_h is not None:
        served = question.workload.request_rate * plan.share.sum(axis=0).max()
        question = replace(question, workload=replace(question.workload, request_rate=served))
    return question.with_options(budget_per_h=None, gap=min(question.options.gap, _GAP))


def _problem(question: Question) -> Problem:
    scope = scope_of(question)
    return build(question, scope.allowed, scope.served)


def _worth(problem: Problem) -> Array:
    """Duals of the cover rows (B,): cost of each bucket if fractions of instances can be rented [USD/h]."""
    milp = formulate(problem.only(needed_types(problem)))
    outcome = minimise(replace(milp.program, is_integer=None))
    return np.asarray(outcome.row_dual[: problem.load.shape[1]] * (problem.slices or 1))


def _cost_per_mtok(plan: Plan, workload: Workload, problem: Problem) -> Array:
    """Cost of each type divided among its buckets by load, over the tokens of the bucket (I, O) [USD per million]."""
    if workload.buckets.is_ordinal:
        return np.full(workload.request_rate.shape, np.nan)
    share = plan.share.reshape(len(plan.replica_types), -1)[np.ix_(problem.types, problem.cells)]
    load = np.where(share > 0, np.where(np.isfinite(problem.load), problem.load, 0.0) * share, 0.0)
    total = load.sum(axis=1, keepdims=True)
    spent = problem.cost * plan.instances[problem.types]
    part = np.divide(load, total, out=np.zeros_like(load), where=total > 0)
    flat = np.full(workload.request_rate.size, np.nan)
    tokens = (workload.request_rate * (workload.input_tokens + workload.output_tokens)).ravel()[problem.cells]
    flat[problem.cells] = (spent @ part) / (tokens * S_PER_H / TOKENS_PER_MTOK)
    return flat.reshape(workload.request_rate.shape)


def _next_step(question: Question, cost_per_h: float) -> float | None:
    """Extra cost of the plan for one more request per second over this one [USD/h]."""
    options = question.options
    problem = _problem(question.at_rate(question.workload.total_rate + 1.0))
    problem = problem.only(needed_types(problem))
    try:
        fleet = cheapest(problem, options, say=lambda _: None, deadline=now_s() + options.time_limit_s)
    except MelangeError:
        return None
    return float(problem.cost @ fleet.instances) - cost_per_h


def _with_nulls(values: Array) -> list[list[float | None]]:
    return [[float(value) if np.isfinite(value) else None for value in row] for row in values]
