"""Draws the services of the benchmark: what is served, to whom, how fast, and what may be rented for it.

    python bench/services/draw.py --seed 1 --count 100 --out bench/out/services   # a service.yaml each

The same seed makes the same files, byte for byte, on the same catalog and the same estimates: service 7 of a seed does
not depend on how many are drawn. `melange plan` runs each of them. Nothing here has seen an answer of any planner.

Limits are drawn relative to what is possible. A request that has a replica for itself takes the least that it can; of
what requests take alone on the fastest offered type, the quantile at the service's own target is what any limit must
allow. A limit is a factor times that: from 1.3, where only the fastest types do, to what leaves room on the slowest
offered type. In one service of twenty one limit is below it, so that some requests miss it whatever is rented.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melange.catalog.bundled import models
from melange.catalog.catalog import load_catalog
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.profile.estimate import estimate
from melange.replica.alone import idle_times_s
from melange.replica.engine import Engine
from melange.replica.era import kind_of
from melange.replica.simulated.outcome import metrics_s
from melange.slo import Slo
from melange.validate.simulate import within_context
from melange.workload.arrivals import Arrivals, draw
from melange.workload.datasets import dataset, datasets
from melange.workload.workload import Workload

Array = npt.NDArray[np.float64]
Dataset = str | dict[str, float]

KINDS = {"dense": 0.6, "moe": 0.25, "latent": 0.15}
PARAMETERS = (1e9, 700e9)
RATES = (0.5, 500.0)
ATTAINMENTS = (0.9, 0.95, 0.99, 0.995)
LIMITS = {("ttft", "tpot"): 0.4, ("ntpot",): 0.25, ("latency",): 0.15, ("tpot",): 0.2}
MIXTURES, ALL_CLOUDS, CAPPED, FEW_TYPES, BEYOND = 0.4, 0.3, 0.15, 0.15, 0.05  # shares of the services
# A market with fewer accelerators leaves a planner nothing to choose.
LEAST_ACCELERATORS = 4
CAPS = (8, 16, 32, 64)
TYPES = (1, 2, 3)
# Factors on what requests take alone on the fastest type. The loosest limits leave half as much again on the slowest
# type, but are no tighter than 6 times the fastest and no looser than 30 times: beyond it every type meets every limit.
TIGHTEST, ROOM, LOOSEST = 1.3, 1.5, (6.0, 30.0)
# Where a limit is beyond reach, this many times the misses that the target allows are sure.
SURE_MISSES = (1.5, 6.0)
SAMPLE = 20_000  # requests whose times alone are looked at: a hundred lie beyond a target of 99.5 %
NO_LIMIT = Slo(latency_s=1e6)


@dataclass(frozen=True)
class Service:
    """One service: its name, the text of its file, and the share of its requests that can meet their limits at all."""

    name: str
    text: str
    reach: float


@dataclass(frozen=True)
class Alone:
    """What requests take with a replica for themselves (E, N) [s], by metric, on engines that hold every size."""

    times_s: dict[str, Array]

    def least_s(self, metric: str, share: float) -> tuple[float, float]:
        """What a share of the requests takes at most, on the fastest and on the slowest engine; inf if too few fit."""
        with np.errstate(invalid="ignore"):  # between two requests that do not fit
            by_engine = np.nan_to_num(np.quantile(self.times_s[metric], share, axis=1), nan=np.inf, posinf=np.inf)
        return float(by_engine.min()), float(by_engine.max())

    def reach(self, limits_s: dict[str, float]) -> float:
        """Share of requests that meet every limit alone on the engine that suits them best."""
        met = [self.times_s[metric] <= limit for metric, limit in limits_s.items()]
        return float(np.logical_and.reduce(met).any(axis=0).mean())


def services(seed: int, count: int) -> list[Service]:
    """The first services of a seed."""
    return [service(seed, place) for place in range(1, count + 1)]


def service(seed: int, place: int) -> Service:
    """One service of a seed."""
    random = np.random.default_rng([seed, place])
    data = _dataset(random)
    rate = _rounded(_between(random, *RATES))
    attainment = float(random.choice(ATTAINMENTS))
    workload = dataset(data, request_rate=rate)
    while True:  # until the market holds the model, and the model enough of these requests
        model, providers = _model(random), _providers(random)
        offers = load_catalog().select(providers=providers, markets=["on-demand"]).offers
        alone = _alone(model, offers, workload)
        if alone is not None and np.isfinite(alone.least_s("latency", attainment)[0]):
            break
    limits_s = _limits(random, alone, attainment)
    slo = {f"{metric}_ms": limit * 1e3 for metric, limit in limits_s.items()} | {"attainment": attainment}
    sections = {
        "model": model.name,
        "slo": slo,
        "workload": {"dataset": data, "rate": rate},
        "offers": ({"providers": providers} if providers else {}) | {"market": "on-demand"} | _caps(random, offers),
        "plan": {"max_types": int(random.choice(TYPES))} if random.random() < FEW_TYPES else {},
    }
    name, reach = f"{seed}-{place:03}", alone.reach(limits_s)
    about = f"{kind_of(model)}, {model.parameters() / 1e9:.1f} billion parameters"
    lines = [f"{key}: {_flow(value)}" for key, value in sections.items() if value]
    head = f"# Service {name}: {about}; alone on their best type {reach:.2%} of the requests meet the limits."
    return Service(name=name, text="\n".join([head, *lines]) + "\n", reach=reach)


def _dataset(random: np.random.Generator) -> Dataset:
    """A bundled data set, or a mixture of two."""
    names = list(datasets())
    if random.random() >= MIXTURES:
        return str(random.choice(names))
    first, second = random.choice(names, 2, replace=False)
    share = int(random.integers(1, 10))
    return {str(first): share / 10, str(second): (10 - share) / 10}


def _model(random: np.random.Generator) -> Model:
    """A model of some kind, of about some size; one of those alike."""
    known = _models(str(random.choice(list(KINDS), p=list(KINDS.values()))))
    size = _between(random, *PARAMETERS)
    nearest = min(known, key=lambda one: abs(math.log(one.parameters() / size))).parameters()
    alike = [one for one in known if one.parameters() == nearest]
    return alike[int(random.integers(len(alike)))]


@cache
def _models(kind: str) -> tuple[Model, ...]:
    """The bundled models of a kind, one of those that differ in nothing but their name."""
    least, most = PARAMETERS
    by_shape = {
        (one.parameters(), one.weight_dtype, one.max_context): one
        for one in models().values()
        if kind_of(one) == kind and least <= one.parameters() <= most
    }
    return tuple(by_shape.values())


def _providers(random: np.random.Generator) -> list[str]:
    """One cloud; none: all of them."""
    if random.random() < ALL_CLOUDS:
        return []
    offers = load_catalog().select(markets=["on-demand"]).offers
    cards: dict[str, set[str]] = {}
    for offer in offers:
        cards.setdefault(offer.provider, set()).add(offer.accelerator)
    return [str(random.choice(sorted(name for name, held in cards.items() if len(held) >= LEAST_ACCELERATORS)))]


def _alone(model: Model, offers: Sequence[Offer], workload: Workload) -> Alone | None:
    """What its requests take alone on each offered engine that holds all of them; None where there are none."""
    profile = estimate(model, offers, NO_LIMIT, workload)
    able = (profile.max_request_rate > 0)[:, workload.request_rate > 0].all(axis=1)
    engines = list(dict.fromkeys(profile.engines[r] for r in np.flatnonzero(able)))
    if not engines:
        return None
    requests = draw(workload, SAMPLE, seed=0)
    longest = max(engine.max_context for engine in engines if engine)
    if int(requests.input_tokens.max()) >= longest:
        return None
    tables = [times_alone_s(engine, within_context(requests, longest)) for engine in engines if engine]
    return Alone(times_s={metric: np.array([table[metric] for table in tables]) for metric in tables[0]})


def times_alone_s(engine: Engine, requests: Arrivals) -> dict[str, Array]:
    """Each metric of requests with a replica for themselves (N,) [s]; infinite where its KV cache cannot hold one."""
    inputs, outputs = requests.input_tokens.astype(float), requests.output_tokens.astype(float)
    ttft, latency = idle_times_s(engine, inputs, outputs, np.zeros(len(inputs)))
    whole = inputs + outputs + engine.block_tokens
    held = engine.full_layers * whole + engine.sliding_layers * np.minimum(whole, engine.window)
    fits = held <= engine.kv_tokens
    return {metric: np.where(fits, values, np.inf) for metric, values in metrics_s(ttft, latency, outputs).items()}


def _limits(random: np.random.Generator, alone: Alone, attainment: float) -> dict[str, float]:
    """The limits of a service [s], to two figures."""
    metrics = list(LIMITS)[int(random.choice(len(LIMITS), p=list(LIMITS.values())))]
    limits = {}
    for metric in metrics:
        fastest, slowest = alone.least_s(metric, attainment)
        loosest = float(np.clip(ROOM * slowest / fastest, *LOOSEST))
        limits[metric] = fastest * _between(random, TIGHTEST, loosest)
    if random.random() < BEYOND and metrics != ("tpot",):  # alone, all requests take about the same time per token
        missed = (1 - attainment) * random.uniform(*SURE_MISSES)
        limits[metrics[0]] = alone.least_s(metrics[0], 1 - missed)[0]
    return {metric: _rounded(limit) for metric, limit in limits.items()}


def _caps(random: np.random.Generator, offers: Sequence[Offer]) -> dict[str, dict[str, int]]:
    """What is really available of one accelerator, in some services."""
    if random.random() >= CAPPED:
        return {}
    name = str(random.choice(sorted({offer.accelerator for offer in offers})))
    return {"max": {name: int(random.choice(CAPS))}}


def _between(random: np.random.Generator, low: float, high: float) -> float:
    """A number between two, by its logarithm."""
    return math.exp(random.uniform(math.log(low), math.log(high)))


def _rounded(value: float) -> float:
    """To two figures, as a person would write it."""
    return float(f"{value:.2g}")


def _flow(value: object) -> str:
    """A value as YAML writes it on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the whole set")
    parser.add_argument("--count", type=int, default=100, help="services")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for one in services(given.seed, given.count):
        (given.out / f"{one.name}.yaml").write_text(one.text, encoding="utf-8")


if __name__ == "__main__":
    main()
