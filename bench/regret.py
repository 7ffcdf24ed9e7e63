"""What errors of estimates cost: plans made from held-out estimates, carried on measured capacities.

A case is a model in a precision under one engine and one limit, whose sizes were measured on two accelerators and more.
The plan made from estimates keeps its shares. *As rented*: where a type carries less than was thought, instances of it
are added until it carries its share, and where it carries more, its instances stay. *Resized*: every type has as many
as its share needs, which is what choosing the wrong mix costs once counts are set by what is seen. Regret is the cost
over that of the best plan on measured capacities, less 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from calibrate import HeldOut
from curves import curves_of, hardware_of
from measured import Point
from melange.catalog.bundled import accelerators, offers
from melange.catalog.offer import Offer
from melange.errors import InfeasibleError
from melange.plan.options import Options
from melange.plan.solve import solve
from melange.profile.capacity import Sizes, max_request_rate
from melange.profile.hardware import replicas_of
from melange.profile.profile import ReplicaType
from melange.profile.release import measured_profile
from melange.workload.workload import Buckets, Workload

Array = npt.NDArray[np.float64]

LIMITS_S = (0.015, 0.03, 0.06)
INSTANCES_PER_CASE = 5
REPLICAS = (3.0, 40.0)
LEAST_TYPES = 2
LEAST_SHARE = 0.6  # of the sizes of the type with most of them; a type with fewer is left out of the case
NO_LIMIT_S = 1e9
MARKUP = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Capacities of several replica types (R, B) [1/s], measured and estimated, and what the types cost [USD/h]."""

    name: str
    types: tuple[str, ...]
    accelerators: tuple[str, ...]
    cost_per_h: Array
    measured: Array
    estimated: Array


def price_per_h(accelerator: str) -> float | None:
    """The cheapest bundled on-demand offer of one accelerator [USD/h]; None where there is none."""
    prices = [
        offer.cost_per_h / offer.accelerators
        for offer in offers()
        if offer.accelerator == accelerator and offer.market == "on-demand"
    ]
    return min(prices, default=None)


def cases(held_by_era: Iterable[HeldOut], held: str) -> list[Case]:
    """All cases that the measurements allow; estimates by constants that have not seen the accelerator or model."""
    found = []
    for era in held_by_era:
        found += _saturation_cases(era, held)
        found += _limit_cases(era, held)
    return found


def _saturation_cases(era: HeldOut, held: str) -> list[Case]:
    by_model: dict[object, dict[tuple[str, int], dict[tuple[float, float], tuple[float, float]]]] = defaultdict(dict)
    for point in era.points:
        if point.is_saturated:
            cells = by_model[point.model].setdefault((point.accelerator, point.tensor_parallel), {})
            cells[point.inputs, point.outputs] = point.rate, estimated(era, point, NO_LIMIT_S, held)
    names = {point.model: f"{era.era.name} {point.model.name} {point.model.weight_dtype}" for point in era.points}
    return [case for model, rows in by_model.items() for case in _case(f"{names[model]}, saturation", rows)]


def _limit_cases(era: HeldOut, held: str) -> list[Case]:
    found = []
    for limit_s in LIMITS_S:
        by_model: dict[object, dict[tuple[str, int], dict[tuple[float, float], tuple[float, float]]]] = defaultdict(
            dict
        )
        names = {}
        for curve in curves_of(era):
            point = curve.points[-1]
            names[point.model] = f"{era.era.name} {point.model.name} {point.model.weight_dtype}"
            measured = float(curve.measured(np.array([min(limit_s, curve.tpot_s[-1])]))[0])
            constants = era.constants_for(point, held)
            estimate = float(curve.predicted(np.array([limit_s]), constants)[0])
            cells = by_model[point.model].setdefault((point.accelerator, point.tensor_parallel), {})
            cells[point.inputs, point.outputs] = measured, estimate
        for model, rows in by_model.items():
            found += _case(f"{names[model]}, TPOT {limit_s * 1e3:g} ms", rows)
    return found


def _case(name: str, rows: dict[tuple[str, int], dict[tuple[float, float], tuple[float, float]]]) -> list[Case]:
    """The sizes that all types share; none where fewer than two types of known price are left."""
    priced = {key: cells for key, cells in rows.items() if price_per_h(key[0]) is not None and len(cells) > 1}
    if len({card for card, _ in priced}) < LEAST_TYPES:
        return []
    most = max(len(cells) for cells in priced.values())
    priced = {key: cells for key, cells in priced.items() if len(cells) >= LEAST_SHARE * most}
    shared = sorted(set.intersection(*(set(cells) for cells in priced.values())))
    both = np.array([[cells[size] for size in shared] for cells in priced.values()])
    if len({card for card, _ in priced}) < LEAST_TYPES or not len(shared):
        return []
    served = (both[:, :, 0] > 0).any(axis=0)
    if not served.any():
        return []
    return [
        Case(
            name=name,
            types=tuple(f"{card} x {degree}" for card, degree in priced),
            accelerators=tuple(card for card, _ in priced),
            cost_per_h=np.array([(price_per_h(card) or 0.0) * degree for card, degree in priced]),
            measured=both[:, served, 0],
            estimated=both[:, served, 1],
        )
    ]


def estimated(era: HeldOut, point: Point, limit_s: float, held: str) -> float:
    """The closed form's rate of that size on that replica type [1/s]."""
    constants = replace(era.constants_for(point, held), t_stream_s=0.0)  # measured without a server
    settings = replace(era.era, constants=constants).with_settings(max_context=10**9)
    replicas = replicas_of(point.model, [hardware_of(point)], accelerators(), settings)
    sizes = Sizes(inputs=np.full((1, 1, 1), point.inputs), outputs=np.full((1, 1, 1), point.outputs))
    return float(max_request_rate(replicas, point.model, sizes, {"tpot": limit_s})[0, 0, 0])


def regrets(found: Sequence[Case], seed: int = 7) -> tuple[Array, Array, list[str], int]:
    """Regret of every instance as rented and resized, the case of each, and how many got no plan from estimates."""
    random = np.random.default_rng(seed)
    rented, resized, names, without = [], [], [], 0
    for case in found:
        for _ in range(INSTANCES_PER_CASE):
            shares = random.dirichlet(np.ones(case.measured.shape[1]))
            replicas = math.exp(random.uniform(*np.log(REPLICAS)))
            rate = shares * replicas / float((shares / case.measured.max(axis=0)).sum())
            best = _cost(case, rate, case.measured)
            if best is None:
                continue
            planned = _cost(case, rate, np.where(case.measured > 0, case.estimated, 0.0))
            if planned is None:
                without += 1
                continue
            best_per_h = float(best[0] @ case.cost_per_h)
            needed = carrying(case, rate, planned[1])
            rented.append(float(np.maximum(planned[0], needed) @ case.cost_per_h) / best_per_h - 1)
            resized.append(float(needed @ case.cost_per_h) / best_per_h - 1)
            names.append(case.name)
    return np.array(rented), np.array(resized), names, without


def carrying(case: Case, rate: Array, share: Array) -> Array:
    """Instances that each type needs to carry its share on measured capacity (R,)."""
    load = np.where(share > 0, share * rate / np.maximum(case.measured, 1e-12), 0.0).sum(axis=1)
    return np.ceil(load - MARKUP)


def _cost(case: Case, rate: Array, capacity: Array) -> tuple[Array, Array] | None:
    """Instances (R,) and shares (R, B) of the cheapest plan; None where nothing can be served."""
    buckets = Buckets.ordinal(len(rate), 1)
    types = tuple(
        ReplicaType(
            name=name,
            offer=Offer(
                provider="",
                region="",
                instance_type=name,
                accelerator=card,
                accelerators=1,
                cost_per_h=float(cost),
            ),
        )
        for name, card, cost in zip(case.types, case.accelerators, case.cost_per_h, strict=True)
    )
    workload = Workload.at_upper_edges(buckets, rate[:, None])
    try:
        plan = solve(workload, measured_profile(types, buckets, capacity[:, :, None]), Options(headroom=0.0))
    except InfeasibleError:
        return None
    return plan.instances.astype(float), plan.share[:, :, 0]
