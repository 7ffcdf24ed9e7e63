"""Shares of requests by replica type, given what a gateway knows.

A gateway knows the length of a body and the client's limit on the completion, but not the length of the completion. So
its weights are the plan's shares, averaged over the completions of the plan's traffic in that input bucket up to the
client's limit. The balancer's policy starts with the same shares (:mod:`melange.replica.policy`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melange.errors import InputError
from melange.plan.plan import Plan
from melange.plan.without_classes import without_classes
from melange.workload.workload import Array

# Requests of a route take turns; turn k goes to the type at (k STEP) mod TURNS. In TURNS consecutive turns, each type
# gets exactly its parts. STEP, which is coprime to TURNS and has partial quotients of at most 3, spreads them: over any
# run of turns, a type is at most 5 requests from its share.
TURNS = 10_000
STEP = 3_819
# Limits on the completion are merged into one route if their shares differ by less than this: there are fewer routes to
# read and to count turns for, and shares are off by at most half a point.
SAME = 0.005
# A bucket with a smaller share of the traffic counts as empty: it is a rounding error.
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A range of request sizes that a gateway can distinguish, and the types that serve it.

    Parameters
    ----------
    input_tokens
        Longest prompt [tokens]; None: any.
    max_tokens
        Highest client limit on completions [tokens]; None: any, or no limit.
    label
        Both ranges in words.
    share
        Share of each used replica type (T), 0-1; the shares sum to 1.
    traffic
        Share of the plan's requests with prompts in this range, 0-1.
    is_planned
        False if the plan has no such requests, so the share is a guess.
    """

    input_tokens: int | None
    max_tokens: int | None
    label: str
    share: tuple[float, ...]
    traffic: float
    is_planned: bool

    @property
    def parts(self) -> tuple[int, ...]:
        """The share in whole parts of ``TURNS``, rounded up for the largest remainders (T)."""
        exact = np.array(self.share) * TURNS
        parts = np.floor(exact).astype(int)
        parts[np.argsort(parts - exact, kind="stable")[: TURNS - parts.sum()]] += 1
        return tuple(parts.tolist())

    @property
    def upto(self) -> tuple[int, ...]:
        """Cumulative parts (T): a turn below the first value goes to the first type, and so on."""
        return tuple(np.cumsum(self.parts).tolist())

    def choose(self, turn: int) -> int:
        """The type of a turn, as the gateways compute it."""
        place = turn * STEP % TURNS
        return next(t for t, upto in enumerate(self.upto) if place < upto)


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """All routes of a plan, by input size.

    Parameters
    ----------
    types
        Used replica types, by name (T).
    routes
        Sorted by prompt, then by limit; the first route that a request fits is used, and the last fits all.
    stand_ins
        For each type (T), the types that take its requests if none of its replicas works, best first.
    """

    types: tuple[str, ...]
    routes: tuple[Route, ...]
    stand_ins: tuple[tuple[int, ...], ...]

    def find(self, input_tokens: float, max_tokens: int = 0) -> int:
        """Index of a request's route; a limit of 0 means none."""
        for place, route in enumerate(self.routes):
            is_short = route.input_tokens is None or input_tokens <= route.input_tokens
            if is_short and (route.max_tokens is None or 0 < max_tokens <= route.max_tokens):
                return place
        raise AssertionError("the last route takes every request")


def routes_of(plan: Plan) -> Routes:
    """The routes of a plan.

    Raises
    ------
    InputError
        A plan without replicas, or whose buckets are numbered and have no sizes.
    """
    if plan.workload.buckets.is_ordinal:
        raise InputError(
            "plan: its buckets are only numbered, without token counts, so a gateway cannot distinguish them",
            hint="plan a workload with input and output edges",
        )
    plan = without_classes(plan)
    used = [r for r, one in enumerate(plan.replica_types) if plan.replicas[one.name] > 0]
    if not used:
        raise InputError("plan: no replicas")
    share, is_planned = _expected_shares(plan, used)
    return Routes(
        types=tuple(plan.replica_types[r].name for r in used),
        routes=tuple(_routes(plan, share, is_planned)),
        stand_ins=_stand_ins(plan, used),
    )


def _routes(plan: Plan, share: Array, is_planned: npt.NDArray[np.bool_]) -> Iterator[Route]:
    """One or more routes per input bucket; neighboring buckets that use only one type, the same one, are merged."""
    rates = plan.workload.request_rate
    inputs, outputs = plan.workload.buckets.shape
    first = 0
    for i in range(inputs):
        limits = [o for o in range(outputs - 1) if np.abs(share[:, i, o] - share[:, i, o + 1]).max() > SAME]
        is_to_go_on = i + 1 < inputs and not limits and _is_one_type_alone(share[:, i : i + 2])
        if is_to_go_on:
            continue
        traffic = float(rates[first : i + 1].sum() / rates.sum())
        for o in [*limits, None]:
            yield Route(
                input_tokens=None if i == inputs - 1 else plan.workload.buckets.input_edges[i],
                max_tokens=None if o is None else plan.workload.buckets.output_edges[o],
                label=_label(plan, first, i, o),
                share=tuple(share[:, i, -1 if o is None else o].tolist()),
                traffic=traffic,
                is_planned=bool(is_planned[first : i + 1, -1 if o is None else o].any()),
            )
        first = i + 1


def _is_one_type_alone(share: Array) -> bool:
    """Whether all requests of some input buckets (T, some, O) go to one type."""
    return bool((np.abs(share - 1.0) < _NOTHING).all(axis=(1, 2)).any())


def _label(plan: Plan, first: int, last: int, o: int | None) -> str:
    buckets = plan.workload.buckets
    lowest = buckets.input_edges[first - 1] + 1 if first else 1
    is_last = last == len(buckets.input_edges) - 1
    sizes = f"from {lowest:,} in" if is_last else f"{lowest:,}-{buckets.input_edges[last]:,} in"
    return sizes if o is None else f"{sizes}, max_tokens <= {buckets.output_edges[o]:,}"


def _expected_shares(plan: Plan, used: list[int]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Shares by input bucket and last possible output bucket (T, I, O), and whether the plan has such requests (I, O).

    Other requests use the shares of the next larger limit for the same prompts, or of the nearest shorter prompts.
    """
    rates = plan.workload.request_rate
    weights = np.cumsum(rates * plan.share[used], axis=2)
    is_planned = weights.sum(axis=0) > _NOTHING * rates.sum()
    total = weights.sum(axis=0)
    share = weights / np.where(is_planned, total, 1.0)
    inputs, outputs = is_planned.shape
    planned_rows = np.flatnonzero(is_planned[:, -1])
    if not len(planned_rows):
        raise InputError("plan: it serves no requests, so there is nothing to route")
    for i in range(inputs):
        if not is_planned[i, -1]:
            shorter = planned_rows[planned_rows < i]
            share[:, i] = share[:, shorter[-1] if len(shorter) else planned_rows[0]][:, -1:]
            continue
        for o in range(outputs - 2, -1, -1):
            if not is_planned[i, o]:
                share[:, i, o] = share[:, i, o + 1]
    return share, is_planned


def _stand_ins(plan: Plan, used: list[int]) -> tuple[tuple[int, ...], ...]:
    """For each type, the other types in order of how much of its traffic all their replicas can serve, most first."""
    rates, chosen = plan.workload.request_rate, []
    count = np.array([plan.replicas[plan.replica_types[r].name] for r in used], float)
    for t, r in enumerate(used):
        traffic = plan.share[r] * rates
        carried = (traffic * (plan.max_request_rate[used] > 0)).sum(axis=(1, 2)).round(9)
        capacity = (traffic * plan.max_request_rate[used]).sum(axis=(1, 2)) * count
        order = np.lexsort((-capacity, -carried)).tolist()
        chosen.append(tuple(k for k in order if k != t))
    return tuple(chosen)
