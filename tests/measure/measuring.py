"""What the tests of the measure package share: servers as processes of their own, sessions, a subject."""

from __future__ import annotations

import asyncio
import contextlib
import math
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import TypeVar

import aiohttp
import numpy as np

from melange.measure.endpoint import Endpoint, connect
from melange.measure.load import Load, client_session
from melange.measure.lone_server import LoneServer, server_subject
from melange.measure.point import Point
from melange.measure.steps import EngineLimits
from melange.measure.subject import Subject
from melange.measure.window import Window
from melange.plan.options import Options
from melange.profile.percentiles import lone_replica
from melange.replica.engine import Engine
from melange.replica.policy import ROUND_ROBIN
from melange.replica.simulated.cluster import play
from melange.replica.step import StepCost
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

T = TypeVar("T")
NONE = np.zeros(0)
SERVER = Path(__file__).with_name("queue_server.py")


@contextlib.contextmanager
def queue_server(*flags: str) -> Iterator[str]:
    """The address of a server of its own process."""
    with subprocess.Popen([sys.executable, SERVER, *flags], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def measured(url: str, work: Callable[[aiohttp.ClientSession, Endpoint], Awaitable[T]]) -> T:
    """What becomes of work on a server that was connected to."""

    async def run() -> T:
        async with client_session() as session:
            return await work(session, await connect(session, url, patience_s=5.0))

    return asyncio.run(run())


def workload(
    rates: list[list[float]], inputs: tuple[int, ...] = (32, 64), outputs: tuple[int, ...] = (4, 8)
) -> Workload:
    """Requests a second by bucket."""
    return Workload.at_upper_edges(Buckets(input_edges=inputs, output_edges=outputs), np.array(rates))


def subject(slo: Slo, traffic: Workload, **options: object) -> Subject:
    """A server of which nothing is known."""
    server = LoneServer(name="queue", limits=EngineLimits(), cost_per_h=1.0)
    return server_subject(server, slo, traffic, Options(**options))


def queue_engine(fixed_ms: float, each_ms: float, slots: int = 1000) -> Engine:
    """The engine that the server is: a step takes so long, and so much longer for each request that runs."""
    terms = {one.name: 0.0 for one in fields(StepCost) if one.default is MISSING}
    cost = replace(StepCost(**(terms | {"window": math.inf})), host_s=fixed_ms / 1e3, sequence_s=each_ms / 1e3)
    return Engine(
        cost=cost,
        kv_tokens=2**40,
        full_layers=1,
        max_sequences=slots,
        max_batched_tokens=2**30,
        block_tokens=16,
        is_chunked=True,
        max_context=2**20,
        source="measured",
    )


def simulated_window(engine: Engine, load: Load) -> Window:
    """What a load test of that engine sees: requests played out on it, without a client and in no time."""
    arrival_s, count = load.times_s(), load.warm_up + load.counted
    size = (np.full(len(arrival_s), load.input_tokens), np.full(len(arrival_s), load.output_tokens))
    outcome = play([engine], lone_replica(), ROUND_ROBIN, arrival_s, *size)
    counted = slice(load.warm_up, count)
    ttft, latency = ((end - arrival_s)[counted] for end in (outcome.first_token_s, outcome.finish_s))
    begin_s, end_s = load.warm_up / load.rate, count / load.rate
    return Window(
        input_tokens=load.input_tokens,
        output_tokens=load.output_tokens,
        offered_rate=load.rate,
        scheduled_s=arrival_s[counted] - arrival_s[load.warm_up],
        ttft_s=ttft,
        tpot_s=(latency - ttft) / max(load.output_tokens - 1, 1),
        ntpot_s=latency / load.output_tokens,
        latency_s=latency,
        itl_s=NONE,
        lag_s=NONE,
        tick_lag_s=NONE,
        finished=int(((begin_s < outcome.finish_s) & (outcome.finish_s <= end_s)).sum()),
        span_s=end_s - begin_s,
    )


def load_point(
    rate: float | None, low: float, middle: float, high: float, *, metric: str = "tpot", **details: object
) -> Point:
    """A load point with its statistic over the limit, and the ends of the interval on that."""
    given = {"keeps_up": True, "is_client_late": False, "latency_s": 1.0} | details
    return Point(rate=rate, metric=metric, excess=middle, excess_low=low, excess_high=high, **given)
