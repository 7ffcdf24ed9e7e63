"""Simulate a plan, request by request, with the step times of its profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from melange.errors import InputError, unknown
from melange.plan.plan import Plan
from melange.plan.problem import ROUNDING
from melange.plan.routing import policy_state, replica_engines, types_of
from melange.replica.engine import Engine
from melange.replica.policy import POLICIES, PREFIX_AFFINITY
from melange.replica.simulated.cluster import Event, play
from melange.replica.simulated.kernel import compilation_told
from melange.replica.simulated.outcome import Outcome
from melange.validate.attainment import counted
from melange.validate.run_lengths import settling
from melange.validate.scenario import STEADY_SCENARIO, Scenario
from melange.workload.arrivals import Arrivals, draw
from melange.workload.workload import Array, Workload

# The step times of a simulation: as planned, or as slow or as fast as the extreme tenth of measured ones.
STEP_TIMES = ("as-planned", "slow", "fast")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One simulation of a plan.

    Parameters
    ----------
    plan
        The simulated plan.
    types
        Position in ``plan.replica_types`` of each replica type of the fleet (T,).
    type_of
        Position in ``types`` of each replica (n,).
    engines
        The engine of each replica type in ``types`` (T).
    arrivals
        The requests (N).
    outcome
        The results of the requests.
    policy, scenario, steps
        The balancing policy, the events during the run, and the step times that were used.
    seed
        Seed of the policies that choose at random.
    slowdown
        Further factor on the step times of each type in ``types`` (T,).
    settling
        Requests that arrive while the fleet settles, which do not count; the first tenth never does.
    """

    plan: Plan
    types: tuple[int, ...]
    type_of: npt.NDArray[np.int64]
    engines: tuple[Engine, ...]
    arrivals: Arrivals
    outcome: Outcome
    policy: str
    scenario: str
    steps: str
    seed: int
    slowdown: tuple[float, ...] = ()
    settling: int = 0

    @property
    def counted(self) -> slice:
        """The requests that count, those of steady traffic."""
        is_steady = self.arrivals.is_shuffled and self.scenario == STEADY_SCENARIO.name
        return counted(len(self.arrivals), has_end=is_steady, settling=self.settling if is_steady else 0)


def simulate(
    plan: Plan,
    arrivals: Arrivals,
    *,
    policy: str = POLICIES[0],
    scenario: Scenario = STEADY_SCENARIO,
    steps: str = STEP_TIMES[0],
    slowdown: float | Array = 1.0,
    counts: Mapping[str, int] | None = None,
    in_order: bool = False,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Run:
    """Simulate a plan: every request, every engine step, the balancer's own policy.

    Parameters
    ----------
    plan
        A plan made by ``solve``, with the engines of its profile.
    arrivals
        The requests (N), as they arrive.
    policy
        One of :data:`~melange.replica.policy.POLICIES`.
    scenario
        Events during the run: the shape of the rate, replicas that leave and join.
    steps
        ``as-planned``; or ``slow``, ``fast``: like the slowest and the fastest tenth of measured steps.
    slowdown
        Factor on those step times, unknown to the balancer: one number, or one for each of the plan's replica types
        (R,).
    counts
        Replicas by replica type name; None: the plan's.
    in_order
        Whether engines take requests in the order of arrival, whatever the priorities of their classes.
    seed
        Seed of policies that choose at random.
    progress
        Called with the share of requests that have arrived, 0-1.

    Raises
    ------
    InputError
        Types without known steps, an unknown policy, no replicas, a slowdown that is not positive.
    """
    factors = np.broadcast_to(np.asarray(slowdown, float), (len(plan.replica_types),))
    if not ((factors > 0) & np.isfinite(factors)).all():
        raise InputError(f"slowdown must be > 0 and finite, got {slowdown}")
    if policy not in POLICIES:
        raise unknown("policy", policy, POLICIES)
    types = types_of(plan, counts)
    slower = tuple(factors[types].tolist())
    engines = tuple(_at(engine, steps, one) for engine, one in zip(replica_engines(plan, types), slower, strict=True))
    fleet = policy_state(plan, counts, "arrays")
    type_of = np.asarray(fleet.type_of)
    shaped = arrivals.shaped(scenario.rate) if scenario.rate else arrivals
    events = scenario.events(type_of, float(shaped.arrival_s[-1]))
    for event in events:
        if event.is_up and event.at_s > 0 and not _was_up(events, event):
            fleet.is_up[event.replica] = 0
    outcome = play(
        [engines[t] for t in type_of],
        fleet,
        POLICIES.index(policy),
        shaped.arrival_s,
        shaped.input_tokens,
        shaped.output_tokens,
        shaped.cached_tokens,
        shaped.max_tokens,
        looked_up=looked_up(plan, shaped),
        levels=None if in_order else levels(plan, shaped),
        keys=shaped.keys if policy == POLICIES[PREFIX_AFFINITY] else None,
        events=events,
        seed=seed,
        progress=progress,
    )
    outcome = outcome if shaped.class_of is None else replace(outcome, class_of=shaped.class_of)
    return Run(
        plan=plan,
        types=tuple(types),
        type_of=type_of,
        engines=engines,
        arrivals=shaped,
        outcome=outcome,
        policy=policy,
        scenario=scenario.name,
        steps=steps,
        seed=seed,
        slowdown=slower,
        settling=settling(shaped.rate, float(shaped.output_tokens.mean()), plan.slo) if len(shaped) > 1 else 0,
    )


def looked_up(plan: Plan, arrivals: Arrivals) -> npt.NDArray[np.integer] | None:
    """Tokens that the balancer uses to look up where requests go (N,); None: the tokens of their prompts."""
    found = plan.workload.buckets.row_tokens(arrivals.input_tokens, arrivals.class_of)
    return None if arrivals.class_of is None else found


def levels(plan: Plan, arrivals: Arrivals) -> npt.NDArray[np.integer] | None:
    """Ranks of the requests' priorities (N,); None if engines take all requests in the order of arrival."""
    if arrivals.class_of is None or plan.slo is None:
        return None
    return np.array(plan.slo.levels)[arrivals.class_of]


def prepare(plan: Plan, tell: Callable[[str], None]) -> None:
    """Load the simulator before it is needed, and report its compilation if no compiled code was shipped or stored."""
    one = np.ones(1, np.int32)
    class_of = np.zeros(1, np.int32) if plan.workload.buckets.classes else None
    with compilation_told(tell):
        simulate(plan, Arrivals(arrival_s=np.zeros(1), input_tokens=one, output_tokens=one, class_of=class_of))


def planned_workload(plan: Plan) -> Workload:
    """The traffic with which a plan is simulated: its workload without the buckets that it leaves out.

    Unless these buckets were dropped explicitly, a certificate counts them, and their requests arrive like all others.

    Raises
    ------
    InputError
        The plan carries nothing.
    """
    served = np.minimum(plan.share.sum(axis=0), 1.0)
    if not (served * plan.workload.request_rate).any():
        raise InputError("plan: it serves no requests")
    if plan.certificate and plan.certificate.sends_unservable:
        return plan.workload
    return replace(plan.workload, request_rate=plan.workload.request_rate * served)


def left_out_of(plan: Plan) -> float:
    """Share of a plan's requests that are not simulated, 0-1: those that the plan says it leaves out."""
    if plan.certificate and plan.certificate.sends_unservable:
        return 0.0
    left_out = 1.0 - plan.served_fraction
    return left_out if left_out > ROUNDING else 0.0


def draw_for(plan: Plan, requests: int, *, seed: int = 0, burstiness: float = 1.0, scale: float = 1.0) -> Arrivals:
    """Requests drawn from the traffic that a plan is simulated with, ``scale`` times as often."""
    workload = planned_workload(plan)
    drawn = draw(workload.at_rate(workload.total_rate * scale), requests, seed=seed, burstiness=burstiness)
    return within_context(drawn, max(engine.max_context for engine in plan.engines if engine))


def within_context(arrivals: Arrivals, max_context: int) -> Arrivals:
    """Requests with completions cut off at the context limit, as an engine does; a longer prompt stays as it is."""
    room = np.maximum(max_context - arrivals.input_tokens, 1)
    return replace(arrivals, output_tokens=np.minimum(arrivals.output_tokens, room))


def _at(engine: Engine, steps: str, slowdown: float) -> Engine:
    factors = dict(zip(STEP_TIMES, (1.0, engine.slow, engine.fast), strict=True))
    if steps not in factors:
        raise unknown("steps", steps, STEP_TIMES)
    factor = factors[steps] * slowdown
    return engine.scaled(factor) if factor != 1.0 else engine


def _was_up(events: tuple[Event, ...], joining: Event) -> bool:
    """Whether a replica that joins had left before, rather than being new."""
    return any(one.replica == joining.replica and not one.is_up and one.at_s < joining.at_s for one in events)
