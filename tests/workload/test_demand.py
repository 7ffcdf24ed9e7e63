"""Traffic over time."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from melange.errors import InputError
from melange.workload.cycle import fold, hours_of
from melange.workload.demand import Demand, constant_demand
from melange.workload.demand_table import read_demand_tables
from melange.workload.over_time import read_demand
from melange.workload.workload import Buckets

Log = Callable[..., Path]
GRID = Buckets(input_edges=(100, 1000), output_edges=(100,))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A log in CSV of the requests at some times, each of a size."""

    def make(times: list[float], sizes: list[int] | None = None, start: dt.datetime | None = None) -> Path:
        path = tmp_path / "log.csv"
        shown = [str(t) if start is None else (start + dt.timedelta(seconds=t)).isoformat() for t in times]
        rows = zip(shown, sizes or [50] * len(times), strict=True)
        path.write_text("arrival,input_tokens,output_tokens\n" + "".join(f"{t},{size},10\n" for t, size in rows))
        return path

    return make


def every(seconds: float, hours: float, first_s: float = 0.0) -> list[float]:
    """Requests at a steady pace."""
    return np.arange(first_s, first_s + hours * 3600.0, seconds).tolist()


def test_rates_and_sizes_of_windows(log: Log) -> None:
    """An hour at one request in 10 s of one size, then one at one in 20 s of another."""
    times = every(10, 1) + every(20, 1, 3600)
    found = read_demand(log(times, [50] * 360 + [500] * 180), buckets=GRID)
    assert len(found) == 12
    assert found.rate[:6] == pytest.approx(0.1)
    assert found.rate[6:11] == pytest.approx(0.05)
    assert found.rates()[0] == pytest.approx([0.1, 0.0])
    assert found.rates()[7] == pytest.approx([0.0, 0.05])
    assert found.requests == 540
    assert found.input_tokens[:, 0].tolist() == [50.0, 500.0]


def test_the_mean_of_a_demand_is_the_workload_of_its_log(log: Log) -> None:
    """Up to the last window, which the log covers in part."""
    times = every(10, 1) + every(20, 1, 3600)
    found = read_demand(log(times, [50] * 360 + [500] * 180), buckets=GRID).workload()
    assert found.request_rate[:, 0] == pytest.approx([0.05, 0.025], rel=0.01)


def test_missing_windows_are_not_zero(log: Log) -> None:
    """Half an hour without a row in a busy log is a gap, is said, and does not lower the rate."""
    times = [t for t in every(10, 3) if not 3600 <= t < 5400]
    found = read_demand(log(times), buckets=GRID)
    assert found.is_missing.tolist() == [6 <= k < 9 for k in range(18)]
    assert found.workload().total_rate == pytest.approx(0.1, rel=0.01)
    assert [one.kind for one in found.cautions] == ["thin-data", "missing-windows"][-len(found.cautions) :]
    assert "3 of 18 windows" in found.cautions[-1].message
    said = read_demand(log(times), buckets=GRID, empty_windows="zero")
    assert said.rate[6:9].tolist() == [0.0, 0.0, 0.0]


def test_an_empty_window_of_a_quiet_log_is_no_gap(log: Log) -> None:
    """With four requests an hour, ten minutes without one are to be expected."""
    found = read_demand(log(every(900, 24)), buckets=GRID)
    assert not found.is_missing.any()
    assert (found.rate == 0).any()


def test_hours_are_those_of_the_users_clock(log: Log) -> None:
    """08:00 UTC is 09:00 in Berlin in winter and 10:00 in summer."""
    for month, hour in ((1, 9), (7, 10)):
        start = dt.datetime(2026, month, 5 if month == 1 else 6, 8, tzinfo=dt.UTC)
        found = read_demand(log(every(60, 24), start=start), buckets=GRID, time_zone="Europe/Berlin")
        assert hours_of(found, "day")[0] == hour
        assert found.label(0).startswith("Mon")


def test_a_night_on_which_clocks_change_keeps_the_hours_of_the_others(log: Log) -> None:
    """Traffic at 20:00 in Berlin stays at 20:00 over the end of March, where it moves by an hour on the UTC clock."""
    zone = dt.UTC
    first = dt.datetime(2026, 3, 23, 0, tzinfo=zone)
    demand = Demand(
        buckets=GRID,
        window_s=3600.0,
        rate=np.array([2.0 if local_hour(first, k) == 20 else 1.0 for k in range(14 * 24)]),
        period=np.zeros(14 * 24, int),
        share=np.array([[[1.0], [0.0]]]),
        input_tokens=np.full((2, 1), 50.0),
        output_tokens=np.full((2, 1), 50.0),
        start=first,
        time_zone="Europe/Berlin",
    )
    cycle = fold(demand, "week")
    busy = [label for label, rate in zip(cycle.labels, cycle.mean_rate, strict=True) if rate > 1]
    assert busy == [f"{day} 20:00" for day in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")]
    assert cycle.windows.sum() == 14 * 24
    assert cycle.windows[6 * 24 + 2] == 1  # Sunday 02:00 was skipped once


def local_hour(first: dt.datetime, hours: int) -> int:
    """The hour that clocks in Berlin show some hours later."""
    offset = 1 if first + dt.timedelta(hours=hours) < dt.datetime(2026, 3, 29, 1, tzinfo=dt.UTC) else 2
    return (first + dt.timedelta(hours=hours + offset)).hour


def test_an_hour_is_planned_for_its_busiest_window_or_as_asked() -> None:
    """Of two days with 1 and 3 requests/s: 3, or 2 on average."""
    rate = np.repeat([1.0, 3.0], 24)
    base = constant_demand(1.0, hours=48)
    demand = Demand(**{name: getattr(base, name) for name in Demand.__slots__} | {"rate": rate})
    assert fold(demand, "day").request_rate.sum(axis=1).tolist() == [3.0] * 24
    assert fold(demand, "day", statistic="mean").request_rate.sum(axis=1) == pytest.approx(np.full(24, 2.0))
    assert fold(demand, "day").mean_rate == pytest.approx(np.full(24, 2.0))


def test_hours_that_were_never_seen_are_filled_and_said() -> None:
    """From the same hour of the other days."""
    rate = np.tile(np.arange(1.0, 25.0), 7)
    rate[24 + 5] = np.nan
    base = constant_demand(1.0, hours=7 * 24)
    demand = Demand(**{name: getattr(base, name) for name in Demand.__slots__} | {"rate": rate})
    cycle = fold(demand)
    assert cycle.request_rate.sum(axis=1)[24 + 5] == pytest.approx(6.0)
    assert np.flatnonzero(cycle.is_filled).tolist() == [24 + 5]
    assert "1 of the 168 hours" in str(cycle.cautions[0])


def test_a_log_shorter_than_a_week_has_no_week() -> None:
    """And the hint says what it has."""
    with pytest.raises(InputError, match="at least a week") as error:
        fold(constant_demand(1.0, hours=48))
    assert error.value.hint == "over: day"


def test_a_demand_is_read_as_it_was_saved(tmp_path: Path, log: Log) -> None:
    """Missing windows, dates and sizes included."""
    start = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
    times = [t for t in every(10, 3) if not 3600 <= t < 5400]
    found = read_demand(log(times, start=start), buckets=GRID, time_zone="America/New_York")
    again = Demand.read(found.save(tmp_path / "demand.json"))
    assert again.to_json() == found.to_json()
    assert again.moments() == found.moments()


def table(path: Path, rows: str) -> Path:
    """A file with these rows."""
    path.write_text(rows)
    return path


SIZES = "start,input_tokens_upto,output_tokens_upto,share\n0,100,100,0.25\n0,1000,100,0.75\n3600,100,100,1\n"


def test_tables_of_rates_and_sizes(tmp_path: Path) -> None:
    """A window without a row is missing, and sizes are those of the window's period."""
    rates = table(tmp_path / "r.csv", "start,rate\n0,2\n1800,4\n5400,6\n7200,8\n")
    found = read_demand_tables(rates, table(tmp_path / "s.csv", SIZES))
    assert found.window_s == 1800
    assert found.rates()[[0, 1, 3]].tolist() == [[0.5, 1.5], [1.0, 3.0], [6.0, 0.0]]
    assert found.is_missing.tolist() == [False, False, True, False, False]
    assert {one.kind for one in found.cautions} == {"upper-edges", "missing-windows"}


@pytest.mark.parametrize(
    ("rates", "sizes", "said"),
    [
        ("start,rate\n0,1\n60,1\n120,1\n1e300,1\n", SIZES, "at most three years are supported"),
        ("start,rate\n0,2\n600,-1\n", SIZES, r"r.csv:3: rate must be a number >= 0, or empty.*'-1'"),
        ("start,rate\n0,2\n0,3\n600,1\n", SIZES, "two rows begin at 0 s"),
        ("start,rate\n0,2\n600,3\n1500,1\n2100,1\n", SIZES, "not a whole number of windows"),
        ("start,rate\n0,2\n700,3\n", SIZES, "whole part of an hour"),
        ("start,rps\n0,2\n", SIZES, "no column rate"),
        ("start,rate\n0,2\n600,3\n", SIZES.replace("0.75", "0.5"), "add up to 1.*got 0.75"),
        ("start,rate\n0,2\n600,3\n", SIZES.replace("0.75", "1.75"), "share must be a number from 0 to 1"),
        ("start,rate\n0,0\n600,0\n", SIZES, "no requests at all"),
        ("start,rate\n0,5e-324\n600,1\n", SIZES, "demand.rate must be 0, or 1e-09 to 1e.07, got 4.94066e-324"),
    ],
)
def test_tables_that_cannot_be_read_say_why(tmp_path: Path, rates: str, sizes: str, said: str) -> None:
    """With file and line."""
    with pytest.raises(InputError, match=f"(?s){said}"):
        read_demand_tables(table(tmp_path / "r.csv", rates), table(tmp_path / "s.csv", sizes))


def test_what_a_log_cannot_be_asked(log: Log) -> None:
    """A time zone without dates, an unknown one, a window that divides no hour."""
    path = log(every(10, 1))
    for settings, said in (
        ({"time_zone": "Europe/Berlin"}, "needs dates"),
        ({"time_zone": "Europe/Berlino"}, "not a known time zone"),
        ({"window_s": 700.0}, "whole part of an hour"),
    ):
        with pytest.raises(InputError, match=said):
            read_demand(path, buckets=GRID, **settings)  # type: ignore[arg-type] # a mapping of settings
