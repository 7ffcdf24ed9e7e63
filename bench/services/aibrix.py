"""The method of AIBrix's GPU optimizer, from its public code (vllm-project/aibrix, gpu_optimizer, 2025).

- Input and output sizes are counted by powers of two. A GPU is benchmarked at these sizes, at rates that double from
  one to the next. Its throughput for a size is the highest of these rates at which the mean meets the limits.
- The program is that of the Mélange release with 4 slices. A GPU counts as a hundred parts, so that it is nearly a
  linear program; the parts of each deployment are rounded up to whole replicas.

Two details are more favorable than in its code. Its density clustering of sizes, which merges all sizes within half a
power of two of each other, is left out, because it would merge most of our workloads into a single size. And it rounds
up every deployment that a user has created; its examples have two. Here these are on the two accelerators that carry
all traffic at the lowest cost, rather than on all accelerators of a cloud.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fleets import Array, broken_limit, carrying_all, fleet, on_mean
from melange.errors import InfeasibleError
from melange.plan.confidence import with_rates
from melange.plan.plan import Plan
from melange.plan.problem import loads
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.profile.estimate import estimate
from melange.service.session import Session
from melange.service.stages import model_of, offers_of
from melange.workload.workload import Buckets

# The smallest sizes are those of its own benchmark, the largest those of the default grid.
LEAST_POWER, INPUT_POWER, OUTPUT_POWER = 2, 17, 15
PARTS, SLICES, DEPLOYMENTS = 100, 4, 2
# Deployments of a model must serve nearly all sizes.
LEAST_SERVED = 0.9


def aibrix(session: Session) -> Plan:
    """The fleet of the optimizer, with the shares of its program."""
    question = _benchmarked(session)
    rates = question.profile.max_request_rate
    chosen = _deployments(question)
    if not chosen:
        raise InfeasibleError("no type holds the limits at the benchmarked sizes")
    kept = np.zeros_like(rates)
    kept[chosen] = rates[chosen]
    parts = replace(question, profile=with_rates(question.profile, kept, "no deployment"))
    parts = parts.at_rate(question.workload.total_rate * PARTS).with_options(
        max_accelerators={name: most * PARTS for name, most in question.options.max_accelerators.items()}
    )
    plan = solve(parts)
    instances = -(-plan.instances // PARTS)
    if why := broken_limit(question, instances):
        raise InfeasibleError(why)
    return carrying_all(fleet(question, instances, plan.share))


def _benchmarked(session: Session) -> Question:
    """The service with rates (R, I, O) in the resolution of that benchmark."""
    asked, service = on_mean(session), session.service
    assert service is not None
    offers, _ = offers_of(service, session.catalog)
    grid = Buckets(
        input_edges=tuple(2**k for k in range(LEAST_POWER, INPUT_POWER + 1)),
        output_edges=tuple(2**k for k in range(LEAST_POWER, OUTPUT_POWER + 1)),
    )
    measured = estimate(model_of(service), offers, session.slo.on_mean(), grid, engine=service.engine.requirement)
    workload = asked.workload
    i = _powers(workload.input_tokens, INPUT_POWER) - LEAST_POWER
    o = _powers(workload.output_tokens, OUTPUT_POWER) - LEAST_POWER
    at_sizes = measured.max_request_rate[:, i, o]
    doubled = np.where(at_sizes > 0, 2.0 ** np.floor(np.log2(np.where(at_sizes > 0, at_sizes, 1.0))), 0.0)
    profile = replace(asked.profile, max_request_rate=doubled, low=doubled, high=doubled)
    options = replace(asked.options, headroom=0.0, slices=SLICES)
    return Question(workload=workload, profile=profile, options=options)


def _powers(tokens: Array, most: int) -> np.ndarray:
    """The exponents of the nearest benchmarked powers of two."""
    return np.clip(np.round(np.log2(np.maximum(tokens, 1.0))), LEAST_POWER, most).astype(int)


def _deployments(question: Question) -> list[int]:
    """The types that carry the traffic at the lowest cost, each on a different accelerator."""
    types, load = question.profile.replica_types, loads(question.workload, question.profile)
    able = np.isfinite(load)
    served = (able * question.workload.request_rate.ravel()).sum(axis=1) / question.workload.total_rate
    replicas = np.array([one.replicas_per_instance for one in types])
    instances = np.ceil(np.where(able, load, 0.0).sum(axis=1) / replicas)
    cost = np.array([one.cost_per_h for one in types]) * instances
    chosen: dict[str, int] = {}
    for place in np.lexsort((cost, -np.floor(served / LEAST_SERVED))):
        if served[place] > 0:
            chosen.setdefault(types[place].offer.accelerator, int(place))
    return list(chosen.values())[: min(DEPLOYMENTS, question.options.max_types or DEPLOYMENTS)]
