"""How a window of requests stands to an SLO: by each request, or by a statistic."""

import math

import numpy as np
import pytest

from melange.measure.window import Window, excess
from melange.slo import Slo

NONE = np.zeros(0)


def window(ttft_s: np.ndarray, tpot_s: np.ndarray, **others: object) -> Window:
    """Requests with these times, sent one a second."""
    latency_s = ttft_s + 10 * tpot_s
    values = {
        "input_tokens": 8,
        "output_tokens": 11,
        "offered_rate": 1.0,
        "scheduled_s": np.arange(len(ttft_s), dtype=float),
        "ttft_s": ttft_s,
        "tpot_s": tpot_s,
        "ntpot_s": latency_s / 11,
        "latency_s": latency_s,
        "itl_s": NONE,
        "lag_s": NONE,
        "tick_lag_s": NONE,
        "finished": len(ttft_s),
        "span_s": float(len(ttft_s)),
    }
    return Window(**(values | others))


def window_with_misses(late: int, slow: int) -> Window:
    """A thousand requests, of which some miss TTFT and others TPOT."""
    ttft_s, tpot_s = np.full(1000, 0.4), np.full(1000, 0.03)
    ttft_s[np.arange(late) * 90] = 2.0
    tpot_s[np.arange(slow) * 90 + 45] = 0.08
    return window(ttft_s, tpot_s)


@pytest.mark.parametrize(("late", "slow"), [(5, 5), (10, 0), (0, 10), (5, 6), (6, 5)])
def test_requests_hold_while_so_few_miss_any_limit_as_may(late: int, slow: int) -> None:
    """Ten of a thousand under 99 %: whichever limit each of them misses, though each metric's p99 holds by itself."""
    slo = Slo(ttft_s=1.0, tpot_s=0.04)
    found = excess(window_with_misses(late, slow), slo)
    assert (found.value <= 1) is (late + slow <= 10)
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(0.75 if late + slow <= 10 else 2.0)
    assert excess(window_with_misses(5, 6), Slo(ttft_s=1.0, tpot_s=0.04, statistic="p99")).value <= 1


def test_the_metric_is_that_of_the_request_that_decides() -> None:
    """The mean hides both; of the requests, one in ten waits longer than it may."""
    one = window(np.where(np.arange(100) % 10, 0.1, 1.5), np.full(100, 0.03))
    assert excess(one, Slo(ttft_s=1.0, tpot_s=0.04, statistic="mean")).value < 1
    found = excess(one, Slo(ttft_s=1.0, tpot_s=0.04, attainment=0.95))
    assert (found.metric, found.value) == ("ttft", 1.5)


def test_requests_without_an_answer_have_missed() -> None:
    """Half a percent of them leaves 99 %, and twice as many as may miss do not."""
    for lost, holds in ((5, True), (20, False)):
        ttft_s = np.full(1000, 0.4)
        ttft_s[np.arange(lost) * 50] = math.inf
        found = excess(window(ttft_s, np.full(1000, 0.03)), Slo(ttft_s=1.0))
        assert (found.value <= 1) is holds
        assert not math.isnan(found.low + found.high)
    assert excess(window(NONE, NONE), Slo(ttft_s=1.0)).value == math.inf


def test_a_server_that_falls_behind_is_told_from_a_client_that_does() -> None:
    """Three times its capacity is the server's fault; requests that leave late, or a late clock, are the client's."""
    steady, behind = np.full(60, 0.2), 0.2 + np.arange(60) * 2 / 3
    tpot_s, late_s = np.full(60, 0.01), np.full(60, 0.06)
    carried, overloaded = window(steady, tpot_s), window(behind, tpot_s)
    assert (carried.keeps_up, carried.is_client_late) == (True, False)
    assert overloaded.drift[0] == pytest.approx(2 / 3)
    assert (overloaded.keeps_up, overloaded.is_client_late) == (False, False)
    for name in ("lag_s", "tick_lag_s"):
        assert window(steady, tpot_s, **{name: late_s}).is_client_late
        assert not window(steady, tpot_s, **{name: late_s / 10}).is_client_late
