"""How sure a search is of the highest rate: by hand, and against a simulated server whose capacity is known."""

from __future__ import annotations

import math

import pytest
from measuring import load_point as point

from melange.measure.interval import BEHIND, TAIL, interval
from melange.measure.point import Point
from melange.measure.search import Found
from melange.measure.window import BLOCKS, DRIFT
from melange.profile.measurement import Measurement
from melange.slo import Slo

MEAN = Slo(tpot_s=0.05, statistic="mean")


ALONE = point(None, 0.3, 0.3, 0.3)
HOLDS, FAILS = point(8.0, 0.8, 0.9, 0.98), point(9.0, 1.02, 1.1, 1.2)


def ends(*points: Point, slo: Slo = MEAN, held: float = 8.0, failed: float = 9.0) -> tuple[float, float]:
    """The interval of a search that has tried these."""
    return interval([ALONE, *points], slo, held_rate=held, failed_rate=failed)


def test_where_both_answers_are_beyond_chance_it_is_what_lies_between() -> None:
    """In whatever order they were tried."""
    assert ends(HOLDS, FAILS) == ends(FAILS, HOLDS) == (8.0, 9.0)


def test_a_rate_that_may_have_held_by_luck_moves_the_low_end_down() -> None:
    """To the highest that held for sure; or, without one, to where a line from one request alone meets the limit."""
    lucky = point(8.0, 0.9, 0.99, 1.05)
    assert ends(point(6.0, 0.7, 0.8, 0.9), lucky, FAILS)[0] == 6.0
    assert ends(lucky, FAILS)[0] == pytest.approx(8.0 * (1 - 0.3) / (1.05 - 0.3))


def test_a_rate_that_may_have_failed_by_bad_luck_moves_the_high_end_up() -> None:
    """To where the low end of the statistic meets the limit; to the highest tried where none failed for sure."""
    unlucky = point(9.0, 0.9, 1.01, 1.1)
    assert ends(HOLDS, unlucky, point(10.0, 1.1, 1.2, 1.3))[1] == pytest.approx(9.5)
    assert ends(HOLDS, unlucky)[1] == 9.0
    assert ends(HOLDS, unlucky, point(10.0, math.inf, math.inf, math.inf))[1] == 10.0


def test_short_windows_are_believed_less() -> None:
    """A quarter of the requests that 12 blocks of their own would take: the statistic's interval is twice as wide."""
    counted = Measurement(input_tokens=8, output_tokens=8, samples=round(BLOCKS * 8.0 / 4), tpot_s={"mean": 0.04})
    near = point(8.0, 0.9, 0.94, 0.98, measurement=counted)
    assert ends(point(6.0, 0.5, 0.6, 0.7), near, FAILS)[0] == 6.0
    assert ends(point(6.0, 0.5, 0.6, 0.7), point(8.0, 0.9, 0.94, 0.98), FAILS)[0] == 8.0


def test_falling_behind_leaves_room_on_both_sides() -> None:
    """By as much as a server may fall behind unseen; upwards to what it ends when it is far behind."""
    behind = point(9.0, 0.5, 0.6, 0.7, keeps_up=False, achieved_rate=8.9)
    far = point(12.0, 0.8, 0.9, 0.99, keeps_up=False, achieved_rate=9.4)
    assert far.achieved_rate < (1 - BEHIND) * far.rate
    assert ends(HOLDS, behind, far) == pytest.approx((8.0 * (1 - DRIFT), 9.4 / (1 - DRIFT)))
    assert ends(HOLDS, far, failed=12.0) == pytest.approx((8.0 * (1 - DRIFT), 12.0))


def test_percentiles_are_allowed_to_be_too_high() -> None:
    """The more so the farther out, and so are rates for a share of requests."""
    for statistic, tens in (("mean", 0), ("p90", 1), ("p99", 2), ("requests", 2)):
        low, high = ends(HOLDS, FAILS, slo=Slo(tpot_s=0.05, statistic=statistic))
        assert (low, high) == pytest.approx((8.0 * (1 - TAIL * tens), 9.0))


def test_where_nothing_failed_there_is_no_high_end() -> None:
    """The client was too slow for it."""
    assert ends(HOLDS, failed=math.inf) == (8.0, math.inf)


def test_a_journal_of_before_there_were_intervals_is_read() -> None:
    """What it found is all that is known."""
    told = {"max_request_rate": 3.0, "failed_rate": 3.1, "why": "TPOT"}
    assert Found.from_json(told) == Found(max_request_rate=3.0, failed_rate=3.1, low=3.0, high=3.0, why="TPOT")
