"""Draw the random services of the benchmark: model, workload, SLO and offers.

    python bench/services/draw.py --seed 1 --count 100 --out bench/out/services   # a service.yaml each

The same seed gives the same files, byte for byte, with the same catalog and estimates: service 7 of a seed does not
depend on the number of services. `melange plan` runs each of them. The draw does not use results of any planner.

Limits are drawn relative to the feasible minimum. A request is fastest alone on a replica. The minimum for a limit is
the quantile, at the service's target, of the requests' times alone on the fastest offered type. A limit is a multiple
of it: from 1.3, which only the fastest types can meet, to a value with some margin on the slowest offered type. In one
of twenty services, one limit is below the minimum, so that some requests miss it on any fleet.
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
# Factors on the times of requests alone on the fastest type. The loosest limit is 1.5 times the time on the slowest
# type, but 6 to 30 times that on the fastest: with more, every type would meet every limit.
TIGHTEST, ROOM, LOOSEST = 1.3, 1.5, (6.0, 30.0)
# If a limit is infeasible, the unavoidable misses are this multiple of the misses that the target allows.
SURE_MISSES = (1.5, 6.0)
SAMPLE = 20_000  # requests for the distribution of times alone: a hundred are beyond a target of 99.5 %
NO_LIMIT = Slo(latency_s=1e6)


@dataclass(frozen=True)
class Service:
    """One service: its name, the text of its file, and the share of its requests that some type can serve in time."""

    name: str
    text: str
    reach: float


@dataclass(frozen=True)
class Alone:
    """Times of requests alone on a replica (E, N) [s], by metric, for engines that can serve every size."""

    times_s: dict[str, Array]

    def least_s(self, metric: str, share: float) -> tuple[float, float]:
        """The quantile of a metric at this share, on the fastest and on the slowest engine; inf if too few fit [s]."""
        with np.errstate(invalid="ignore"):  # interpolation between two requests that do not fit
            by_engine = np.nan_to_num(np.quantile(self.times_s[metric], share, axis=1), nan=np.inf, posinf=np.inf)
        return float(by_engine.min()), float(by_engine.max())

    def reach(self, limits_s: dict[str, float]) -> float:
        """Share of requests that meet every limit alone on the best engine for each."""
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
    while True:  # until some offer fits the model, and the model can serve enough of the requests
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
    """A model of a random kind and about a random size; a random one of those with the same size."""
    known = _models(str(random.choice(list(KINDS), p=list(KINDS.values()))))
    size = _between(random, *PARAMETERS)
    nearest = min(known, key=lambda one: abs(math.log(one.parameters() / size))).parameters()
    alike = [one for one in known if one.parameters() == nearest]
    return alike[int(random.integers(len(alike)))]


@cache
def _models(kind: str) -> tuple[Model, ...]:
    """The bundled models of a kind, with one of those that differ only in name."""
    least, most = PARAMETERS
    by_shape = {
        (one.parameters(), one.weight_dtype, one.max_context): one
        for one in models().values()
        if kind_of(one) == kind and least <= one.parameters() <= most
    }
    return tuple(by_shape.values())


def _providers(random: np.random.Generator) -> list[str]:
    """A random cloud; empty: all clouds."""
    if random.random() < ALL_CLOUDS:
        return []
    offers = load_catalog().select(markets=["on-demand"]).offers
    cards: dict[str, set[str]] = {}
    for offer in offers:
        cards.setdefault(offer.provider, set()).add(offer.accelerator)
    return [str(random.choice(sorted(name for name, held in cards.items() if len(held) >= LEAST_ACCELERATORS)))]


def _alone(model: Model, offers: Sequence[Offer], workload: Workload) -> Alone | None:
    """Times of the requests alone on each offered engine that can serve all of them; None if there is none."""
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
    """Each metric of requests alone on a replica (N,) [s]; infinite for requests that do not fit in its KV cache."""
    inputs, outputs = requests.input_tokens.astype(float), requests.output_tokens.astype(float)
    ttft, latency = idle_times_s(engine, inputs, outputs, np.zeros(len(inputs)))
    whole = inputs + outputs + engine.block_tokens
    held = engine.full_layers * whole + engine.sliding_layers * np.minimum(whole, engine.window)
    fits = held <= engine.kv_tokens
    return {metric: np.where(fits, values, np.inf) for metric, values in metrics_s(ttft, latency, outputs).items()}


def _limits(random: np.random.Generator, alone: Alone, attainment: float) -> dict[str, float]:
    """The limits of a service [s], rounded to two significant digits."""
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
    """A limit on the number of one accelerator, in some services."""
    if random.random() >= CAPPED:
        return {}
    name = str(random.choice(sorted({offer.accelerator for offer in offers})))
    return {"max": {name: int(random.choice(CAPS))}}


def _between(random: np.random.Generator, low: float, high: float) -> float:
    """A log-uniform random number between two values."""
    return math.exp(random.uniform(math.log(low), math.log(high)))


def _rounded(value: float) -> float:
    """The value rounded to two significant digits, as in a file written by hand."""
    return float(f"{value:.2g}")


def _flow(value: object) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="seed of the whole set")
    parser.add_argument("--count", type=int, default=100, help="number of services")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for one in services(given.seed, given.count):
        (given.out / f"{one.name}.yaml").write_text(one.text, encoding="utf-8")


if __name__ == "__main__":
    main()
