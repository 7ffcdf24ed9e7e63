from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melange.errors import InputError
from melange.workload import layouts
from melange.workload.layouts import Layout
from melange.workload.traces import read_trace
from melange.workload.workload import Buckets, Workload

Write = Callable[[str, str], Path]
Rows = Callable[..., Path]

AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2225670,879,55
2023-11-16 18:15:56.6805900,91,16
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,374,44
2024-05-10 00:00:04.009930+00:00,396,109
2024-05-10 00:00:05+00:00,879,55
2024-05-10 00:00:10.009930+00:00,91,16
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,374,44,418,Conversation log
9,ChatGPT,396,109,505,Conversation log
10,GPT-4,879,55,934,API log
11,GPT-4,700,0,700,API log
15,ChatGPT,91,16,107,Conversation log
"""
BURSTGPT_2 = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,1,2.5,ChatGPT,374,44,418,Conversation log
9,1,0.5,ChatGPT,396,109,505,Conversation log
10,2,9,GPT-4,879,55,934,API log
11,3,0,GPT-4,700,0,700,API log
15,4,1,ChatGPT,91,16,107,Conversation log
"""
MOONCAKE = """{"timestamp": 0, "input_length": 374, "output_length": 44, "hash_ids": [0, 1, 2]}
{"timestamp": 4000, "input_length": 396, "output_length": 109, "hash_ids": [0, 1, 3]}
{"timestamp": 5000, "input_length": 879, "output_length": 55, "hash_ids": []}
{"timestamp": 10000, "input_length": 91, "output_length": 16, "hash_ids": [7]}
"""
VIDUR = """arrived_at,num_prefill_tokens,num_decode_tokens
0.5,374,44
4.5,396,109
5.5,879,55
10.5,91,16
"""
OWN = VIDUR.replace("arrived_at,num_prefill_tokens,num_decode_tokens", "arrival_s,input_tokens,output_tokens")

PUBLISHED = {
    "azure-2023.csv": AZURE_2023,
    "azure-2024.csv": AZURE_2024,
    "burstgpt.csv": BURSTGPT,
    "burstgpt-2.csv": BURSTGPT_2,
    "mooncake.jsonl": MOONCAKE,
    "vidur.csv": VIDUR,
    "own.csv": OWN,
    "windows.csv": OWN.replace("\n", "\r\n"),
    "bom.csv": "\ufeff" + OWN,
    "semicolons.csv": OWN.replace(",", ";"),
    "tabs.tsv": OWN.replace(",", "\t"),
    "untitled": OWN,
}


def _check_toy(workload: Workload) -> None:
    """The four requests that every published example above holds: 10 s, so 0.4/s."""
    assert workload.requests == 4
    np.testing.assert_allclose(workload.request_rate, [[0.2, 0.1], [0.0, 0.1]])
    np.testing.assert_allclose(workload.input_tokens, [[232.5, 396], [1000, 879]])
    np.testing.assert_allclose(workload.output_tokens, [[30, 109], [50, 55]])


@pytest.mark.parametrize("name", PUBLISHED)
def test_reads_published_layouts(write: Write, toy_buckets: Buckets, name: str) -> None:
    """Each published layout is told by its columns and gives the same rates and mean sizes."""
    _check_toy(read_trace(write(name, PUBLISHED[name]), buckets=toy_buckets))


def test_layouts_that_name_the_sizes_alike_are_told_by_the_arrival(
    write: Write, toy_buckets: Buckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mooncake's sizes under another arrival, in seconds; without one, sizes are sizes."""
    other = Layout(name="Tollgate trace", arrival="ts_s", input="input_length", output="output_length", unit_s=1.0)
    monkeypatch.setitem(layouts._LAYOUTS, "tollgate", other)
    text = "ts_s,input_length,output_length\n0,100,10\n10,200,20\n"
    assert read_trace(write("log.csv", text), buckets=toy_buckets).source.count("Tollgate") == 1
    mooncake = text.replace("ts_s", "timestamp").replace("\n10", "\n10000")
    assert read_trace(write("log.csv", mooncake), buckets=toy_buckets).source.count("Mooncake") == 1
    sizes = text.replace("ts_s", "row")
    assert read_trace(write("log.csv", sizes), buckets=toy_buckets, request_rate=2.0).total_rate == pytest.approx(2.0)


def test_burstgpt_failed_rows_are_counted_and_told(write: Write, toy_buckets: Buckets) -> None:
    """A response of 0 tokens is a failed request: counted, told, and not in the rate."""
    workload = read_trace(write("burstgpt.csv", BURSTGPT), buckets=toy_buckets)
    assert workload.failed_requests == 1
    caution = next(caution for caution in workload.cautions if caution.kind == "failed-rows")
    assert "1 of 5 rows (20.0%)" in caution.message


def test_failed_rows_at_the_edges_count_towards_the_time(rows: Rows, toy_buckets: Buckets) -> None:
    """A failed request at the end still says that the log went on: 2 served over 10 s."""
    workload = read_trace(rows((0, 10, 10), (5, 10, 10), (10, 0, 5)), buckets=toy_buckets)
    assert workload.total_rate == pytest.approx(0.2)
    assert workload.failed_requests == 1


def test_reads_gzip(tmp_path: Path, toy_buckets: Buckets) -> None:
    """Gzipped CSV and JSONL are read as they are."""
    for name, text in (("a.csv.gz", AZURE_2023), ("m.jsonl.gz", MOONCAKE)):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()))
        _check_toy(read_trace(path, buckets=toy_buckets))


def test_reads_columns_that_the_user_names(write: Write, toy_buckets: Buckets) -> None:
    """Named columns, in any case, with milliseconds told by the column's name."""
    text = "id,When_ms,Prompt,Completion\n1,0,374,44\n2,4000,396,109\n3,5000,879,55\n4,10000,91,16\n"
    columns = {"arrival": "when_ms", "input": "Prompt", "output": "completion"}
    _check_toy(read_trace(write("log.csv", text), buckets=toy_buckets, columns=columns))


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_numbers_since_1970_tell_their_unit(tmp_path: Path, toy_buckets: Buckets, unit: int) -> None:
    """Seconds, milliseconds, microseconds and nanoseconds since 1970 are told by their size."""
    times = [(1_700_000_000 + offset) * unit for offset in (0, 4, 5, 10)]
    table = pa.table({"ts": times, "prompt": [374, 396, 879, 91], "completion": [44, 109, 55, 16]})
    pq.write_table(table, tmp_path / "log.parquet")
    columns = {"arrival": "ts", "input": "prompt", "output": "completion"}
    _check_toy(read_trace(tmp_path / "log.parquet", buckets=toy_buckets, columns=columns))


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ms", tz="Europe/Berlin")])
def test_reads_parquet_timestamps(tmp_path: Path, toy_buckets: Buckets, kind: pa.DataType) -> None:
    """Points in time with any resolution, with and without a zone."""
    times = pa.array([1_700_000_000_000 + offset for offset in (0, 4000, 5000, 10000)], pa.timestamp("ms")).cast(kind)
    sizes = {"input_tokens": [374.0, 396, 879, 91], "output_tokens": pa.array([44, 109, 55, 16], pa.uint16())}
    pq.write_table(pa.table({"arrival_s": times, **sizes}), tmp_path / "log.parquet")
    _check_toy(read_trace(tmp_path / "log.parquet", buckets=toy_buckets))


def test_reads_a_folder_and_a_glob_of_parquet(tmp_path: Path, toy_buckets: Buckets) -> None:
    """A folder's files, and those that match a pattern, are one trace."""
    columns = {"arrival_s": [0.0, 4, 5, 10], "input_tokens": [374, 396, 879, 91], "output_tokens": [44, 109, 55, 16]}
    table = pa.table(columns)
    (tmp_path / "day=1").mkdir()
    pq.write_table(table.slice(0, 3), tmp_path / "day=1" / "part-0.parquet")
    pq.write_table(table.slice(3), tmp_path / "part-1.parquet")
    _check_toy(read_trace(tmp_path, buckets=toy_buckets))
    _check_toy(read_trace(str(tmp_path / "**" / "part-*.parquet"), buckets=toy_buckets))


def test_reads_an_ibis_table(toy_buckets: Buckets) -> None:
    """A table of any Ibis backend, here DuckDB's own, needs no file."""
    columns = {"arrival_s": [0.0, 4, 5, 10], "input_tokens": [374, 396, 879, 91], "output_tokens": [44, 109, 55, 16]}
    workload = read_trace(ibis.memtable(pa.table(columns)), buckets=toy_buckets)
    _check_toy(workload)
    assert workload.source.startswith("Ibis table")


def test_sizes_without_arrivals_need_a_rate(write: Write, toy_buckets: Buckets) -> None:
    """Lengths only: an error with a hint, and a workload once the rate is given."""
    path = write("lengths.csv", "num_prefill_tokens,num_decode_tokens\n100,10\n900,100\n")
    with pytest.raises(InputError, match="no arrival times, only sizes") as caught:
        read_trace(path, buckets=toy_buckets)
    assert "request rate" in caught.value.hint
    assert read_trace(path, buckets=toy_buckets, request_rate=4).request_rate.tolist() == [[2, 0], [0, 2]]


def test_request_rate_replaces_the_logs_own(rows: Rows, toy_buckets: Buckets) -> None:
    """A rate that is given scales the mix; requests that all come at once then need none of their own."""
    path = rows((3, 10, 10), (3, 600, 10))
    with pytest.raises(InputError, match="all 2 requests arrive at the same time"):
        read_trace(path, buckets=toy_buckets)
    assert read_trace(path, buckets=toy_buckets, request_rate=8).request_rate.tolist() == [[4, 0], [4, 0]]


def test_stretch_of_time(write: Write, toy_buckets: Buckets) -> None:
    """Seconds, durations and points in time select; the start is included and the end is not."""
    path = write("azure.csv", AZURE_2023)
    for start, end in (
        (4, "9s"),
        ("4s", "0.15m"),
        ("2023-11-16T18:15:50.68059", "2023-11-16T19:15:55.680590+01:00"),
    ):
        workload = read_trace(path, buckets=toy_buckets, start=start, end=end)
        assert workload.requests == 2
        assert workload.total_rate == pytest.approx(2 / 5)
    assert read_trace(path, buckets=toy_buckets, start="5s").total_rate == pytest.approx(1 / 5)
    assert read_trace(path, buckets=toy_buckets, end="1h").requests == 4


@pytest.mark.parametrize(("start", "end"), [("1h", None), (6, 5), ("2030-01-01", None), (None, "2020-01-01")])
def test_stretch_that_holds_nothing(write: Write, start: object, end: object) -> None:
    """A stretch outside the trace is an error that says where the trace runs."""
    with pytest.raises(InputError, match=r"no request (between|from|before)") as caught:
        read_trace(write("azure.csv", AZURE_2023), start=start, end=end)  # type: ignore[arg-type]
    assert "2023-11-16T18:15:46Z" in caught.value.hint


@pytest.mark.parametrize(
    ("rate", "expected"), [("mean", 5 / 3 / 10), ("max", 0.3), ("p50", 0.2), ("p75", 0.25), ("p99.9", 0.2998)]
)
def test_rate_of_the_busiest_windows(rows: Rows, toy_buckets: Buckets, rate: str, expected: float) -> None:
    """Windows of 10 s with 3, 0 and 2 requests (the rest at the end is none): statistics by hand."""
    path = rows(*((t, 10, 10) for t in (100, 101, 109.5, 120, 129.9, 130, 135)))
    workload = read_trace(path, buckets=toy_buckets, window_s=10, rate=rate)
    assert workload.total_rate == pytest.approx(expected)
    assert workload.requests == 7


def test_windows_leave_failed_requests_out(rows: Rows, toy_buckets: Buckets) -> None:
    """The rate of windows is that of requests that were served."""
    path = rows((0, 10, 10), (1, 10, 0), (2, 10, 0), (10, 10, 10), (20, 10, 10))
    assert read_trace(path, buckets=toy_buckets, window_s=10, rate="max").total_rate == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": "p99"}, "needs time windows"),
        ({"rate": "p100", "window_s": 5}, "must be 'mean', 'max' or 'p50'"),
        ({"window_s": 0}, "window must be > 0"),
        ({"window_s": 3600, "rate": "max"}, "0 windows of 3600 s fit"),
        ({"window_s": 1, "rate": "p50"}, "is 0 requests/s"),
        ({"start": "soon"}, "start must be seconds, a duration"),
        ({"trace_format": "azur"}, "did you mean 'azure'"),
        ({"trace_format": "mooncake"}, "missing columns: 'input_length'"),
        ({"buckets": Buckets.ordinal(2, 2)}, "only numbered"),
        ({"columns": {"inputs": "a"}}, "did you mean 'input'"),
        ({"columns": {"input": "ContextTokens"}}, "must name the output column"),
        ({"columns": {"input": "ContextToken", "output": "out"}}, "did you mean 'ContextTokens'"),
    ],
)
def test_settings_that_cannot_be(write: Write, options: dict[str, object], message: str) -> None:
    """Settings that contradict themselves or the trace are errors, with the nearest name."""
    with pytest.raises(InputError, match=message):
        read_trace(write("azure.csv", AZURE_2023), **options)  # type: ignore[arg-type]


def test_burstiness_of_even_and_of_bursty_arrivals(rows: Rows, toy_buckets: Buckets) -> None:
    """Even gaps have burstiness 0; gaps of 1 s and 3 s in turn have 0.5; equal times tell nothing."""
    even = read_trace(rows(*((t, 10, 10) for t in range(41))), buckets=toy_buckets)
    assert even.burstiness == pytest.approx(0)
    bursty = read_trace(rows(*((4 * (t // 2) + t % 2, 10, 10) for t in range(41))), buckets=toy_buckets)
    assert bursty.burstiness == pytest.approx(0.5)
    assert read_trace(rows(*((t // 2, 10, 10) for t in range(41))), buckets=toy_buckets).burstiness is None
    assert read_trace(rows(*((t, 10, 10) for t in range(9))), buckets=toy_buckets).burstiness is None


def test_thin_data_is_told(rows: Rows, toy_buckets: Buckets) -> None:
    """Few requests, and few in a bucket that matters, make a caution with figures."""
    thin = read_trace(rows((0, 10, 10), (1, 10, 10)), buckets=toy_buckets).cautions
    assert [caution.kind for caution in thin] == ["thin-data"]
    assert "only 2 requests" in thin[0].message
    enough = read_trace(rows(*((t, 10, 10) for t in range(1000))), buckets=toy_buckets)
    assert enough.cautions == ()


def test_requests_above_the_last_edge(rows: Rows, toy_buckets: Buckets) -> None:
    """Nothing is clipped: how many are too large, the largest, and the edge to add."""
    with pytest.raises(InputError, match="2 requests are larger than the last bucket") as caught:
        read_trace(rows((0, 10, 10), (1, 1001, 10), (2, 3500, 200)), buckets=toy_buckets)
    assert "input up to 3,500 tokens (last edge 1,000)" in str(caught.value)
    assert caught.value.hint == "add 4000 to buckets.input"


def test_edges_are_included_above_and_excluded_below(rows: Rows, toy_buckets: Buckets) -> None:
    """A size on an edge belongs to the bucket below it."""
    workload = read_trace(rows((0, 500, 50), (1, 501, 51)), buckets=toy_buckets)
    assert (workload.request_rate > 0).tolist() == [[True, False], [False, True]]


def test_progress_is_told(write: Write, toy_buckets: Buckets) -> None:
    """The progress function ends at 1."""
    told: list[float] = []
    read_trace(write("azure.csv", AZURE_2023), buckets=toy_buckets, progress=told.append)
    assert told[-1] == 1.0
    assert all(0 <= fraction <= 1 for fraction in told)


sizes = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 200)), min_size=1, max_size=40)


@settings(max_examples=15, deadline=None)
@given(sizes=sizes.filter(lambda rows: any(i and o for i, o in rows)))
def test_requests_and_tokens_are_conserved(sizes: list[tuple[int, int]]) -> None:
    """Every row is served or failed, and no token is lost or made: rates x mean sizes give the sums."""
    columns = {"input_tokens": [i for i, _ in sizes], "output_tokens": [o for _, o in sizes]}
    table = ibis.memtable(pa.table(columns))
    grid = Buckets(input_edges=(7, 500, 1000), output_edges=(50, 200))
    served = [(i, o) for i, o in sizes if i and o]
    workload = read_trace(table, buckets=grid, request_rate=len(served))
    assert workload.requests == len(served)
    assert workload.failed_requests == len(sizes) - len(served)
    assert workload.input_token_rate == pytest.approx(sum(i for i, _ in served))
    assert workload.output_token_rate == pytest.approx(sum(o for _, o in served))


AZURE = Path(__file__).parents[3] / "shared" / "data" / "traces" / "azure_2023_conv.parquet"


@pytest.mark.skipif(not AZURE.exists(), reason="needs the folder ../shared/data")
def test_azure_conversation_hour() -> None:
    """The published hour: 19,366 requests in 3,501.72 s, 1,154.7 tokens in and 211.1 out in the mean."""
    workload = read_trace(AZURE)
    assert workload.total_rate == pytest.approx(19366 / 3501.721937)
    assert workload.input_token_rate / workload.total_rate == pytest.approx(1154.6974, abs=1e-3)
    assert workload.output_token_rate / workload.total_rate == pytest.approx(211.1259, abs=1e-3)
    assert workload.burstiness == pytest.approx(1.094, abs=1e-3)
