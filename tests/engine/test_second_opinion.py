"""Whether load tests are right: aiperf measures the same server and finds the same; others' results are read."""

import asyncio
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from engine_servers import Server
from mixed_load import poisson, send_all, span_s
from second_opinion import by_aiperf, by_vllm

from melange.measure.endpoint import connect
from melange.measure.load import Load, client_session, send_at_rate
from melange.profile.measurement import Measurement

SIZE = (128, 32)
# Rates, as parts of what the server finishes when all comes at once, and how long each lasts.
PARTS, WINDOW_S, LEAST = (0.3, 0.6), 6.0, 80
FLOOD = 150
# Two tools find the same where their medians differ by no more than one and the same tool's runs do, or by FLOOR; by
# CEILING at most, however much neighbors make runs differ. Rounds are added until it is so, to tell chance from bias.
FLOOR, CEILING = 0.05, {"all at once": 0.15, "within a TPOT": 0.25}
LEAST_ROUNDS, MOST_ROUNDS = 3, 7

Tool = Callable[[Server, tuple[int, int], float, int, Path], Measurement]
# By tool: a row of points for each round, a column for each rate.
Points = dict[str, list[list[Measurement]]]
Rates = dict[str, np.ndarray]


def by_melange(server: Server, size: tuple[int, int], rate: float, count: int, folder: Path) -> Measurement:
    """One load point of ``melange measure``, or all requests at once."""
    if math.isinf(rate):
        return asyncio.run(flood(server, count))

    async def run() -> Measurement:
        async with client_session() as session:
            endpoint = await connect(session, server.url)
            load = Load(
                input_tokens=size[0],
                output_tokens=size[1],
                rate=rate,
                warm_up=10,
                counted=count,
                patience_s=30.0,
                seed=int(folder.parent.name),
            )
            return (await send_at_rate(session, endpoint, load)).to_measurement()

    return asyncio.run(run())


async def flood(server: Server, count: int) -> Measurement:
    """All requests at once: how many a second are finished."""
    async with client_session() as session:
        endpoint = await connect(session, server.url)
        answers = await send_all(session, endpoint, poisson([SIZE], [1.0], 1e5, count, seed=0))
    return Measurement(
        input_tokens=float(np.mean([answer.input_tokens for answer in answers])),
        output_tokens=float(np.mean([answer.output_tokens for answer in answers])),
        offered_rate=math.inf,
        achieved_rate=count / span_s(answers),
        tpot_s={"mean": float(np.mean([answer.tpot_s for answer in answers]))},
        ttft_s={"mean": float(np.mean([answer.ttft_s for answer in answers]))},
    )


@pytest.mark.timing
def test_aiperf_finds_the_same_rates_on_the_same_server(small: Server, tmp_path: Path) -> None:
    """What is finished when all comes at once, and the rate at which a mean TPOT is met: as from run to run."""
    asyncio.run(flood(small, FLOOD))  # the first time is slower
    capacity = asyncio.run(flood(small, FLOOD)).achieved_rate
    assert capacity is not None
    points: Points = {name: [] for name in TOOLS}
    wrong: dict[str, float] = {}
    for number in range(MOST_ROUNDS):
        one_round(small, capacity, points, tmp_path / f"{number}")
        if number + 1 >= LEAST_ROUNDS:
            found = {"all at once": answered(points), "within a TPOT": rates_at_limit(points)}
            wrong = {name: difference for name, rates in found.items() if (difference := compared(name, rates))}
            if not wrong:
                return
    raise AssertionError(f"aiperf's rates over ours: {wrong}")


TOOLS: dict[str, Tool] = {"melange": by_melange, "aiperf": by_aiperf}


def one_round(server: Server, capacity: float, points: Points, folder: Path) -> None:
    """Add a point of each tool and rate; a tool's turn comes right after the other's."""
    for runs in points.values():
        runs.append([])
    for rate in (math.inf, *(capacity * part for part in PARTS)):
        count = FLOOD if math.isinf(rate) else max(LEAST, round(WINDOW_S * rate))
        for name, tool in TOOLS.items():
            point = tool(server, SIZE, rate, count, folder / f"{name}-{rate:.3f}")
            check(point, rate)
            points[name][-1].append(point)


def check(point: Measurement, rate: float) -> None:
    """That a tool did what it was asked for, and that its file was read so."""
    assert point.output_tokens == SIZE[1]
    assert abs(point.input_tokens - SIZE[0]) <= 1
    assert point.offered_rate is not None
    assert point.offered_rate == rate or abs(point.offered_rate / rate - 1) < 1e-4


def answered(points: Points) -> Rates:
    """Requests finished a second of those that came all at once, by tool and round."""
    return {name: np.array([run[0].achieved_rate for run in runs]) for name, runs in points.items()}


def arrived(point: Measurement) -> float:
    """Requests that came a second; exact where we sent them, and a matter of chance where another tool did [1/s]."""
    assert point.offered_rate is not None
    if math.isinf(point.offered_rate) or not (point.samples and point.duration_s and point.source):
        return point.offered_rate
    return point.samples / (point.duration_s - point.latency_s["mean"])


def rates_at_limit(points: Points) -> Rates:
    """The rate at which a mean TPOT is met that lies amid all, by tool and round; prints all points."""
    tpot_s = {
        name: np.array([[one.tpot_s["mean"] for one in run[1:]] for run in runs]) for name, runs in points.items()
    }
    rates = {name: np.array([[arrived(one) for one in run[1:]] for run in runs]) for name, runs in points.items()}
    limit_s = float(np.median(np.concatenate(list(tpot_s.values())), axis=0).mean())
    print(f"\n{SIZE[0]} tokens in, {SIZE[1]} out, every round's in a column")
    for title, value in (
        ("came [1/s]", arrived),
        ("answered [1/s]", lambda one: one.achieved_rate),
        ("mean TTFT [ms]", lambda one: one.ttft_s["mean"] * 1e3),
        ("mean TPOT [ms]", lambda one: one.tpot_s["mean"] * 1e3),
    ):
        for place, first in enumerate(points["melange"][0]):
            for name, runs in points.items():
                row = "".join(f"{value(run[place]):9.2f}" for run in runs)
                print(f"{title:16}{name:9}{first.offered_rate:7.2f} {row}")
    print(f"the rates at which a mean TPOT of {limit_s * 1e3:.2f} ms is met lie between the two")
    return {
        name: rates[name][:, 0] + (limit_s - row[:, 0]) / (row[:, 1] - row[:, 0]) * np.diff(rates[name])[:, 0]
        for name, row in tpot_s.items()
    }


def compared(name: str, rates: Rates) -> float:
    """Print the rates; how far aiperf's median is from ours where that is too far, else 0 (share)."""
    ours, other = np.median(rates["melange"]), np.median(rates["aiperf"])
    spread = float(max(np.ptp(rates["melange"]), np.ptp(rates["aiperf"])) / ours)
    print(
        f"{name}: melange {np.round(rates['melange'], 2)}, aiperf {np.round(rates['aiperf'], 2)} requests/s; ", end=""
    )
    print(f"medians {other / ours - 1:+.1%}, from run to run {spread:.1%}")
    return 0.0 if abs(other / ours - 1) <= min(max(spread, FLOOR), CEILING[name]) else float(other / ours - 1)


def test_what_vllm_s_own_tool_writes_is_read(small: Server, tmp_path: Path) -> None:
    """Sizes, both rates and the model, from a file that it has written today."""
    point = by_vllm(small, SIZE, 10.0, 40, tmp_path / "vllm")
    check(point, 10.0)
    assert (point.model, point.samples, point.failed) == (small.name, 40, 0)
    assert point.achieved_rate is not None
    assert 0 < point.tpot_s["mean"] < point.ttft_s["mean"]
