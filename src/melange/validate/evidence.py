"""Whether a plan can be simulated, and the result of one simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.plan.plan import Plan
from melange.plan.problem import allowed_types
from melange.plan.question import Question
from melange.plan.simulation import Simulation
from melange.replica.policy import POLICIES
from melange.validate.attainment import attainment, met
from melange.validate.replay import whole_log, words_of
from melange.validate.run_lengths import enough, is_long_enough
from melange.validate.simulate import planned_workload, simulate, within_context
from melange.workload.arrivals import Arrivals, draw
from melange.workload.workload import Mask

# Requests of one run, unless more are needed for the fleet to fill, and number of runs, for a plan that is simulated
# once and for `melange validate`, which then prints the same figure. Together they give an interval of a tenth of a
# point at 99.5 %, in a third of a second. With a tenth of them, the interval is a third of a point, and leaves open
# whether plans near their target hold.
REQUESTS, RUNS = 10_000, 5
# Most types named in a reason, which is one line of a page.
_MOST_NAMED = 3


def why_not_simulated(question: Question, used: Mask | None = None) -> str:
    """Why the answer to a question cannot be simulated, in words that follow a colon; empty if it can.

    Parameters
    ----------
    question
        The question to plan for.
    used
        Replica types whose steps must be known (R,); None: all types that are allowed and serve some size.

    Examples
    --------
    >>> from melange.plan.options import Options
    >>> from melange.profile.formats.profiles import read_melange_config
    >>> workload, profile, _ = read_melange_config("examples/release.json")
    >>> why_not_simulated(Question(workload=workload, profile=profile, options=Options()))
    'the profile names no SLO'
    """
    profile = question.profile
    if profile.slo is None:
        return "the profile names no SLO"
    if question.workload.buckets.is_ordinal:
        return "request sizes are only numbered, not known in tokens"
    unknown = _types_without_engine(question, used)
    if unknown:
        more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        return f"step times are unknown for {', '.join(unknown[:_MOST_NAMED])}{more}"
    return ""


def is_certifiable(question: Question) -> bool:
    """Whether a search for a fleet that holds is possible: an SLO on requests, of which some may miss, and no budget.

    Under a budget, traffic is maximized; and no number of simulated requests shows that all of them meet an SLO.
    """
    slo = question.profile.slo
    return slo is not None and slo.is_on_requests and slo.target < 1 and question.options.budget_per_h is None


def with_simulation(plan: Plan, *, observed: Arrivals | None = None, burstiness: float | None = None) -> Plan:
    """The plan with the share of its requests that meet the limits by themselves, in a simulation of it as it is.

    Parameters
    ----------
    plan
        A plan with an SLO, and an engine for each type that it uses.
    observed
        Requests instead of the workload's buckets: a log is replayed as recorded if no burstiness is given and a fleet
        fills while it lasts; otherwise sizes are drawn from it.
    burstiness
        Burstiness of drawn arrivals, see :func:`~melange.workload.arrivals.draw`; None: a log's own, or else Poisson.
    """
    slo, carried = plan.slo, planned_workload(plan)
    if slo is None:
        raise ValueError("a plan without an SLO has no attainment")
    context = max(engine.max_context for engine in plan.engines if engine)
    is_log = observed is not None and burstiness is None and not observed.is_shuffled and observed.has_pace
    if observed is not None and is_log and is_long_enough(observed, slo):
        log = observed.within(carried.buckets, carried.request_rate > 0)
        sets, arrivals, rate = [whole_log(log)], words_of(log), log.rate
    else:
        times = 1.0 if burstiness is None else burstiness
        count = enough(carried, slo, REQUESTS)
        sets = [draw(carried, count, seed=seed, burstiness=times, observed=observed) for seed in range(RUNS)]
        arrivals, rate = words_of(sets[0]), carried.total_rate
    samples = []
    for seed, drawn in enumerate(sets):
        run = simulate(plan, within_context(drawn, context), seed=seed)
        samples.append(met(run.outcome, slo)[run.counted])
    held = attainment(samples)
    shown = Simulation(
        attainment=held.value,
        low=held.low,
        requests=sum(map(len, samples)) // len(samples),
        seeds=len(sets),
        policy=POLICIES[0],
        target=slo.attainment,
        arrivals=arrivals,
        rate=rate,
    )
    return replace(plan, simulation=shown)


def _types_without_engine(question: Question, used: Mask | None) -> list[str]:
    """Names of the types that must be simulated but whose steps are not known."""
    profile = question.profile
    if used is None:
        used = allowed_types(question) & (profile.max_request_rate.max(axis=(1, 2)) > 0)
    engines = profile.engines or (None,) * len(profile.replica_types)
    return [profile.replica_types[r].name for r in np.flatnonzero(used) if engines[r] is None]
