"""The search for the highest rate, against the simulator: a server whose capacity is known as exactly as needed."""

import asyncio
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from measuring import load_point, queue_engine, simulated_window

from melange.errors import InputError, MeasurementError
from melange.measure.load import Load
from melange.measure.point import Point, point_of
from melange.measure.search import Effort, Found, Step, find_rate
from melange.measure.trial import try_rate
from melange.measure.window import Window
from melange.profile.percentiles import excess
from melange.replica.engine import Engine
from melange.slo import Slo

SIZE = (32, 16)


def search(engine: Engine, slo: Slo, *, seed: int = 0, guess: float | None = None) -> tuple[Found, list[Step]]:
    """What a search on a simulated engine finds, and the loads that it asked for."""
    steps: list[Step] = []
    effort = Effort()

    async def send(load: Load) -> Window:
        return simulated_window(engine, replace(load, seed=1000 * seed + len(steps) + load.seed))

    async def probe(step: Step) -> Point:
        steps.append(step)
        if step.rate is None:
            alone = Load(input_tokens=SIZE[0], output_tokens=SIZE[1], rate=1e-3, warm_up=1, counted=3, patience_s=1.0)
            return Point.from_json(point_of(simulated_window(engine, alone), slo).to_json() | {"rate": None})
        return await try_rate(send, step, SIZE, slo, effort)

    return asyncio.run(find_rate(probe, slo, guess=guess, effort=effort)), steps


def excess_at(engine: Engine, rate: float, slo: Slo) -> float:
    """The limit's statistic over the limit at a rate, over enough requests that chance hardly matters."""
    arrivals = np.cumsum(np.random.default_rng(5).exponential(size=20_000)) / rate
    return excess(engine, *SIZE, arrivals, slo)[1]


@pytest.mark.heavy
@pytest.mark.parametrize(
    "slo",
    [
        Slo(tpot_s=0.02, statistic="mean"),
        Slo(latency_s=0.3, statistic="mean"),
        Slo(tpot_s=0.02, statistic="p90"),
        Slo(ttft_s=0.02, tpot_s=0.02, attainment=0.9),
    ],
    ids=str,
)
@pytest.mark.parametrize("guess", [None, 5.0, 400.0])
def test_the_objective_holds_at_what_is_found_and_fails_not_far_beyond(slo: Slo, guess: float | None) -> None:
    """Over the long run: within what the requests of a search can tell."""
    engine = queue_engine(10.0, 1.0)
    searches = [search(engine, slo, seed=seed, guess=guess)[0] for seed in range(5)]
    assert all(one.low <= one.max_request_rate < one.failed_rate <= one.high for one in searches)
    middle = float(np.median([one.max_request_rate for one in searches]))
    assert excess_at(engine, 0.88 * middle, slo) <= 1 < excess_at(engine, 1.1 * middle, slo)
    # An interval of 80 % holds in four of five.
    low, high = sorted(one.low for one in searches)[1], sorted(one.high for one in searches)[-2]
    assert excess_at(engine, low, slo) <= 1 < excess_at(engine, high, slo)


def test_a_server_with_few_slots_is_found_where_it_falls_behind() -> None:
    """Its steps take the same whatever runs, so that only the queue tells: 4 slots / (16 tokens x 10 ms) = 25/s."""
    found, _ = search(queue_engine(10.0, 0.0, slots=4), Slo(tpot_s=0.05, statistic="mean"))
    assert found.max_request_rate == pytest.approx(4 / 0.16, rel=0.1)
    assert "falls behind" in found.why


def test_what_one_request_alone_does_not_hold_is_zero() -> None:
    """No rate is tried then."""
    found, steps = search(queue_engine(10.0, 1.0), Slo(tpot_s=0.005, statistic="mean"))
    assert (found.max_request_rate, len(steps)) == (0.0, 1)
    assert "one request alone: mean TPOT is 11 ms; the limit is 5 ms" in found.why


def test_a_first_token_that_is_late_under_any_load_ends_the_search() -> None:
    """A limit that holds alone and nowhere else: the rate is 0 and not something small."""

    async def probe(step: Step) -> Point:
        return load_point(step.rate, 0.9, 0.9 if step.rate is None else 1.5, 1.6, metric="ttft")

    found = asyncio.run(find_rate(probe, Slo(ttft_s=0.1)))
    assert found.max_request_rate == 0
    assert 0 < found.failed_rate < 0.02


def test_what_fails_once_in_a_short_test_is_asked_again() -> None:
    """A neighbor disturbs the short test at 16/s; the server carries 40, and that is found and bounds the interval."""
    tried: list[float | None] = []

    async def probe(step: Step) -> Point:
        disturbed = step.is_far and step.rate == 16.0
        fails = disturbed or (step.rate or 0.0) > 40.0
        tried.append(step.rate)
        return load_point(step.rate, *((1.9, 2.0, 2.1) if fails else (0.1, 0.2, 0.3)), keeps_up=not fails)

    found = asyncio.run(find_rate(probe, Slo(tpot_s=0.1, statistic="mean")))
    assert tried.count(16.0) == 2
    assert 38.0 <= found.max_request_rate <= 40.0 < found.failed_rate <= found.high < 44.0


@pytest.mark.parametrize("knee", [0.0, 12.0])
def test_a_client_that_falls_behind_says_so(knee: float) -> None:
    """Before any rate held nothing is known; after one, the server carries that at least."""

    async def probe(step: Step) -> Point:
        late = step.rate is not None and step.rate > knee
        return load_point(step.rate, *([2.0 if late else 0.5] * 3), is_client_late=late, latency_s=0.2)

    if not knee:
        with pytest.raises(MeasurementError, match="client falls behind its own schedule"):
            asyncio.run(find_rate(probe, Slo(tpot_s=0.1, statistic="mean")))
        return
    found = asyncio.run(find_rate(probe, Slo(tpot_s=0.1, statistic="mean")))
    assert knee / 2 <= found.max_request_rate <= knee
    assert math.isinf(found.failed_rate)
    assert (found.low, found.high) == (found.max_request_rate, math.inf)
    assert Found.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
    assert "client fell behind" in found.why


def test_effort_that_makes_no_sense_is_refused() -> None:
    """With its name."""
    with pytest.raises(InputError, match=r"measure\.precision must be in \(0, 1\), got 1"):
        Effort(precision=1.0)
    with pytest.raises(InputError, match=r"measure\.requests must be >= 1"):
        Effort(requests=0)


def test_a_far_percentile_counts_more_requests() -> None:
    """Ten must lie beyond it, and beyond a share of the requests."""
    assert [Effort().counted(Slo(tpot_s=1, statistic=name)) for name in ("mean", "p90", "p99")] == [60, 100, 1000]
    assert [Effort().counted(Slo(tpot_s=1, attainment=share)) for share in (0.9, 0.99, 1.0)] == [100, 1000, 10_000]
