"""Accuracy and cost of the search for the maximum rate, on simulated servers with known capacity.

The requests of a load test are simulated on an engine, without a client and without waiting, so that a search can be
repeated with hundreds of seeds. The known capacity is the highest rate at which 40,000 requests meet the SLO. The
coverage of the reported intervals is also checked on a second engine with other step times and sizes.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "measure"))

from measuring import queue_engine, simulated_window

from melange.measure.load import Load
from melange.measure.point import Point, point_of
from melange.measure.search import Effort, Found, Step, find_rate
from melange.measure.subject import latency_bound_s
from melange.measure.trial import try_rate
from melange.measure.window import Window
from melange.profile.percentiles import excess
from melange.replica.engine import Engine
from melange.slo import Slo
from melange.workload.workload import Array

SEEDS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An engine, and the size of its requests."""

    about: str
    engine: Engine
    size: tuple[int, int]


def server(fixed_ms: float, each_ms: float, prompt_ms: float, size: tuple[int, int]) -> Server:
    """A server with a fixed step time, plus a time per running request and per prompt token of the step."""
    plain = queue_engine(fixed_ms, each_ms)
    cost = replace(plain.cost, token_s=prompt_ms / 1e3)
    engine = replace(plain, cost=cost, max_batched_tokens=2048, max_sequences=256)
    about = f"step time {fixed_ms:g} ms + {each_ms:g} ms per running request + {prompt_ms:g} ms per prompt token"
    return Server(about=f"{about}; {size[0]} tokens in, {size[1]} out", engine=engine, size=size)


# Similar to an 8B model on a medium accelerator, and a faster one with long prompts and short completions.
MIDDLING, FAST = server(20.0, 0.5, 0.04, (512, 128)), server(8.0, 0.25, 0.01, (2048, 64))
CASES = (
    (MIDDLING, Slo(tpot_s=0.05, statistic="mean"), Effort()),
    (MIDDLING, Slo(tpot_s=0.05, statistic="mean"), Effort(requests=200, precision=0.03)),
    (MIDDLING, Slo(ttft_s=0.12, statistic="mean"), Effort()),
    (MIDDLING, Slo(tpot_s=0.05, statistic="p90"), Effort()),
    (MIDDLING, Slo(tpot_s=0.05, statistic="p99"), Effort()),
    (MIDDLING, Slo(ttft_s=0.4, tpot_s=0.05, attainment=0.9), Effort()),
    (MIDDLING, Slo(ttft_s=0.4, tpot_s=0.05), Effort()),
    (MIDDLING, Slo(tpot_s=0.2, statistic="mean"), Effort()),
    (FAST, Slo(tpot_s=0.03, statistic="mean"), Effort()),
    (FAST, Slo(latency_s=2.0, statistic="mean"), Effort()),
    (FAST, Slo(tpot_s=0.03, statistic="p95"), Effort()),
    (FAST, Slo(ttft_s=0.15, statistic="p90"), Effort()),
    (FAST, Slo(tpot_s=0.03, statistic="p99"), Effort()),
    (FAST, Slo(tpot_s=1.0, statistic="mean"), Effort()),
)


def known_rate(server: Server, slo: Slo) -> float:
    """The highest rate that meets the SLO, by bisection with many requests, at most 1000 [1/s]."""
    arrivals = np.cumsum(np.random.default_rng(11).exponential(size=40_000))
    low, high = 0.01, 1000.0
    while high > low * 1.005:
        middle = (low * high) ** 0.5
        _, over = excess(server.engine, *server.size, arrivals / middle, slo)
        low, high = (middle, high) if over <= 1 else (low, middle)
    return low


def search(server: Server, slo: Slo, effort: Effort, seed: int) -> tuple[Found, int, float]:
    """The result of a search, the number of requests sent, and the time for them [s]."""
    sent, lasted_s = 0, 0.0

    async def send(load: Load) -> Window:
        nonlocal sent, lasted_s
        sent, lasted_s = sent + load.warm_up + load.counted, lasted_s + (load.warm_up + load.counted) / load.rate
        return simulated_window(server.engine, replace(load, seed=10_000 * seed + round(1000 * load.rate) + load.seed))

    async def probe(step: Step) -> Point:
        if step.rate is None:
            load = Load(
                input_tokens=server.size[0],
                output_tokens=server.size[1],
                rate=1e-3,
                warm_up=1,
                counted=effort.alone,
                patience_s=1.0,
            )
            return Point.from_json(point_of(simulated_window(server.engine, load), slo).to_json() | {"rate": None})
        return await try_rate(send, step, server.size, slo, effort)

    bound_s = latency_bound_s(slo, server.size[1])
    return asyncio.run(find_rate(probe, slo, effort=effort, bound_s=bound_s)), sent, lasted_s


def main() -> None:
    """Print the results of each case."""
    print(f"{SEEDS} searches each, without an initial guess; 10 %, 50 % and 90 % quantiles of found / known rate")
    about = ""
    for server, slo, effort in CASES:
        if server.about != about:
            about = server.about
            print(f"\n{about}")
        known = known_rate(server, slo)
        founds, sent, lasted_s = zip(*(search(server, slo, effort, seed) for seed in range(SEEDS)), strict=True)
        rates, fails, low, high = (
            np.array([getattr(one, name) for one in founds]) / known
            for name in ("max_request_rate", "failed_rate", "low", "high")
        )
        print(
            f"{slo!s:22} {effort.counted(slo):4d} per test: known {known:5.2f}/s, found {_deciles(rates)}; "
            f"{np.median(sent):,.0f} requests, {np.median(lasted_s) / 60:.0f} min"
        )
        print(
            f"    known rate between passed and failed: {np.mean((rates <= 1) & (fails >= 1)):.0%}, in the interval: "
            f"{np.mean((low <= 1) & (high >= 1)):.0%}, below it: {np.mean(low > 1):.0%}, above it: "
            f"{np.mean(high < 1):.0%}; low end {_deciles(low)}, high end {_deciles(high)}"
        )


def _deciles(shares: Array) -> str:
    return " ".join(f"{value:.2f}" for value in np.quantile(shares, [0.1, 0.5, 0.9]))


if __name__ == "__main__":
    main()
