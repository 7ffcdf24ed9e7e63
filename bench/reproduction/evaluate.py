"""Plans, counts, savings and winners in the paper's setting."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melange.plan.options import Options
from melange.plan.solve import solve
from melange.profile.profile import Profile
from melange.workload.workload import Workload
from reproduction.setting import RATES, SLICES, Case, workload_of

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LEAST_SERVED = 0.95  # a type that serves a smaller share of the requests is not compared
ROUNDING = 1e-9


@dataclass(frozen=True)
class Answer:
    """Results for one rate: fleet and cost of the mix, and count and cost of every compared single type."""

    rate: float
    fleet: dict[str, int]
    cost_per_h: float
    is_proven: bool
    count: dict[str, int]
    single_cost_per_h: dict[str, float]

    @property
    def savings(self) -> dict[str, float]:
        """Savings of the mix against each single type, 0-1."""
        return {name: 1 - self.cost_per_h / cost for name, cost in self.single_cost_per_h.items()}


@dataclass(frozen=True)
class Result:
    """Results for one workload under one limit.

    The compared types, the share of requests left out, the load of 1 request/s by type, the lowest cost of 1 request/s
    by type and of any mix with fractional replicas [USD/h], and the results by rate.
    """

    case: Case
    limit_ms: int
    compared: tuple[str, ...]
    left_out: float
    load: dict[str, float]
    divided_per_h: dict[str, float]
    divided_mix_per_h: float
    answers: tuple[Answer, ...]

    @property
    def most_saved_at_high_rates(self) -> float:
        """Largest saving of any mix against the cheapest compared type if rounding to whole replicas is negligible."""
        return 1 - self.divided_mix_per_h / min(self.divided_per_h[name] for name in self.compared)

    @property
    def savings_pct(self) -> tuple[float, float]:
        """Lowest and highest saving over rates and compared types [%]."""
        values = [saving for answer in self.answers for saving in answer.savings.values()]
        return 100 * min(values), 100 * max(values)


def names_of(profile: Profile) -> list[str]:
    """Accelerators of a profile's replica types."""
    return [one.offer.accelerator for one in profile.replica_types]


def price_of(profile: Profile) -> dict[str, float]:
    """Price of each type by accelerator [USD/h]."""
    return {one.offer.accelerator: one.cost_per_h for one in profile.replica_types}


def served_share(profile: Profile, case: Case) -> dict[str, float]:
    """Share of the requests whose size each type serves."""
    rates = profile.max_request_rate
    return {name: float(case.request_share[rates[r] > 0].sum()) for r, name in enumerate(names_of(profile))}


def compared_types(profile: Profile, case: Case) -> tuple[str, ...]:
    """The types that the paper compares with, if they serve nearly all of the requests."""
    share = served_share(profile, case)
    return tuple(name for name in case.compared if share.get(name, 0.0) >= LEAST_SERVED)


def kept_sizes(profile: Profile, compared: tuple[str, ...]) -> Mask:
    """Sizes that every compared type serves (I, O): all plans are for the same requests."""
    rates = dict(zip(names_of(profile), profile.max_request_rate, strict=True))
    kept: Mask = np.logical_and.reduce([rates[name] > 0 for name in compared])
    return kept


def load_of(rate: Array, workload: Workload) -> float:
    """Replicas that a workload needs without rounding; infinite if a size cannot be served."""
    arrives = workload.request_rate > 0
    with np.errstate(divide="ignore"):
        return float((workload.request_rate[arrives] / rate[arrives]).sum())


def count_of(load: float) -> int:
    """Whole replicas for a load."""
    return math.ceil(load - ROUNDING * max(load, 1.0))


def run_case(profile: Profile, case: Case, limit_ms: int, rates: tuple[int, ...] = RATES) -> Result:
    """Plan a case at every rate, without headroom, with the paper's slices."""
    compared = compared_types(profile, case)
    kept = kept_sizes(profile, compared)
    one = workload_of(case.request_share, 1.0, kept)
    load = {name: load_of(rate, one) for name, rate in zip(names_of(profile), profile.max_request_rate, strict=True)}
    return Result(
        case=case,
        limit_ms=limit_ms,
        compared=compared,
        left_out=float(case.request_share[~kept].sum()),
        load=load,
        divided_per_h={name: price * load[name] for name, price in price_of(profile).items()},
        divided_mix_per_h=divided_mix(profile, one),
        answers=tuple(answer_for(profile, one, rate, {name: load[name] for name in compared}) for rate in rates),
    )


def divided_mix(profile: Profile, workload: Workload) -> float:
    """Cost with every size on its cheapest type and fractional replicas, a lower bound for all plans [USD/h]."""
    price = np.array([one.cost_per_h for one in profile.replica_types])
    arrives = workload.request_rate > 0
    with np.errstate(divide="ignore"):
        cost = price[:, None] / profile.max_request_rate[:, arrives]
    return float((workload.request_rate[arrives] * cost.min(axis=0)).sum())


def answer_for(profile: Profile, one: Workload, rate: float, load: dict[str, float]) -> Answer:
    """The mix and the single types at one rate."""
    plan = solve(one.at_rate(rate), profile, Options(headroom=0.0, slices=SLICES, gap=0.0, time_limit_s=10.0))
    price = price_of(profile)
    count = {name: count_of(rate * value) for name, value in load.items()}
    return Answer(
        rate=rate,
        fleet={name: int(n) for name, n in zip(names_of(profile), plan.instances, strict=True)},
        cost_per_h=plan.cost_per_h,
        is_proven=plan.gap == 0.0,
        count=count,
        single_cost_per_h={name: n * price[name] for name, n in count.items()},
    )


def carried(profile: Profile, workload: Workload, fleet: dict[str, int]) -> float:
    """Largest share of a workload that a given fleet can carry, 0-1."""
    named = dict(zip([one.name for one in profile.replica_types], names_of(profile), strict=True))
    price = {one.name: one.cost_per_h for one in profile.replica_types}
    limits = {name: fleet[accelerator] for name, accelerator in named.items()}
    budget = sum(price[name] * count for name, count in limits.items())
    options = Options(headroom=0.0, max_instances=limits, budget_per_h=budget * (1 + ROUNDING), gap=1e-6)
    return solve(workload, profile, options).served_fraction


def margins(profile: Profile, sizes: list[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """Tokens per dollar of the A100 over the A10G by size; infinite if the A10G cannot serve the size."""
    rows = dict(zip(names_of(profile), range(len(profile.replica_types)), strict=True))
    efficiency = {
        name: profile.max_request_rate[rows[name]] / profile.replica_types[rows[name]].cost_per_h
        for name in ("A10G", "A100-80GB")
    }
    edges = profile.buckets
    found = {}
    for i, o in sizes:
        at = edges.input_edges.index(i), edges.output_edges.index(o)
        cheap = efficiency["A10G"][at]
        found[i, o] = float(efficiency["A100-80GB"][at] / cheap) if cheap > 0 else math.inf
    return found


def same_winner(ours: dict[tuple[int, int], float], theirs: dict[tuple[int, int], float]) -> list[tuple[int, int]]:
    """Sizes at which the same type wins."""
    return [size for size in theirs if (ours[size] > 1) == (theirs[size] > 1)]
