"""Fewer replica types to search among: all clouds together offer a thousand, and no fleet would use most of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.catalog.grid import DEFAULT
from melange.plan.confidence import with_rates
from melange.plan.exact.dominated import needed_types
from melange.plan.plan import Plan
from melange.plan.problem import build
from melange.plan.question import Question
from melange.plan.servable import scope_of
from melange.profile.profile import Profile, ReplicaType
from melange.workload.workload import Mask

# Why a type no longer serves requests of a size.
TAKEN_AWAY = "in simulation too many requests of this size miss the SLO even alone"

# A type is left out if another one of no higher price carries this many times as much of every size: on some machines
# loads add up better than on others. With less, types are left out that simulations would choose; with more, each
# program takes longer. Chosen by judgment: with the four types of bench/certify.py, 1 and 1.5 make no difference.
_MARGIN = 1.25


def worth_types(question: Question, in_force: npt.NDArray[np.int64] | None = None) -> Mask:
    """The types that some fleet may use (R,): allowed, and not clearly beaten by another type on every size.

    Types of the current plan ``in_force`` (R,) stay: at equal cost they may be kept.
    """
    scope = scope_of(question)
    problem = build(question, scope.allowed, scope.served)
    engines = [question.profile.engines[r] for r in problem.types]
    number = {engine: place for place, engine in enumerate(dict.fromkeys(engines))}
    kind = np.array([number[engine] for engine in engines])
    margin = np.where(kind[:, None] == kind, 1.0, _MARGIN)
    kept = np.zeros(len(scope.allowed), bool)
    kept[problem.types[needed_types(problem, margin=margin)]] = True
    if in_force is not None:
        kept[problem.types[in_force[problem.types] > 0]] = True
    kept[problem.types[np.array([engine is None for engine in engines], bool)]] = False
    return kept


def of_rows(profile: Profile, rows: Sequence[int] | npt.NDArray[np.intp], types: Sequence[ReplicaType]) -> Profile:
    """The profile with some of its rows, each for one of the given types."""
    names = ("max_request_rate", "low", "high", "provenance", "reason")
    arrays = {name: getattr(profile, name)[rows] for name in names}
    engines = tuple(profile.engines[r] for r in rows) if profile.engines else ()
    return replace(profile, replica_types=tuple(types), engines=engines, **arrays)


def with_types(question: Question, kept: Mask) -> Question:
    """The question with some of its types (R,); settings that name only other types are dropped."""
    profile, options = question.profile, question.options
    places = np.flatnonzero(kept)
    types = tuple(profile.replica_types[r] for r in places)
    # By the kinds of names that each setting allows: a removed type may have the name of a remaining type's offer.
    names, accelerators = {one.name for one in types}, {one.offer.accelerator for one in types}
    regions = {one.offer.region for one in types}
    cards = accelerators | regions | {f"{one.offer.region}/{one.offer.accelerator}" for one in types}
    rented = names | {name for one in types for name in (one.offer.name, one.offer.instance_type)}

    def known(value: int | Mapping[str, int], allowed: set[str]) -> Any:
        return value if isinstance(value, int) else {name: n for name, n in value.items() if name in allowed}

    exclude = tuple(name for name in options.exclude if name in names | accelerators)
    return Question(
        workload=question.workload,
        profile=of_rows(profile, places, types),
        options=replace(
            options,
            exclude=exclude,
            max_instances=known(options.max_instances, rented),
            max_accelerators=known(options.max_accelerators, cards),
            min_replicas=known(options.min_replicas, names),
            spare_replicas=known(options.spare_replicas, names),
            grid_g_per_kwh={name: g for name, g in options.grid_g_per_kwh.items() if name in regions | {DEFAULT}},
        ),
    )


def widened(plan: Plan, question: Question, kept: Mask) -> Plan:
    """A plan of some of the types (R,) as an answer to the question with all of them.

    Sizes that were taken away from a type stay away: its rates for them are 0.
    """
    types = len(question.profile.replica_types)
    used = plan.instances > 0
    places = np.flatnonzero(kept)[used]
    rates = question.profile.max_request_rate.copy()
    rates[places] = plan.max_request_rate[used]
    question = replace(question, profile=with_rates(question.profile, rates, TAKEN_AWAY))
    instances, load = np.zeros(types, np.int64), np.zeros(types)
    share = np.zeros(question.profile.max_request_rate.shape)
    instances[kept], load[kept], share[kept] = plan.instances, plan.load, plan.share
    return replace(plan, question=question, instances=instances, load=load, share=share)
