"""The load client against servers of a known capacity, and what it concludes."""

import asyncio
import time

import aiohttp
import numpy as np
import pytest
from measuring import measured, queue_server

from melange.errors import MeasurementError
from melange.measure.endpoint import Endpoint
from melange.measure.load import Load, send_alone, send_at_rate
from melange.measure.point import Point, point_of
from melange.measure.window import Window
from melange.slo import Slo

SLO = Slo(tpot_s=0.5, statistic="mean")


def load(rate: float, counted: int, output_tokens: int = 4, **others: float) -> Load:
    """Requests of a size at a rate."""
    values = {"warm_up": 5, "patience_s": 2.0} | others
    return Load(input_tokens=16, output_tokens=output_tokens, rate=rate, counted=counted, **values)


def test_times_are_those_of_a_poisson_process() -> None:
    """Gaps are exponential: as long as they vary, alone or several together; and the rate is exact in each part."""
    times = Load(input_tokens=1, output_tokens=1, rate=8.0, warm_up=4000, counted=40_000, patience_s=1.0).times_s()
    gaps = np.diff(times[4000:44_000])
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1.0, abs=0.02)
    assert np.quantile(gaps, [0.1, 0.5, 0.9]) * 8 == pytest.approx([0.105, 0.693, 2.303], rel=0.05)
    by_second = np.bincount((times[4000:44_000] - 500).astype(int))[:5000]
    assert by_second.var() / by_second.mean() == pytest.approx(1.0, abs=0.1)
    assert ((times >= 500) & (times < 5500)).sum() == 40_000


def alone() -> Window:
    """Three requests of 100 tokens in and 5 out, one at a time, on a server with steps of 21 ms."""
    with queue_server("--fixed-ms", "20") as url:
        return measured(url, lambda session, endpoint: send_alone(session, endpoint, 100, 5, 3))


def test_each_request_that_is_sent_alone_is_timed() -> None:
    """From token to token: no machine sends the five tokens of a request in less than their five steps."""
    window = alone()
    assert len(window.latency_s) == 3
    assert window.itl_s.size == 3 * 4
    assert (window.latency_s > 4.5 * 0.021).all()
    assert window.latency_s == pytest.approx(window.ttft_s + 4 * window.tpot_s)


@pytest.mark.timing
def test_requests_one_at_a_time_take_what_the_steps_take() -> None:
    """Five tokens of 21 ms each: the first after one step, the others a step apart, the prompt as long as asked."""
    window = alone()
    assert np.median(window.tpot_s) == pytest.approx(0.021, rel=0.15)
    assert np.median(window.latency_s) == pytest.approx(5 * 0.021, rel=0.15)


@pytest.mark.timing
def test_a_load_that_is_carried_is_met_at_its_rate_with_little_s_law() -> None:
    """In steady state as many requests end as come, and nothing is left on the server."""

    async def work(session: aiohttp.ClientSession, endpoint: Endpoint) -> tuple[Window, int, int]:
        before = await served(session, endpoint)
        window = await send_at_rate(session, endpoint, load(40.0, 60))
        await asyncio.sleep(0.3)  # what was canceled ends
        return window, before, await running(session, endpoint)

    with queue_server("--fixed-ms", "10", "--slots", "50") as url:
        window, _, left = measured(url, work)
    assert window.keeps_up
    assert not window.is_client_late
    assert window.achieved_rate == pytest.approx(40.0, rel=0.2)
    assert np.isfinite(window.latency_s).all()
    assert left == 0


async def served(session: aiohttp.ClientSession, endpoint: Endpoint) -> int:
    """Requests that the server has ended."""
    async with session.get(f"{endpoint.url}/served") as response:
        return int((await response.json())["served"])


async def running(session: aiohttp.ClientSession, endpoint: Endpoint) -> int:
    """Requests that it holds."""
    async with session.get(f"{endpoint.url}/served") as response:
        return int((await response.json())["held"])


@pytest.mark.timing
def test_a_server_that_falls_behind_is_told_from_a_client_that_does() -> None:
    """Three times its capacity is the server's fault, a client that is busy with something else the client's."""

    async def hog(until: asyncio.Event) -> None:
        while not until.is_set():
            end_s = time.monotonic() + 0.06
            while time.monotonic() < end_s:
                pass
            await asyncio.sleep(0)

    async def work(session: aiohttp.ClientSession, endpoint: Endpoint) -> tuple[Point, Point]:
        overloaded = await send_at_rate(session, endpoint, load(150.0, 60))
        until = asyncio.Event()
        busy = asyncio.create_task(hog(until))
        alone = await send_at_rate(session, endpoint, load(24.0, 20))
        until.set()
        await busy
        return point_of(overloaded, SLO), point_of(alone, SLO)

    with queue_server("--fixed-ms", "5", "--each-ms", "0", "--slots", "1") as url:
        server_late, client_late = measured(url, work)
    assert not server_late.keeps_up
    assert not server_late.is_client_late
    assert server_late.capacity == pytest.approx(50.0, rel=0.25)
    assert client_late.is_client_late


def test_a_server_that_is_hopelessly_behind_is_given_up_early() -> None:
    """Long before all requests were sent."""
    with queue_server("--fixed-ms", "20", "--each-ms", "0", "--slots", "1") as url:
        window = measured(url, lambda session, endpoint: send_at_rate(session, endpoint, load(100.0, 2000)))
    assert window.is_cut
    assert not window.keeps_up
    assert window.finished < 500  # of 2,000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stops-early",), "completions must be 8 tokens, but the server counts 4 on average"),
        (("--max-prompt", "40"), "a request of 64 tokens in and 8 out, alone, failed: HTTP 400"),
        (("--most-waiting", "0"), "HTTP 429"),
    ],
)
def test_what_a_server_does_not_do_as_asked_is_said(flags: tuple[str, ...], message: str) -> None:
    """Lengths that are not those asked for, sizes that it refuses, a server that is always busy."""
    with queue_server(*flags) as url, pytest.raises(MeasurementError, match=message):
        measured(url, lambda session, endpoint: send_alone(session, endpoint, 64, 8, 2))


def test_requests_that_are_turned_away_under_load_count_against_it() -> None:
    """429 is an answer to the load: the point does not hold, and says why."""
    slow = ("--fixed-ms", "20", "--each-ms", "0", "--slots", "1", "--most-waiting", "2")
    with queue_server(*slow) as url:
        window = measured(url, lambda session, endpoint: send_at_rate(session, endpoint, load(40.0, 40)))
    point = point_of(window, SLO)
    assert not point.holds
    assert point.failure.startswith("HTTP 429")
