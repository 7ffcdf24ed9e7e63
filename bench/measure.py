"""How near the search for the highest rate comes to a capacity that is known, and what it sends to find it.

The server is the simulator: requests of a load test are played out on an engine, without a client and in no time, so
that a search can be repeated with hundreds of seeds. What is known is the rate at which 40,000 requests hold the SLO.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "measure"))

from measuring import queue_engine, simulated_window

from melange.measure.load import Load
from melange.measure.point import Point, point_of
from melange.measure.search import Effort, Step, find_rate
from melange.measure.subject import latency_bound_s
from melange.measure.trial import try_rate
from melange.measure.window import Window
from melange.profile.engine import Engine
from melange.slo import Slo
from melange.validate.rates import statistics

SIZE = (512, 128)
SEEDS = 100
# A step of 20 ms, 0.5 ms more for each that runs, 0.04 ms for each prompt token: about an 8B model on a middling card.
PLAIN = queue_engine(20.0, 0.5)
ENGINE = replace(PLAIN, cost=replace(PLAIN.cost, token_s=4e-5), max_batched_tokens=2048, max_sequences=256)
CASES = (
    (Slo(tpot_s=0.05), Effort()),
    (Slo(tpot_s=0.05), Effort(requests=200, precision=0.03)),
    (Slo(ttft_s=0.12), Effort()),
    (Slo(tpot_s=0.05, statistic="p90"), Effort()),
    (Slo(tpot_s=0.05, statistic="p99"), Effort()),
    (Slo(tpot_s=0.2), Effort()),
)


def known_rate(engine: Engine, slo: Slo) -> float:
    """The highest rate that holds, by bisection over many requests; where none fails, what it ends [1/s]."""
    arrivals = np.cumsum(np.random.default_rng(11).exponential(size=40_000))
    low, high = 0.01, 1000.0
    while high > low * 1.005:
        middle = (low * high) ** 0.5
        values = statistics(engine, *SIZE, arrivals / middle, slo)
        holds = all(value <= slo.limits[metric] for metric, value in values.items())
        low, high = (middle, high) if holds else (low, middle)
    return low


def search(engine: Engine, slo: Slo, effort: Effort, seed: int) -> tuple[float, float, int, float]:
    """The rate that is found, the one that fails, requests that were sent, and how long that takes [1/s, 1/s, 1, s]."""
    sent, lasted_s = 0, 0.0

    async def send(load: Load) -> Window:
        nonlocal sent, lasted_s
        sent, lasted_s = sent + load.warm_up + load.counted, lasted_s + (load.warm_up + load.counted) / load.rate
        return simulated_window(engine, replace(load, seed=10_000 * seed + round(1000 * load.rate) + load.seed))

    async def probe(step: Step) -> Point:
        if step.rate is None:
            load = Load(
                input_tokens=SIZE[0],
                output_tokens=SIZE[1],
                rate=1e-3,
                warm_up=1,
                counted=effort.alone,
                patience_s=1.0,
            )
            return Point.from_json(point_of(simulated_window(engine, load), slo).to_json() | {"rate": None})
        return await try_rate(send, step, SIZE, slo, effort)

    found = asyncio.run(find_rate(probe, slo, effort=effort, bound_s=latency_bound_s(slo, SIZE[1])))
    return found.max_request_rate, found.failed_rate, sent, lasted_s


def main() -> None:
    """A line a case."""
    print(f"{SEEDS} searches each, requests of {SIZE[0]} tokens in and {SIZE[1]} out, without a guess to start from")
    print("rates as a share of the known one: 10 %, 50 % and 90 % of searches; known between found and failed + 5 %")
    for slo, effort in CASES:
        known = known_rate(ENGINE, slo)
        runs = [search(ENGINE, slo, effort, seed) for seed in range(SEEDS)]
        rates, fails, sent, lasted_s = (np.array(column) for column in zip(*runs, strict=True))
        low, middle, high = np.quantile(rates / known, [0.1, 0.5, 0.9])
        holds = np.mean((rates <= 1.05 * known) & (known <= 1.05 * fails))
        shares = f"{low:.2f} {middle:.2f} {high:.2f}"
        cost = f"{np.median(sent):,.0f} requests, {np.median(lasted_s) / 60:.0f} min"
        print(
            f"{slo!s:20} {effort.requests:4d} requests a test: known {known:5.2f}/s, found {shares}, "
            f"around it {holds:.0%}; {cost}"
        )


if __name__ == "__main__":
    main()
