"""Which request sizes may miss: a target below 1 leaves room for sizes that a type answers too late, even alone.

Limits on the mean exclude a size from a type that misses them with it, or leave it almost no rate, however few requests
have that size. With a target for the share of requests that is wrong: 0.1 % of long prompts may miss under a target of
99 %, and the type that is cheapest for all other sizes may take them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from melange.plan.problem import allowed_types
from melange.plan.question import Question
from melange.profile.profile import Profile
from melange.replica.capacity import Sizes, rate_within
from melange.replica.engine import Engine
from melange.replica.occupancy import largest_batch_of, replicas_like, sizes_of
from melange.slo import Slo
from melange.validate.certify.attainable import limit_ratios
from melange.workload.workload import Array, Mask, Workload

# The figures below are from the twelve cases of bench/certify.py at 4 requests a second: cost of certified plans.

# Part of the allowed misses that is for sizes that miss even alone, or nearly. With more, less is left to chance, and
# more replicas are needed for it; with less, types are excluded that the target allows. None: two plans cost 10 and 6 %
# more, two 20 and 3 % less; half: one 10 % more, two 20 and 5 % less; all: one 10 % more, one 5 % less. It changes
# where searches begin, and so which of the cheap plans they find.
_PART = 0.5
# A type may serve everything if requests of sizes that miss alone on average are at most this many times the allowed
# misses: some requests of a size meet limits that its average misses. With less, single types that hold are not tried;
# with more, some are tried in vain. Chosen by judgment.
_LONE = 2.0
# The rate of a size that may miss is for limits of this many times what it takes alone: its requests run beside others,
# and a rate of nearly 0 would keep a replica for them. With more, such sizes seem cheaper than they are. 1.1: two plans
# cost 20 and 5 % less; 3: one 10 % more, one 5 % less.
_ROOM = 1.5


def with_tolerance(question: Question, slo: Slo, target: float) -> tuple[Question, Mask]:
    """The question with rates for sizes that may miss, on each type by itself.

    Sizes that miss alone on every allowed type are carried, whatever the target, because no fleet can do better; sizes
    that fit into no type are left out. Of the other sizes, those that cost a type most under limits on the mean may
    miss, up to a part of what the target allows. A type on which few enough requests miss alone may serve all of them:
    a fleet of that type is tried, and simulation says whether it holds.

    Returns
    -------
    tuple
        The question, and the sizes that a type serves only in a fleet of its own (R, I, O).
    """
    profile, workload = question.profile, question.workload
    sizes = sizes_of(workload)
    wanted = workload.request_rate > 0
    limits = _limits_by_size(slo, workload)
    alone, relaxed = _by_type(profile, limits, sizes)
    alone[~allowed_types(question)] = np.inf
    never = wanted & (alone > 1).all(axis=0)
    parts = _classes(workload)
    rates, low, high = (getattr(profile, name).copy() for name in ("max_request_rate", "low", "high"))
    lone = np.zeros(rates.shape, bool)
    for r in range(len(rates)):
        chosen, alone_able = np.zeros(wanted.shape, bool), []
        for part, off in zip(parts, slo.offsets, strict=True):
            requests, misses = workload.request_rate[part], 1.0 - target - off
            room = _PART * misses * float(requests.sum())
            chosen[part] = _chosen(rates[r][part], relaxed[r][part], requests, never[part], room)
            lone_room = _LONE * misses * float(requests.sum())
            alone_able.append(_of_one_type(rates[r][part], alone[r][part], relaxed[r][part], requests, lone_room))
        if all(able is not None for able in alone_able):
            lone[r] = ~chosen & np.concatenate([able for able in alone_able if able is not None])
        for table in (low, rates, high):
            table[r] = np.where(chosen | lone[r], np.maximum(table[r], relaxed[r]), table[r])
    reason = np.where(rates > 0, 0, profile.reason)
    profile = replace(profile, max_request_rate=rates, low=low, high=high, reason=reason)
    return replace(question, profile=profile), lone


def _classes(workload: Workload) -> list[slice]:
    """The rows of each class, which has its own allowed misses; without classes, all rows."""
    rows = len(workload.buckets.input_edges)
    return [slice(first, first + rows) for first in range(0, workload.buckets.shape[0], rows)]


def _limits_by_size(slo: Slo, workload: Workload) -> dict[str, Array]:
    """The limits of each size by metric (I, O) [s]; infinite if its class has none."""
    limits = slo.limits_of(workload.buckets.class_of_rows)
    return {name: np.broadcast_to(np.asarray(one, float), workload.buckets.shape) for name, one in limits.items()}


def _chosen(rate: Array, relaxed: Array, requests: Array, never: Mask, room: float) -> Mask:
    """The sizes that may miss on a type (I, O): sizes that no type answers in time, and the most costly others."""
    with np.errstate(divide="ignore", invalid="ignore"):
        saved = np.where((requests > 0) & (relaxed > rate), 1 / rate - 1 / relaxed, 0.0)  # replicas per request/s
    # A size that is too frequent to miss comes last, or it would take the room from less frequent sizes.
    order = np.argsort(np.where(never | (requests > room), 0.0, -saved), axis=None, kind="stable")
    taken = np.cumsum(np.where(never, 0.0, requests).ravel()[order])
    chosen = np.zeros(rate.size, bool)
    chosen[order] = taken <= room
    return np.asarray((chosen.reshape(rate.shape) & (saved > 0)) | (never & (relaxed > 0)))


def _of_one_type(rate: Array, alone: Array, relaxed: Array, requests: Array, room: float) -> Mask | None:
    """The sizes that a type has to serve in a fleet of its own (I, O); None if too many miss even alone."""
    wanted = requests > 0
    late = wanted & (alone > 1)
    is_able = bool((relaxed > 0)[wanted].all()) and float(requests[late].sum()) <= room
    return np.asarray(wanted & (rate <= 0)) if is_able else None


def _by_type(profile: Profile, limits: Mapping[str, Array], sizes: Sizes) -> tuple[Array, Array]:
    """Time of a size alone over its limits, and the rate under limits with slack for it (R, I, O)."""
    shape = profile.max_request_rate.shape
    alone, relaxed = np.ones(shape), np.zeros(shape)
    by_engine: dict[Engine, tuple[Array, Array]] = {}
    for r, engine in enumerate(profile.engines):
        if engine is None:
            continue
        if engine not in by_engine:
            by_engine[engine] = _of_engine(engine, limits, sizes)
        alone[r], relaxed[r] = by_engine[engine]
    return alone, relaxed


def _of_engine(engine: Engine, limits: Mapping[str, Array], sizes: Sizes) -> tuple[Array, Array]:
    inputs, outputs = sizes.inputs.ravel(), sizes.outputs.ravel()
    cached = np.broadcast_to(np.asarray(sizes.cached, float), sizes.inputs.shape).ravel()
    flat = {metric: limit.ravel() for metric, limit in limits.items()}
    ratio = limit_ratios(engine, flat, inputs, outputs, cached).max(axis=0).reshape(sizes.inputs.shape)
    sizes = sizes.kept(engine.prefix_kept)
    times = _ROOM * np.maximum(np.where(np.isfinite(ratio), ratio, 1.0), 1.0)
    wider = {metric: limit * times for metric, limit in limits.items()}
    rate = rate_within(replicas_like(engine), sizes, wider, largest_batch_of(engine, sizes))
    return ratio[0], np.where(np.isfinite(ratio), rate, 0.0)[0]
