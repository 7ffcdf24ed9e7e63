"""Arrival times as people write them, against answers that are known: names, zones, units, order, copies, cycles."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melange.errors import InputError
from melange.workload.arrivals import read_arrivals
from melange.workload.over_time import read_demand
from melange.workload.traces import read_trace

Write = Callable[[str, str], Path]
# 00:30 UTC on the nights when Europe's and America's clocks change, and the gaps between arrivals [s].
SPRING, AUTUMN = datetime(2025, 3, 30, 0, 30, tzinfo=UTC), datetime(2025, 11, 2, 5, 30, tzinfo=UTC)
GAPS = [0.0, 1200.5, 3600.0, 7200.25, 9000.0]


def log(write: Write, times: list[str], name: str = "timestamp") -> Path:
    """A log of these times."""
    return write("log.csv", "\n".join([f"{name},input_tokens,output_tokens", *(f"{t},100,10" for t in times), ""]))


def gaps(path: Path) -> list[float]:
    """When its requests come, from the first on [s]."""
    return read_arrivals(path).arrival_s.round(3).tolist()


@pytest.mark.parametrize(
    "name",
    [
        *(
            "arrival_s",
            "arrival",
            "timestamp",
            "Timestamp",
            "TIMESTAMP",
            "arrival_time",
            "start_time",
            "startTime",
            "ts",
        ),
        *("created_at", "created", "request_time", "arrived_at", "datetime"),
    ],
)
def test_the_arrival_is_recognized_by_many_names(write: Write, name: str) -> None:
    """With sizes that are called input_tokens and output_tokens."""
    assert gaps(log(write, ["5", "6.5", "9"], name)) == [0.0, 1.5, 4.0]
    assert read_trace(log(write, ["5", "6.5", "9"], name)).total_rate == pytest.approx(3 / 4)


def test_the_arrival_alone_can_be_named(write: Write) -> None:
    """Sizes that were recognized are not asked for again."""
    path = write("log.csv", "when,input_tokens,output_tokens\n0,100,10\n4,200,20\n")
    assert read_trace(path, columns={"arrival": "when"}).total_rate == pytest.approx(0.5)
    with pytest.raises(InputError, match="columns must name the input column"):
        read_trace(write("other.csv", "when,a,b\n0,1,2\n"), columns={"arrival": "when"})


def test_names_that_may_be_something_else_are_not_taken(write: Write) -> None:
    """A date has no time of day, and a time may be how long a request took."""
    for name in ("date", "time", "duration"):
        with pytest.raises(InputError, match="no arrival times, only sizes"):
            read_trace(log(write, ["1", "2"], name))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"])
@pytest.mark.parametrize("start", [SPRING, AUTUMN])
def test_offsets_are_taken_off_when_clocks_change(write: Write, zone: str, start: datetime) -> None:
    """Local times with their offsets, before and after the change, are as far apart as they are."""
    moments = [start + timedelta(seconds=gap) for gap in GAPS]
    local = [moment.astimezone(ZoneInfo(zone)) for moment in moments]
    assert gaps(log(write, [one.isoformat() for one in local])) == GAPS
    assert gaps(log(write, [one.isoformat(sep=" ") for one in local])) == GAPS


@pytest.mark.parametrize(
    "form",
    [
        *("%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f+00"),
        *('"%Y-%m-%d %H:%M:%S,%f"', "%Y-%m-%d %H:%M:%S.%f +00", "%Y-%m-%d %H:%M:%S.%f +0000"),
    ],
)
def test_times_without_an_offset_are_utc(write: Write, form: str) -> None:
    """In each of the ways that gateways write them, also over the hour that Europe leaves out."""
    moments = [SPRING + timedelta(seconds=gap) for gap in GAPS]
    assert gaps(log(write, [one.strftime(form) for one in moments])) == GAPS


def test_offsets_may_differ_from_row_to_row(write: Write) -> None:
    """Servers in three zones write one log."""
    zones = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC", "Australia/Adelaide"]
    times = [
        (SPRING + timedelta(seconds=gap)).astimezone(ZoneInfo(zone)).isoformat()
        for gap, zone in zip(GAPS, zones, strict=True)
    ]
    assert gaps(log(write, times)) == GAPS


@pytest.mark.parametrize(("factor", "digits"), [(1, 3), (1_000, 0), (1_000_000, 0), (1_000_000_000, 0)])
def test_numbers_since_1970_tell_their_unit_by_their_size(write: Write, factor: int, digits: int) -> None:
    """Seconds, milliseconds, microseconds, nanoseconds."""
    start = 1_746_619_200
    times = [f"{(start * 1000 + round(gap * 1000)) * factor // 1000 if not digits else start + gap}" for gap in GAPS]
    assert gaps(log(write, times)) == GAPS
    assert read_trace(log(write, times), request_rate=None).total_rate == pytest.approx(5 / 9000)


@pytest.mark.parametrize(("name", "unit"), [("arrival_ms", 1e3), ("timestamp_ms", 1e3), ("timestamp_s", 1.0)])
def test_a_unit_in_the_name_counts(write: Write, name: str, unit: float) -> None:
    """Small numbers do not tell."""
    assert gaps(log(write, [f"{gap * unit:.0f}" for gap in (0, 2, 7)], name)) == [0.0, 2.0, 7.0]


def test_rows_may_come_in_any_order(write: Write) -> None:
    """The rate is that of the time between the first and the last, and requests are replayed in the order of time."""
    rng = np.random.default_rng(3)
    times = np.sort(rng.uniform(0, 1000, 500)).round(3)
    shuffled = [f"{t}" for t in rng.permutation(times)]
    assert gaps(log(write, shuffled)) == (times - times[0]).round(3).tolist()
    in_order, mixed = (read_trace(log(write, order)) for order in ([f"{t}" for t in times], shuffled))
    assert mixed.total_rate == pytest.approx(in_order.total_rate)
    assert mixed.burstiness == pytest.approx(in_order.burstiness)


def test_copies_of_rows_are_counted_and_told(write: Write) -> None:
    """Two requests may be alike; a log that was joined twice has twice the rate, and its reader should know."""
    times = np.cumsum(np.random.default_rng(4).exponential(1.0, 400)).round(3)
    once = read_trace(log(write, [f"{t}" for t in times]))
    twice = read_trace(log(write, [f"{t}" for t in [*times, *times]]))
    assert twice.requests == 800
    assert twice.total_rate == pytest.approx(2 * once.total_rate)
    assert [one.kind for one in once.cautions] == ["thin-data"]
    (told,) = [one.message for one in twice.cautions if one.kind == "copied-rows"]
    assert "400 of 800 rows are duplicates, with the same time and sizes" in told


def test_a_clock_of_whole_seconds_makes_no_copies(write: Write) -> None:
    """At ten requests a second of one size, rows are alike without being copies."""
    times = np.floor(np.cumsum(np.random.default_rng(5).exponential(0.1, 2000))).astype(int)
    assert not [one for one in read_trace(log(write, [f"{t}" for t in times])).cautions if one.kind == "copied-rows"]


def table(times: np.ndarray) -> object:
    """An Ibis table of requests at these times."""
    count = len(times)
    return ibis.memtable(
        pa.table({"arrival_s": times, "input_tokens": np.full(count, 100), "output_tokens": np.full(count, 10)})
    )


def cycle(seed: int, burstiness: float, days: float = 2.0, rate: float = 0.5) -> np.ndarray:
    """Arrivals whose rate goes up and down by 95 % a day, with gamma gaps in between."""
    rng = np.random.default_rng(seed)
    shape = burstiness**-2
    passed = np.cumsum(rng.gamma(shape, 1 / shape, int(days * 86_400 * rate))) / rate
    grid = np.linspace(0, days * 86_400, 20_001)
    middle = (grid[1:] + grid[:-1]) / 2
    total = np.concatenate([[0.0], np.cumsum(np.diff(grid) * (1 + 0.95 * np.sin(2 * np.pi * middle / 86_400)))])
    return np.interp(passed[passed < total[-1]], total, grid)


@pytest.mark.parametrize("burstiness", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_day_s_cycle_is_no_burst(seed: int, burstiness: float) -> None:
    """All gaps together would say 2.3 for Poisson arrivals."""
    times = cycle(seed, burstiness)
    assert np.diff(times).std() / np.diff(times).mean() > 1.5 * burstiness
    assert read_trace(table(times)).burstiness == pytest.approx(burstiness, rel=0.05)


def test_a_night_without_requests_is_no_burst() -> None:
    """Eight hours a day, two days."""
    rng = np.random.default_rng(6)
    times = np.sort(np.concatenate([day + rng.uniform(0, 8 * 3600, 20_000) for day in (0, 86_400)]))
    assert read_trace(table(times)).burstiness == pytest.approx(1.0, rel=0.03)


def test_bursts_within_minutes_are_bursts() -> None:
    """Ten at once, every minute on average."""
    rng = np.random.default_rng(7)
    starts = np.cumsum(rng.exponential(60.0, 500))
    times = np.sort((starts[:, None] + rng.uniform(0, 1.0, (500, 10))).ravel())
    found = read_trace(table(times)).burstiness
    assert found is not None
    assert found > 2.5


@pytest.mark.parametrize("factor", [1e3, 1e6, 1e9])
def test_seconds_and_finer_units_in_one_log_are_refused(write: Write, factor: float) -> None:
    """With a row of each."""
    times = [1.7e9 + n for n in range(9)]
    times[4] *= factor
    path = log(write, [f"{one:.0f}" for one in times])
    with pytest.raises(InputError, match="different units") as error:
        read_trace(path)
    assert "log.csv:2 has timestamp '1700000000'" in str(error.value)
    assert f"log.csv:6 has timestamp '{times[4]:.0f}'" in str(error.value)


@pytest.mark.parametrize("stray", ["0", "9000000000"])
def test_a_row_of_another_age_is_refused(write: Write, stray: str) -> None:
    """As one without a real time, named by its line; the rate would be that of decades."""
    times = [f"{1.7e9 + n:.0f}" for n in range(9)]
    with pytest.raises(InputError, match="years apart") as error:
        read_trace(log(write, [*times[:5], stray, *times[5:]]))
    assert f"log.csv:7 has timestamp '{stray}'" in str(error.value)


def test_a_date_of_another_age_is_refused_in_parquet(tmp_path: Path) -> None:
    """By its row."""
    times = [AUTUMN + timedelta(seconds=gap) for gap in GAPS]
    times.insert(2, datetime(9999, 1, 1, tzinfo=UTC))
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"timestamp": times, "input_tokens": [9] * 6, "output_tokens": [9] * 6}), path)
    with pytest.raises(InputError, match=r"years apart.*log\.parquet:row 3 has timestamp '9999"):
        read_trace(path)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("has_offset", [False, True])
@pytest.mark.parametrize("read", [read_trace, read_demand])
def test_local_times_that_run_back_an_hour_are_told(
    write: Write, sign: int, has_offset: bool, read: Callable[..., Any]
) -> None:
    """As when daylight saving time ends; in spring an hour is missing, which is another caution; not with offsets."""
    zone = ZoneInfo("Europe/Berlin")
    change = datetime(2025, 10, 26, 1, tzinfo=UTC) if sign > 0 else SPRING + timedelta(minutes=30)
    local = [(change + timedelta(minutes=n)).astimezone(zone) for n in range(-180, 180)]
    found = read(log(write, [(one if has_offset else one.replace(tzinfo=None)).isoformat() for one in local]))
    told = [one.message for one in found.cautions if one.kind == "clock-runs-back"]
    assert bool(told) == (sign > 0 and not has_offset)
    if told:
        assert "by 59 min, from 2025-10-26 02:59:00 to 2025-10-26 02:00:00" in told[0]
    missing = [one.message for one in found.cautions if one.kind == "clock-skips"]
    assert bool(missing) == (sign < 0 and not has_offset)
    if missing:
        assert "no request from 2025-03-30 01:59:00 to 2025-03-30 03:00:00" in missing[0]


@pytest.mark.parametrize(("date", "gap_min", "every_min"), [(29, 61, 1), (30, 45, 1), (30, 90, 1), (30, 61, 10)])
def test_other_hours_without_requests_are_not_taken_for_a_clock_change(
    write: Write, date: int, gap_min: int, every_min: int
) -> None:
    """On a Saturday, of another length, or in a log that often has gaps."""
    last = datetime(2025, 3, date, 1, 59, tzinfo=UTC).replace(tzinfo=None)
    moments = [last - timedelta(minutes=n * every_min) for n in range(100)][::-1]
    moments += [last + timedelta(minutes=gap_min + n * every_min) for n in range(100)]
    found = read_trace(log(write, [one.isoformat() for one in moments]))
    assert "clock-skips" not in [one.kind for one in found.cautions]


def test_a_log_out_of_order_is_not_taken_for_a_clock_that_runs_back(write: Write) -> None:
    """Rows in any order, and rows written when requests end."""
    moments = [AUTUMN.replace(tzinfo=None) + timedelta(minutes=n) for n in range(300)]
    shuffled = np.random.default_rng(5).permutation(300)
    swapped = [n + (1 if n % 2 == 0 else -1) for n in range(300)]
    for order in (shuffled, swapped):
        found = read_trace(log(write, [moments[n].isoformat() for n in order]))
        assert not [one for one in found.cautions if one.kind == "clock-runs-back"]


@pytest.mark.parametrize("read", [read_trace, read_demand])
@pytest.mark.parametrize("stray", [2**40, -(2**40)])
def test_an_arrival_outside_a_file_s_own_statistics_is_refused(
    tmp_path: Path, read: Callable[..., Any], stray: int
) -> None:
    """As in a damaged Parquet file; windows up to it would take all memory."""
    path = tmp_path / "log.parquet"
    times = pa.array([1_700_000_000 + n for n in range(40)], pa.int64())
    table = pa.table({"timestamp": times, "input_tokens": [100] * 40, "output_tokens": [10] * 40})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    content = path.read_bytes()
    stored = (1_700_000_020).to_bytes(8, "little")
    assert content.count(stored) == 1
    path.write_bytes(content.replace(stored, stray.to_bytes(8, "little", signed=True)))
    with pytest.raises(InputError, match="statistics"):
        read(path)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_durations_in_parquet_have_their_own_unit(tmp_path: Path, unit: str) -> None:
    """Time differences of pandas and Polars, which are whole numbers to readers that skip Arrow's schema."""
    per_s = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    times = pa.array([5 * per_s, 65 * per_s, 7205 * per_s], pa.duration(unit))
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"ts": times, "input_tokens": [100] * 3, "output_tokens": [10] * 3}), path)
    assert gaps(path) == [0.0, 60.0, 7200.0]
    assert read_trace(path).total_rate == pytest.approx(3 / 7200)


def test_durations_of_another_unit_in_a_second_file_are_refused(tmp_path: Path) -> None:
    """One table cannot hold both; a column that only one file has is no fault."""
    sizes = {"input_tokens": [100] * 3, "output_tokens": [10] * 3}
    for number, kind in enumerate((pa.duration("ms"), pa.duration("ms"), pa.int64())):
        extra = {"waited": pa.array([1, 2, 3], pa.duration("ns"))} if number == 0 else {}
        pq.write_table(pa.table({"ts": pa.array([0, 5, 9], kind), **sizes, **extra}), tmp_path / f"{number}.parquet")
        if number == 1:
            assert read_trace(tmp_path).total_rate == pytest.approx(6 / 0.009)
    with pytest.raises(InputError, match=r"2\.parquet: the column ts has another unit than in other files"):
        read_trace(tmp_path)


def test_times_of_day_are_refused_in_words(tmp_path: Path) -> None:
    """Without a date, midnight would come before the evening."""
    times = pa.array([0, 10**6, 2 * 10**6], pa.time64("us"))
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"ts": times, "input_tokens": [100] * 3, "output_tokens": [10] * 3}), path)
    with pytest.raises(InputError, match="the column ts must hold times, and holds times without a date"):
        read_trace(path)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("few", "days", "is_told"), [(1, 365, True), (2, 30, True), (1, 0.1, False), (40, 365, False)])
def test_a_few_requests_far_from_all_others_are_told(
    write: Write, sign: int, few: int, days: float, *, is_told: bool
) -> None:
    """Of 300 requests a minute apart; a longer part, or a shorter gap, is a pause of the service."""
    moments = [AUTUMN + timedelta(minutes=n) for n in range(300)]
    moments += [AUTUMN + timedelta(minutes=150) + sign * timedelta(days=days, seconds=n) for n in range(few)]
    found = read_trace(log(write, [one.isoformat() for one in moments]))
    told = [one.message for one in found.cautions if one.kind == "far-requests"]
    assert bool(told) == is_told
    if told:
        assert f" d {'after' if sign > 0 else 'before'} all others, which last 4.98 h" in told[0]
        assert ("the request at 20" if few == 1 else "2 requests, the first at 20") in told[0]


def test_times_that_are_too_dense_for_any_service_are_told(write: Write) -> None:
    """Days that count as seconds, as a spreadsheet writes times."""
    days = [46080.5 + n / 86_400 / 2 for n in range(2000)]
    found = read_trace(log(write, [f"{one:.8f}" for one in days]))
    assert "dense" in [one.kind for one in found.cautions]
    found = read_trace(log(write, [f"{one * 86_400:.3f}" for one in days]))
    assert not {"dense", "far-requests"} & {one.kind for one in found.cautions}
