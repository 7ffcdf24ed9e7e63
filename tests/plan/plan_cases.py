"""Small planning problems with known answers, shared by the tests of the plan stage."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from melange.catalog.catalog import Offer
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.problem import Problem, build
from melange.plan.question import Question
from melange.plan.servable import scope_of
from melange.profile.profile import Profile, ReplicaType
from melange.workload.workload import Buckets, Workload


def offer(name: str, cost_per_h: float, accelerators: int = 1, **details: object) -> Offer:
    """An instance of ``accelerators`` of the accelerator ``name``."""
    return Offer(
        provider="", region="", instance_type=name, accelerator=name, accelerators=accelerators,
        cost_per_h=cost_per_h, **details,
    )  # fmt: skip


def profile(offers: list[Offer], rates: object, reasons: tuple[str, ...] = ("",), reason: object = None) -> Profile:
    """A profile of one replica type an offer, over numbered buckets."""
    rates = np.array(rates, float)
    return Profile(
        replica_types=tuple(ReplicaType(name=item.instance_type, offer=item) for item in offers),
        buckets=Buckets.ordinal(*rates.shape[1:]),
        max_request_rate=rates,
        low=rates,
        high=rates,
        provenance=np.zeros(rates.shape, np.int8),
        reasons=reasons,
        reason=np.zeros(rates.shape, np.int32) if reason is None else np.array(reason, np.int32),
    )


def workload(rates: object) -> Workload:
    """A workload over numbered buckets."""
    rates = np.array(rates, float)
    return Workload.at_upper_edges(Buckets.ordinal(*rates.shape), rates)


def authors() -> tuple[Workload, Profile]:
    """The example of the authors' release."""
    offers = [offer("A10G", 1.01), offer("A100-80GB", 3.67)]
    return workload(30 * np.array([[0.2, 0.1], [0.5, 0.2]])), profile(offers, [[[2, 1], [5, 2]], [[20, 20], [40, 20]]])


def figure_9(rate: float) -> tuple[Workload, Profile]:
    """Figure 9 of the paper: one size, [1000, 500] tokens at 120 ms."""
    return workload([[rate]]), profile([offer("A10G", 1.01), offer("A100", 3.67)], [[[0.370]], [[2.0]]])


def impossible() -> tuple[Workload, Profile]:
    """Two sizes, of which the larger finds no type."""
    offers = [offer("L4", 0.7), offer("A10G", 1.01)]
    return workload([[3.0, 1.0]]), profile(
        offers, [[[2.0, 0.0]], [[4.0, 0.0]]], ("", "KV cache holds 9000 tokens"), [[[0, 1]], [[0, 1]]]
    )


def random_case(seed: int, types: int = 3, buckets: int = 4, holes: float = 0.2) -> tuple[Workload, Profile]:
    """A tiny random problem; the first type serves everything."""
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.5, 4.0, (types, 1, buckets)) * rng.uniform(0.5, 3.0, (types, 1, 1))
    rates[rng.uniform(size=rates.shape) < holes] = 0.0
    rates[0] = rng.uniform(0.5, 4.0, (1, buckets))
    prices = np.round(rng.uniform(0.5, 4.0, types), 2)
    offers = [offer(f"t{r}", float(price)) for r, price in enumerate(prices)]
    return workload(rng.uniform(0.2, 3.0, (1, buckets))), profile(offers, rates)


def problem_of(load: Workload, rates: Profile, options: Options) -> Problem:
    """The numbers of a problem, as ``solve`` makes them before it sets any type aside."""
    question = Question(workload=load, profile=rates, options=options)
    scope = scope_of(question)
    return build(question, scope.allowed, scope.served)


def brute_force(problem: Problem, most: int = 12) -> float:
    """The least cost over all fleets of at most ``most`` of each type, each tried; infinite if none carries."""
    best = np.inf
    for count in itertools.product(range(most + 1), repeat=len(problem.cost)):
        cost = float(problem.cost @ count)
        if cost < best - 1e-9 and carries(problem, np.array(count)):
            best = cost
    return best


def carries(problem: Problem, count: np.ndarray) -> bool:
    """Whether a fleet carries the traffic: every split into slices is tried, or continuous shares solved for."""
    carried = problem.capacity * count
    if problem.slices is None:
        return _fits(problem.load, carried)
    whole = problem.slices
    splits = [split for split in itertools.product(range(whole + 1), repeat=len(count)) if sum(split) == whole]
    loads = {tuple(np.zeros(len(count)))}
    for bucket in problem.load.T:
        able = [split for split in splits if all(np.isfinite(bucket[r]) or not m for r, m in enumerate(split))]
        step = [tuple(m / whole * bucket[r] if m else 0.0 for r, m in enumerate(split)) for split in able]
        sums = {tuple(round(a + b, 12) for a, b in zip(have, more, strict=True)) for have in loads for more in step}
        loads = {item for item in sums if all(a <= c + 1e-9 for a, c in zip(item, carried, strict=True))}
    return bool(loads)


def _fits(load: np.ndarray, carried: np.ndarray) -> bool:
    """Whether continuous shares exist, by a linear program written down a second time."""
    import highspy

    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    types, buckets = load.shape
    share = {}
    for r in range(types):
        for b in range(buckets):
            if np.isfinite(load[r, b]):
                share[r, b] = solver.addVariable(lb=0.0, ub=1.0)
    for b in range(buckets):
        solver.addConstr(sum(share[r, b] for r in range(types) if (r, b) in share) == 1.0)
    for r in range(types):
        terms = [load[r, b] * share[r, b] for b in range(buckets) if (r, b) in share]
        if terms:
            solver.addConstr(sum(terms) <= float(carried[r]) + 1e-9)
    solver.run()
    return solver.getModelStatus() == highspy.HighsModelStatus.kOptimal


def asked(load: Workload, rates: Profile, options: Options | None = None) -> Question:
    """A question of these parts."""
    return Question(workload=load, profile=rates, options=options or Options())


def answering(plan: Plan, *, options: dict[str, object] | None = None, **of_profile: object) -> Plan:
    """The same plan as the answer to a question with other options, or with something else in its profile."""
    question = plan.question.with_options(**(options or {}))
    return replace(plan, question=replace(question, profile=replace(question.profile, **of_profile)))
