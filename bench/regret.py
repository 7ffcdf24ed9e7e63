"""The cost of errors of estimates: plans from held-out estimates, evaluated with measured capacities.

A case is a model with a precision under one engine and one limit, with sizes measured on at least two accelerators.
Regret is the cost of the mix chosen from estimates over that of the best mix with measured capacities, minus 1. The
cost depends on which decisions still use estimates when the traffic comes. *The mix*: only the types; counts and
shares are solved again with measured capacities of these types. *With its shares*: every type keeps its share of each
size, with the number of instances that this needs. *As rented*: in addition, surplus instances are kept. Estimates are
made without any point of the case, or corrected by two points of each type.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibrate import HeldOut
from curves import Curve, curves_of, hardware_of
from measured import Point, measurement_of
from measured_folder import is_missing, parser_of
from melange.catalog.bundled import accelerators, offers
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.errors import InfeasibleError
from melange.plan.options import Options
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.profile.anchor import with_correction
from melange.profile.comparison import samples_of
from melange.profile.correction import Sample, correction, prior_variance
from melange.profile.formats.release import measured_profile
from melange.profile.profile import ReplicaType
from melange.replica.capacity import Replicas, Sizes, max_request_rate
from melange.replica.era import find_era
from melange.replica.hardware import replicas_of
from melange.workload.workload import Buckets, Workload

Array = npt.NDArray[np.float64]
# Measured and estimated rate by size, by accelerator and degree.
Rows = dict[tuple[str, int], dict[tuple[float, float], tuple[float, float]]]

LIMITS_S = (0.015, 0.03, 0.06)
INSTANCES_PER_CASE = 5
REPLICAS = (3.0, 40.0)
LEAST_TYPES = 2
LEAST_SHARE = 0.6  # of the sizes of the type with most of them; a type with fewer is left out of the case
NO_LIMIT_S = 1e9
MARKUP = 1e-9
KNOWN_TO = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Measured and estimated capacities of several replica types (R, B) [1/s], and their costs [USD/h]."""

    name: str
    types: tuple[str, ...]
    accelerators: tuple[str, ...]
    cost_per_h: Array
    measured: Array
    estimated: Array


def price_per_h(accelerator: str) -> float | None:
    """The cheapest bundled on-demand offer of one accelerator [USD/h]; None if there is none."""
    prices = [
        offer.cost_per_h / offer.accelerators
        for offer in offers()
        if offer.accelerator == accelerator and offer.market == "on-demand"
    ]
    return min(prices, default=None)


def cases(held_by_era: Iterable[HeldOut], held: str, anchors: int = 0) -> list[Case]:
    """All cases that the measurements allow; estimates use constants fitted without the accelerator or model.

    Parameters
    ----------
    held
        The held-out property: ``accelerator`` or ``model``.
    anchors
        Number of points of each replica type that correct its estimates: of the smallest and the largest size, at
        their operating points. Only cases under limits have such points.
    """
    found = []
    for era in held_by_era:
        if not anchors:
            found += _saturation_cases(era, held)
        found += _limit_cases(era, held, anchors)
    return found


def _saturation_cases(era: HeldOut, held: str) -> list[Case]:
    by_model: dict[Model, Rows] = defaultdict(dict)
    for point in era.points:
        if point.is_saturated:
            cells = by_model[point.model].setdefault((point.accelerator, point.tensor_parallel), {})
            cells[point.inputs, point.outputs] = point.rate, estimated(era, point, NO_LIMIT_S, held)
    names = {point.model: f"{era.era.name} {point.model.name} {point.model.weight_dtype}" for point in era.points}
    return [case for model, rows in by_model.items() for case in _case(f"{names[model]}, saturation", rows)]


def _limit_cases(era: HeldOut, held: str, anchors: int) -> list[Case]:
    by_model: dict[Model, dict[tuple[str, int], list[Curve]]] = defaultdict(dict)
    for curve in curves_of(era):
        point = curve.points[0]
        by_model[point.model].setdefault((point.accelerator, point.tensor_parallel), []).append(curve)
    found = []
    for limit_s in LIMITS_S:
        for model, curves_by_type in by_model.items():
            rows = {key: _cells(curves, limit_s, held, anchors) for key, curves in curves_by_type.items()}
            name = f"{era.era.name} {model.name} {model.weight_dtype}, TPOT {limit_s * 1e3:g} ms"
            found += _case(name, rows)
    return found


def _cells(
    curves: Sequence[Curve], limit_s: float, held: str, anchors: int
) -> dict[tuple[float, float], tuple[float, float]]:
    """Measured and estimated rate of every size of one replica type [1/s]."""
    by_size = sorted(curves, key=lambda curve: curve.points[0].inputs + curve.points[0].outputs)
    asked = [by_size[0], by_size[-1]][:anchors] if len(by_size) > 1 else by_size[:anchors]
    samples = [sample for curve in asked for sample in _anchor(curve, limit_s, held)]
    cells = {}
    for curve in curves:
        measured = float(curve.measured(np.array([min(limit_s, curve.tpot_s[-1])]))[0])
        cells[curve.points[0].inputs, curve.points[0].outputs] = measured, _rate(curve, limit_s, held, samples)
    return cells


def _anchor(curve: Curve, limit_s: float, held: str) -> list[Sample]:
    """The point of a curve that is nearest to the model's operating point, compared with the model."""
    point = curve.points[0]
    running = max(_rate(curve, limit_s, held, []) * point.outputs * limit_s, 1.0)
    nearest = min(curve.points, key=lambda one: abs(math.log(one.concurrency / running)))
    return samples_of(_replicas(curve, held), point.model, [measurement_of(nearest)])[0]


def _replicas(curve: Curve, held: str) -> Replicas:
    point = curve.points[-1]
    era = replace(curve.held.era, constants=curve.held.constants_for(point, held)).with_settings(max_context=10**9)
    replicas = replicas_of(point.model, [hardware_of(point)], accelerators(), era)
    return replace(replicas, max_sequences=np.minimum(replicas.max_sequences, point.concurrency))


def _rate(curve: Curve, limit_s: float, held: str, samples: Sequence[Sample]) -> float:
    """The closed form's rate for a curve's size, with no more concurrent requests than were measured [1/s]."""
    point, replicas = curve.points[-1], _replicas(curve, held)
    sizes = _sizes(point)
    if samples:
        variance = prior_variance(
            find_era(curve.held.era.name).known_of(point.model, accelerators()[point.accelerator])
        )
        found = correction(samples, sizes.inputs[0], sizes.outputs[0], variance)
        replicas = with_correction(replicas, found)
    return float(max_request_rate(replicas, point.model, sizes, {"tpot": limit_s})[0, 0, 0])


def _sizes(point: Point) -> Sizes:
    return Sizes(inputs=np.full((1, 1, 1), point.inputs), outputs=np.full((1, 1, 1), point.outputs))


def _case(name: str, rows: Rows) -> list[Case]:
    """A case with the sizes that all types share; none if fewer than two types with known prices are left."""
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
    """The closed form's rate for a point's size and replica type, without a server's front end [1/s]."""
    constants = replace(era.constants_for(point, held), t_stream_s=0.0)
    settings = replace(era.era, constants=constants).with_settings(max_context=10**9)
    replicas = replicas_of(point.model, [hardware_of(point)], accelerators(), settings)
    return float(max_request_rate(replicas, point.model, _sizes(point), {"tpot": limit_s})[0, 0, 0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Regrets:
    """Regret of every problem instance (N,), its size in replicas of the best type, and the name of its case.

    ``without``: number of problem instances without a plan from estimates.
    """

    mix: Array
    with_shares: Array
    as_rented: Array
    replicas: Array
    names: tuple[str, ...]
    without: int


def almost_known(found: Sequence[Case], seed: int = 11) -> list[Case]:
    """The same cases, with independent estimation errors of 5 % (standard deviation)."""
    random = np.random.default_rng(seed)
    return [
        replace(case, estimated=case.measured * np.exp(KNOWN_TO * random.standard_normal(case.measured.shape)))
        for case in found
    ]


def regrets(found: Sequence[Case], seed: int = 7) -> Regrets:
    """Regret of plans from estimates, over several workloads of every case."""
    random = np.random.default_rng(seed)
    rows, names, without = [], [], 0
    for case in found:
        for _ in range(INSTANCES_PER_CASE):
            shares = random.dirichlet(np.ones(case.measured.shape[1]))
            replicas = math.exp(random.uniform(*np.log(REPLICAS)))
            rate = shares * replicas / float((shares / case.measured.max(axis=0)).sum())
            costs = _costs(case, rate)
            if costs is None:
                without += 1
                continue
            rows.append([*costs, replicas])
            names.append(case.name)
    table = np.array(rows)
    return Regrets(
        mix=table[:, 0],
        with_shares=table[:, 1],
        as_rented=table[:, 2],
        replicas=table[:, 3],
        names=tuple(names),
        without=without,
    )


def _costs(case: Case, rate: Array) -> tuple[float, float, float] | None:
    """Regret of the mix, with its shares, and as rented; None if there is no plan from estimates."""
    best = _cost(case, rate, case.measured)
    planned = _cost(case, rate, np.where(case.measured > 0, case.estimated, 0.0))
    if best is None or planned is None:
        return None
    instances, share = planned
    again = _cost(case, rate, np.where((instances > 0)[:, None], case.measured, 0.0))
    needed = carrying(case, rate, share)
    counts = (needed if again is None else again[0], needed, np.maximum(instances, needed))
    mix, with_shares, as_rented = (
        float(one @ case.cost_per_h) / float(best[0] @ case.cost_per_h) - 1 for one in counts
    )
    return mix, with_shares, as_rented


def carrying(case: Case, rate: Array, share: Array) -> Array:
    """Instances that each type needs for its share with measured capacities (R,)."""
    load = np.where(share > 0, share * rate / np.maximum(case.measured, 1e-12), 0.0).sum(axis=1)
    return np.ceil(load - MARKUP)


def _cost(case: Case, rate: Array, capacity: Array) -> tuple[Array, Array] | None:
    """Instances (R,) and shares (R, B) of the cheapest plan; None if there is none."""
    try:
        plan = solve(question_of(case, rate, capacity, Options(headroom=0.0)))
    except InfeasibleError:
        return None
    return plan.instances.astype(float), plan.share[:, :, 0]


def question_of(case: Case, rate: Array, capacity: Array, options: Options) -> Question:
    """The planning problem for rates by size (B,) and capacities (R, B) [1/s]."""
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
    profile = measured_profile(types, buckets, capacity[:, :, None])
    return Question(workload=workload, profile=profile, options=options)


def main() -> None:
    """Hold out points, print the table on shortage, and write it with ``--write``."""
    from calibrate import FITTED, hold_out
    from measured import read_points
    from pages import with_shortage
    from shortage import shortage_table

    parser = parser_of(__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write the table into docs/validation.md")
    arguments = parser.parse_args()
    if is_missing(arguments.measured):
        return
    points = {name: read_points(arguments.measured, name).points for name in FITTED}
    all_held = hold_out({name: find_era(name) for name in FITTED}, points)
    found = shortage_table(
        {f"{held} held out": cases(all_held.values(), held) for held in ("accelerator", "model")}, arguments.seed
    )
    print(found)
    if arguments.write:
        path = Path(__file__).parents[1] / "docs" / "validation.md"
        path.write_text(with_shortage(path.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
