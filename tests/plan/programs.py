"""Random planning programs with every option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from melange.catalog.offer import Offer
from melange.plan.options import Options
from melange.profile.profile import Profile, ReplicaType
from melange.workload.workload import Buckets, Workload


@dataclass(frozen=True)
class Program:
    """What is planned for: L is rate over max request rate (R, B), infinite where a type cannot serve a size."""

    workload: Workload
    profile: Profile
    options: Options

    @property
    def load(self) -> np.ndarray:
        """Replicas that a size keeps busy on a type that takes all of it (R, B), of sizes with traffic."""
        rate = self.workload.request_rate.ravel()
        served = self.profile.max_request_rate.reshape(len(self.profile.replica_types), -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (rate / served)[:, rate > 0]


def draw(seed: int) -> Program:
    """A random program; about a third have limits that bind hard, and a few have no plan."""
    rng = np.random.default_rng(seed)
    types, inputs, outputs = int(rng.integers(1, 7)), int(rng.integers(1, 4)), int(rng.integers(1, 5))
    buckets = Buckets.ordinal(inputs, outputs)
    served = rng.lognormal(0.5, 0.8, (types, inputs, outputs)) * rng.lognormal(0, 0.5, (types, 1, 1))
    served[rng.random(served.shape) < rng.choice([0.0, 0.2, 0.4])] = 0.0
    served[0] = np.where(served[0] > 0, served[0], 1.0) if rng.random() < 0.9 else served[0]
    # Tiny rates beside large ones, and round figures that fit exactly.
    rate = rng.lognormal(0, rng.choice([0.5, 2.0, 6.0]), buckets.shape) * rng.choice([0.1, 1.0, 5.0])
    if rng.random() < 0.3:
        rate[rng.random(rate.shape) < 0.4] *= 10.0 ** -rng.integers(4, 13)
    rate[rng.random(rate.shape) < 0.1] = 0.0
    if not rate.any():
        rate[0, 0] = 1.0
    if rng.random() < 0.2:
        served, rate = np.ceil(served), np.ceil(rate)
    rate *= min(1.0, 60.0 / max(1e-9, _floor(rate, served)))
    rate *= max(1.0, 1e-8 / rate.sum())
    prices = np.round(rng.uniform(0.3, 4.0, types), int(rng.choice([0, 1, 2]))).clip(0.1)
    counts = rng.choice([1, 1, 1, 2, 4, 8], types)
    cards = [f"g{rng.integers(0, 3)}" for _ in range(types)]
    replica_types = tuple(
        ReplicaType(
            name=f"t{r}",
            tensor_parallel=int(rng.choice([1, counts[r]])),
            offer=Offer(
                provider="p", region="r", instance_type=f"i{r}", accelerator=cards[r], accelerators=int(counts[r]),
                cost_per_h=float(prices[r] * counts[r] ** rng.choice([0.9, 1.0])),
                max_instances=int(rng.integers(0, 8)) if rng.random() < 0.15 else None,
            ),
        )
        for r in range(types)
    )  # fmt: skip
    profile = Profile(
        replica_types=replica_types,
        buckets=buckets,
        max_request_rate=served,
        low=served,
        high=served,
        provenance=np.zeros(served.shape, np.int8),
        reason=np.zeros(served.shape, np.int32),
    )
    return Program(Workload.at_upper_edges(buckets, rate), profile, _options(rng, replica_types))


def _floor(rate: np.ndarray, served: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.where(rate > 0, rate / served, 0.0).min(axis=0)
    return float(least[np.isfinite(least)].sum())


def _options(rng: np.random.Generator, items: tuple[ReplicaType, ...]) -> Options:
    names = [one.name for one in items]
    asked: dict[str, Any] = {"headroom": float(rng.choice([0.0, 0.1, 0.25])), "gap": 0.0, "time_limit_s": 20.0}
    chance = lambda share: rng.random() < share  # noqa: E731
    if chance(0.35):
        asked["slices"] = int(rng.choice([1, 2, 3, 4, 8]))
    if chance(0.3):
        asked["spare_total_replicas"] = int(rng.integers(1, 4))
    if chance(0.2):
        asked["spare_replicas"] = int(rng.integers(1, 3)) if chance(0.5) else {str(rng.choice(names)): 1}
    if chance(0.2):
        asked["min_replicas"] = int(rng.integers(0, 4)) if chance(0.5) else {str(rng.choice(names)): 3}
    if chance(0.15):
        asked["min_total_replicas"] = int(rng.integers(1, 12))
    if chance(0.2):
        asked["max_types"] = int(rng.integers(1, 4))
    if chance(0.15):
        asked["require"] = (str(rng.choice([*names, items[0].offer.accelerator])),)
    if chance(0.1):
        others = set(names) - set(asked.get("require", ()))
        asked["exclude"] = (str(rng.choice(sorted(others))),) if others else ()
    if chance(0.2):
        asked["max_instances"] = {str(rng.choice([*names, items[0].offer.name])): int(rng.integers(0, 6))}
    if chance(0.2):
        asked["max_accelerators"] = {str(items[0].offer.accelerator): int(rng.integers(1, 20))}
    if chance(0.12):
        asked["budget_per_h"] = float(np.round(rng.uniform(1.0, 40.0), 2))
    return Options(**asked)
