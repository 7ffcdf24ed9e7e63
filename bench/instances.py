"""Random planning problems for measuring solvers, with capacities similar to those of real accelerators.

A type has memory, bandwidth, arithmetic rate and a price. Its capacity follows from one engine step of a 7B model (the
longer of reading weights and arithmetic, reading the KV cache, and a fixed time) under a limit of 120 ms per token and
the memory left for the KV cache. As with real accelerators, small ones are the cheapest for small requests and cannot
serve large ones, and types of the same class are nearly equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.catalog.catalog import Offer
from melange.plan.options import Options
from melange.profile.profile import Profile, ReplicaType
from melange.workload.workload import Buckets, Workload

WEIGHT_BYTES, KV_BYTES, PARAMETERS = 13.5e9, 0.5e6, 6.7e9
TPOT_LIMIT_S, STEP_S = 0.12, 0.003

# Spread of prices around a price by speed: independent offers, and offers of one market.
SPREAD_BY_FAMILY = {"mixed": 0.25, "near-equal": 0.03}


@dataclass(frozen=True)
class Instance:
    """A workload and a profile, and the name of their family."""

    name: str
    workload: Workload
    profile: Profile


def draw(inputs: int, outputs: int, types: int, *, replicas: float, family: str, seed: int) -> Instance:
    """A random instance of ``inputs`` x ``outputs`` buckets whose cheapest fleet has about ``replicas`` replicas."""
    rng = np.random.default_rng(seed)
    buckets = Buckets(input_edges=_edges(25, 16000, inputs), output_edges=_edges(25, 2000, outputs))
    sizes = buckets.upper_sizes()
    rates, prices = _types(rng, types, sizes, SPREAD_BY_FAMILY[family])
    weight = rng.gamma(0.7, size=buckets.shape) + 1e-4
    weight *= np.exp(-0.5 * ((np.log(sizes[0]) - 6.0) ** 2 + (np.log(sizes[1]) - 5.0) ** 2) / 2.0)
    with np.errstate(divide="ignore"):
        load = np.where(rates > 0, weight / rates, np.inf)
    best = np.argmin(load * prices[:, None, None], axis=0)
    busy = np.take_along_axis(load, best[None], axis=0).sum()
    offers = [
        Offer(provider="", region="", instance_type=f"t{r}", accelerator=f"t{r}", accelerators=1, cost_per_h=price)
        for r, price in enumerate(prices)
    ]
    profile = Profile(
        replica_types=tuple(ReplicaType(name=offer.instance_type, offer=offer) for offer in offers),
        buckets=buckets,
        max_request_rate=rates,
        low=rates,
        high=rates,
        provenance=np.zeros(rates.shape, np.int8),
        reason=np.zeros(rates.shape, np.int32),
    )
    workload = Workload.at_upper_edges(buckets, weight * replicas / busy)
    return Instance(name=f"{family}, about {replicas:g} replicas", workload=workload, profile=profile)


def options(*, gap: float = 0.0, slices: int | None = None, time_limit_s: float = 30.0) -> Options:
    """The settings of the comparison: no headroom, as in the paper."""
    return Options(headroom=0.0, gap=gap, slices=slices, time_limit_s=time_limit_s)


def _edges(low: int, high: int, count: int) -> tuple[int, ...]:
    return tuple(int(edge) for edge in np.round(np.geomspace(low, high, count)))


def _types(
    rng: np.random.Generator, types: int, sizes: tuple[np.ndarray, np.ndarray], spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Capacities (R, I, O) and prices (R,) of random types; the first serves every bucket."""
    scale = rng.uniform(0.0, 1.0, types)
    scale[0] = 1.0
    bandwidth = 0.3e12 * 11.0**scale * rng.lognormal(0, 0.25, types)
    flops = 0.6 * 70e12 * 14.0**scale * rng.lognormal(0, 0.3, types)
    memory = 24e9 * 2.0 ** np.round(3.0 * np.clip(scale + rng.normal(0, 0.1, types), 0, 1))
    memory[0], bandwidth[0], flops[0] = 192e9, max(bandwidth[0], 2e12), max(flops[0], 3e14)
    rates = np.array([_capacity(*spec, *sizes) for spec in zip(bandwidth, flops, memory, strict=True)])
    worth = (bandwidth / 1e12) ** 0.5 * (flops / 1e14) ** 0.4
    prices = np.round(np.maximum(1.4 * worth * rng.lognormal(0, spread, types), 0.05), 2)
    return rates, prices


def _capacity(bandwidth: float, flops: float, memory: float, inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Maximum request rate by size (I, O), at the best batch size that meets the limit and whose KV cache fits."""
    batch = np.unique(np.round(np.geomspace(1, 256, 40)))[:, None, None]
    slots = max(0.0, 0.9 * memory - WEIGHT_BYTES) / KV_BYTES
    step = np.maximum(WEIGHT_BYTES / (0.8 * bandwidth), 2 * PARAMETERS * batch * (1 + inputs / outputs) / flops)
    step = step + KV_BYTES * batch * (inputs + outputs / 2) / (0.6 * bandwidth) + STEP_S
    fits = (step <= TPOT_LIMIT_S) & (batch * (inputs + outputs / 2) <= slots) & (inputs + outputs <= slots)
    return np.where(fits, batch / (outputs * step), 0.0).max(axis=0)
