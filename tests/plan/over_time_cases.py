"""Small schedules with known answers, and what carries traffic by other means than the package's."""

from __future__ import annotations

import itertools

import numpy as np
from plan_cases import offer, profile

from melange.plan.options import Options
from melange.plan.schedule.contracts import Reserved, Spot
from melange.plan.schedule.machines import Machines, machines_of
from melange.profile.profile import Profile
from melange.workload.demand import Demand
from melange.workload.workload import Buckets


def two_types(seed: int, sizes: int = 2) -> tuple[Profile, np.ndarray]:
    """Two types with random prices and rates, and the traffic of two hours (2, sizes)."""
    random = np.random.default_rng(seed)
    rates = random.uniform(0.5, 4.0, (2, 1, sizes)) * random.uniform(0.5, 3.0, (2, 1, 1))
    if seed % 3 == 0:
        rates[1, 0, 0] = 0.0  # a size that only the first type serves
    prices = np.round(random.uniform(0.5, 4.0, 2), 2)
    offers = [offer(f"t{r}", float(price), int(random.integers(1, 3))) for r, price in enumerate(prices)]
    return profile(offers, rates), random.uniform(0.1, 3.0, (2, sizes)) * random.uniform(0.3, 2.0, (2, 1))


def machines(
    found: Profile, traffic: np.ndarray, reserved: Reserved | None, spot: Spot | None = None, **options: object
) -> Machines:
    """The machines of a profile for some traffic (H, B)."""
    return machines_of(found, traffic.sum(axis=0), Options(**options), reserved, spot)[0]


def carries(found: Machines, rates: np.ndarray, fleet: np.ndarray) -> bool:
    """Whether a fleet of two types carries rates (B,): sizes go to the first where it is better."""
    capacity = found.capacity * fleet
    speed = found.max_request_rate
    if len(found) == 1:
        return bool((rates / speed[0]).sum() <= capacity[0] * (1 + 1e-9))
    only_first = speed[1] <= 0
    room = capacity[0] - (rates[only_first] / speed[0, only_first]).sum()
    rest = np.flatnonzero(~only_first)
    only_second = [b for b in rest if speed[0, b] <= 0]
    both = sorted((b for b in rest if speed[0, b] > 0), key=lambda b: -speed[0, b] / speed[1, b])
    if room < -1e-9:
        return False
    second = sum(rates[b] / speed[1, b] for b in only_second)
    for b in both:
        part = min(1.0, max(0.0, room) / (rates[b] / speed[0, b]))
        room -= part * rates[b] / speed[0, b]
        second += (1 - part) * rates[b] / speed[1, b]
    return bool(second <= capacity[1] * (1 + 1e-9))


def enumerated(found: Machines, rates: np.ndarray, most: int = 7) -> float:
    """The least cost of two types reserved and on demand over some hours, every count up to ``most`` tried [USD/h]."""
    counts = [np.array(one, float) for one in itertools.product(range(most + 1), repeat=len(found))]
    enough = [[carries(found, hour, fleet) for fleet in counts] for hour in rates]
    best = np.inf
    for held in counts:
        if (held > 0)[~np.isfinite(found.reserved_per_h)].any():
            continue
        total = float(held @ np.where(held > 0, found.reserved_per_h, 0.0))
        for hour in range(len(rates)):
            total += min(
                (
                    float((fleet - held) @ found.on_demand_per_h) / len(rates)
                    for fleet, fits in zip(counts, enough[hour], strict=True)
                    if fits and (fleet >= held).all()
                ),
                default=np.inf,
            )
        best = min(best, total)
    return best


def weekly_demand(
    seed: int = 0, weeks: int = 1, rate: float = 6.0, drift: float = 0.0, window_s: float = 600.0
) -> Demand:
    """Traffic with a cycle of days, noise, and sizes that change over the day; from the second week on it grows."""
    random = np.random.default_rng(seed)
    windows = round(weeks * 7 * 24 * 3600 / window_s)
    hour = np.arange(windows) * window_s / 3600
    shape = 1 + 0.6 * np.sin(2 * np.pi * (hour - 8) / 24) + 0.15 * random.standard_normal(windows)
    shape *= 1 + drift * (hour // (7 * 24))
    periods = windows * round(window_s) // 3600
    long = 0.25 + 0.2 * np.sin(2 * np.pi * np.arange(periods) / 24)
    return Demand(
        buckets=Buckets.ordinal(1, 2),
        window_s=window_s,
        rate=rate * np.maximum(shape, 0.05),
        period=(hour // 1).astype(int),
        share=np.stack([1 - long, long], axis=1)[:, None, :],
        input_tokens=np.ones((1, 2)),
        output_tokens=np.ones((1, 2)),
    )


def three_types() -> Profile:
    """A small type that is bad at the second size, a large one, and one with two replicas an instance."""
    offers = [offer("small", 1.0), offer("large", 3.7), offer("pair", 5.0, 2)]
    return profile(offers, [[[1.0, 0.15]], [[3.4, 1.9]], [[2.6, 1.2]]])
