"""Times whose value contradicts the unit that a name or a layout states, against the rate of the log."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melange.errors import InputError
from melange.workload.arrivals import read_arrivals
from melange.workload.over_time import read_demand
from melange.workload.traces import read_trace

Write = Callable[[str, str], Path]
# 601 requests, one a second: 1.0017 requests/s.
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
MOMENTS = [BEGIN + timedelta(seconds=n) for n in range(601)]
RATE = 601 / 600
LAYOUTS = {
    "mooncake": ("timestamp", "input_length", "output_length"),
    "burstgpt": ("Timestamp", "Request tokens", "Response tokens"),
    "vidur": ("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
    "melange": ("arrival_s", "input_tokens", "output_tokens"),
    "opentelemetry": ("startTimeUnixNano", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
    "ms": ("timestamp_ms", "input_tokens", "output_tokens"),
    "us": ("ts_us", "input_tokens", "output_tokens"),
    "ns": ("ts_ns", "input_tokens", "output_tokens"),
    "none": ("timestamp", "input_tokens", "output_tokens"),
}


def log(write: Write, layout: str, times: list[object], form: str = "csv") -> Path:
    """A log in a layout, as CSV or JSONL."""
    names = LAYOUTS[layout]
    rows = [dict(zip(names, (time, 100, 10), strict=True)) for time in times]
    if form == "jsonl":
        return write("log.jsonl", "\n".join(map(json.dumps, rows)))
    return write("log.csv", "\n".join([",".join(names), *(f"{time},100,10" for time in times), ""]))


def epochs(per_s: int) -> list[object]:
    """The times since 1970, in a unit with this many to a second."""
    return [int(moment.timestamp()) * per_s for moment in MOMENTS]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pattern", ["%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%d %H:%M:%S"])
def test_dates_have_no_unit(write: Write, layout: str, pattern: str, form: str) -> None:
    """A layout of milliseconds and a name that ends in _ns do not apply to ISO 8601."""
    path = log(write, layout, [moment.strftime(pattern) for moment in MOMENTS], form)
    assert read_trace(path).total_rate == pytest.approx(RATE)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("layout", "per_s"),
    [
        *(("mooncake", per_s) for per_s in (1_000, 1_000_000, 1_000_000_000)),
        *((name, per_s) for name in ("burstgpt", "vidur", "melange") for per_s in (1, 1_000, 1_000_000, 1_000_000_000)),
        *(("ms", 1_000), ("ms", 1_000_000), ("us", 1_000_000), ("us", 1_000_000_000), ("opentelemetry", 1_000_000_000)),
    ],
)
def test_a_stated_unit_that_is_impossible_is_given_up(write: Write, layout: str, per_s: int, form: str) -> None:
    """Milliseconds since 1970 read as seconds would be 56,000 years."""
    assert read_trace(log(write, layout, epochs(per_s), form)).total_rate == pytest.approx(RATE)


@pytest.mark.parametrize(
    ("layout", "per_s", "stated", "found", "hint"),
    [
        ("mooncake", 1, "milliseconds by the layout (Mooncake trace)", "seconds", "set columns: {arrival: timestamp}"),
        ("ms", 1, "milliseconds by its name", "seconds", "rename the column to timestamp_s"),
        ("us", 1_000, "microseconds by its name", "milliseconds", "rename the column to ts_ms"),
        ("ns", 1_000_000, "nanoseconds by its name", "microseconds", "rename the column to ts_us"),
        (
            "opentelemetry",
            1_000_000,
            "nanoseconds by the layout (OpenTelemetry spans)",
            "microseconds",
            "columns: {arrival:",
        ),
    ],
)
def test_two_possible_units_are_an_error_that_names_both(
    write: Write, layout: str, per_s: int, stated: str, found: str, hint: str
) -> None:
    """Seconds since 1970 may also be milliseconds, 20 days after a clock began."""
    with pytest.raises(InputError) as caught:
        read_trace(log(write, layout, epochs(per_s)))
    assert stated in str(caught.value)
    assert f"is also a time in {found} since 1970" in str(caught.value)
    assert "begins at 2026-03-01 00:00:00 and lasts 10 min" in str(caught.value)
    assert hint in caught.value.hint


def test_the_hints_for_two_units_work(write: Write) -> None:
    """Naming the column, another suffix, and times from 0."""
    seconds = epochs(1)
    assert read_trace(log(write, "mooncake", seconds), columns={"arrival": "timestamp"}).total_rate == pytest.approx(
        RATE
    )
    path = log(write, "mooncake", seconds)
    path.write_text(path.read_text().replace("timestamp", "timestamp_s"))
    assert read_trace(path).total_rate == pytest.approx(RATE)
    from_zero = [int(str(one)) - int(str(seconds[0])) for one in seconds]
    assert read_trace(log(write, "mooncake", list(from_zero))).total_rate == pytest.approx(1000 * RATE)


@pytest.mark.parametrize(
    ("layout", "pattern", "step"),
    [
        *((layout, "%Y%m%d%H%M%S", 1) for layout in ("mooncake", "burstgpt", "melange", "ms", "none")),
        *((layout, "%Y%m%d%H%M", 60) for layout in ("burstgpt", "melange", "none")),
    ],
)
def test_dates_written_as_digits_are_dates(write: Write, layout: str, pattern: str, step: int) -> None:
    """20260301000059 and 20260301000100 are a second apart."""
    moments = [BEGIN + timedelta(seconds=n * step) for n in range(601)]
    path = log(write, layout, [moment.strftime(pattern) for moment in moments])
    assert read_trace(path).total_rate == pytest.approx(RATE / step)
    found = read_arrivals(path)
    assert found.arrival_s.tolist() == [n * step for n in range(601)]
    assert read_demand(path).cautions == read_demand(log(write, layout, [str(m) for m in moments])).cautions


def test_digits_in_parquet_and_with_dates_are_dates(write: Write, tmp_path: Path) -> None:
    """As whole numbers of 64 bits, and in some rows of a log whose other rows are ISO 8601."""
    digits = [int(moment.strftime("%Y%m%d%H%M%S")) for moment in MOMENTS]
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"timestamp": digits, "input_tokens": [9] * 601, "output_tokens": [9] * 601}), path)
    assert read_trace(path).total_rate == pytest.approx(RATE)
    mixed = [
        digit if n % 3 else moment.isoformat() for n, (digit, moment) in enumerate(zip(digits, MOMENTS, strict=True))
    ]
    assert read_trace(log(write, "none", list(mixed))).total_rate == pytest.approx(RATE)


@pytest.mark.parametrize("per_s", [1, 1_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("first", [0, 1])
def test_numbers_among_dates_have_their_own_unit(write: Write, per_s: int, first: int) -> None:
    """In a log of which some rows are numbers since 1970, whichever comes first."""
    mixed = [
        epoch if n % 2 == first else moment.isoformat()
        for n, (epoch, moment) in enumerate(zip(epochs(per_s), MOMENTS, strict=True))
    ]
    assert read_trace(log(write, "none", mixed)).total_rate == pytest.approx(RATE)


@pytest.mark.parametrize(
    ("layout", "pattern", "words"),
    [
        ("none", "%Y%m%d", r"may be in seconds, but 20260301 is also a date written as digits \(YYYYmmdd\)"),
        ("ns", "%Y%m%d%H%M%S", r"in nanoseconds by its name, but 20260301000000 is also .*\(YYYYmmddHHMMSS\)"),
        ("ms", "%Y%m%d%H%M", r"in milliseconds by its name, but 202603010000 is also .*\(YYYYmmddHHMM\)"),
    ],
)
def test_digits_that_may_be_numbers_are_an_error(write: Write, layout: str, pattern: str, words: str) -> None:
    """Both readings are named."""
    times: list[object] = [(BEGIN + timedelta(days=n % 2)).strftime(pattern) for n in range(9)]
    with pytest.raises(InputError, match=words):
        read_trace(log(write, layout, times))


def test_a_number_among_digits_that_is_no_date_is_an_error(write: Write) -> None:
    """The second 61 does not exist."""
    times: list[object] = [20260301000000, 20260301000061, 20260301000100]
    with pytest.raises(InputError, match="1 number with digits of no date"):
        read_trace(log(write, "none", times))


@pytest.mark.parametrize("times", [[0, 3 * 10**11], [5 * 10**14 + n * 10**9 for n in range(9)]])
def test_large_numbers_without_a_unit_are_an_error(write: Write, times: list[object]) -> None:
    """A clock in nanoseconds that begins at 0 is not one in milliseconds since 1970; a name with the unit helps."""
    with pytest.raises(InputError, match=r"no known unit: .*log\.csv:2 has timestamp .* would be in the year 19"):
        read_trace(log(write, "none", times))
    lasts_s = (int(str(times[-1])) - int(str(times[0]))) / 1e9
    assert read_trace(log(write, "ns", times)).total_rate == pytest.approx(len(times) / lasts_s)


def test_times_in_single_precision_are_an_error(tmp_path: Path) -> None:
    """Seconds since 1970 have steps of 128 s in float32; times from 0 on are exact enough."""
    path = tmp_path / "log.parquet"
    sizes = {"input_tokens": [9] * 601, "output_tokens": [9] * 601}
    seconds = np.array(epochs(1), np.float32)
    pq.write_table(pa.table({"timestamp": seconds, **sizes}), path)
    with pytest.raises(InputError, match=r"float32.*steps are 128 s") as caught:
        read_trace(path)
    assert "float64" in caught.value.hint
    pq.write_table(pa.table({"timestamp": np.arange(601, dtype=np.float32), **sizes}), path)
    assert read_trace(path).total_rate == pytest.approx(RATE)
