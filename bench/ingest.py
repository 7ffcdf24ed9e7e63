"""Time ``read_trace`` against named baselines on one file of requests.

    python bench/ingest.py [--rows 100000000] [--repeats 3] [--folder DIR]     # Parquet, against pandas
    python bench/ingest.py --format csv --rows 1000000     # or iso.csv, jsonl, nested.jsonl, against Polars

The two run in turn, each in a separate process, and must give the same counts by bucket. Times are those of the call,
without imports; memory is the peak of the process. Targets for Parquet: a tenth of the time of pandas'
``read_parquet`` and ``numpy.histogram2d``, which do not compute token sums, and at most 1 GiB. Target for text: 1.5
times the time of Polars, which computes the same as melange (counts and token sums by bucket, rate, burstiness in
windows of an hour) but does not check every row. The file (about 1 GB for 100 million rows: arrivals, log-normal sizes)
is written only once.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TARGET_RATIO, TARGET_GIB, TARGET_OF_POLARS = 10.0, 1.0, 1.5
FORMATS = ("parquet", "csv", "iso.csv", "jsonl", "nested.jsonl")


def main() -> None:
    """Run the benchmark, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--format", choices=FORMATS, default="parquet")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "melange-bench")
    parser.add_argument("--side", choices=list(SIDES), help="run this side once and print JSON")
    arguments = parser.parse_args()
    file = arguments.folder / f"requests-{arguments.rows}.{arguments.format}"
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](file)))
        return
    if not file.exists():
        print(f"writing {file} ({arguments.rows:,} rows)", flush=True)
        write_requests(file, arguments.rows, arguments.format)
    compare(file, arguments.rows, arguments.repeats, arguments.format)


def write_requests(file: Path, rows: int, form: str) -> None:
    """Write requests at 1,000/s with log-normal sizes up to the last edges: medians 148 input, 122 output tokens."""
    import duckdb

    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    connection = duckdb.connect()
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET memory_limit = '2GB'")
    connection.execute("SELECT setseed(0.5)")

    def size(median: float, spread: float, largest: int) -> str:
        normal = "sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())"
        return f"least(1 + floor({median} * exp({spread} * {normal})), {largest})::INTEGER"

    requests = (
        f"SELECT i / 1000 + random() / 1000 AS arrival_s, {size(148, 1.3, 128_000)} AS input_tokens, "
        f"{size(122, 1.0, 32_000)} AS output_tokens FROM range({rows}) AS requests(i)"
    )
    shaped = {
        "iso.csv": "SELECT strftime(make_timestamp(1e15::BIGINT + (arrival_s * 1e6)::BIGINT), '%Y-%m-%d %H:%M:%S.%f') "
        f"|| '+00:00' AS arrival_s, input_tokens, output_tokens FROM ({requests})",
        "nested.jsonl": "SELECT 'request-' || row_number() OVER () AS id, arrival_s, "
        f"{{'input_tokens': input_tokens, 'output_tokens': output_tokens}} AS usage FROM ({requests})",
    }
    options = {"csv": "(FORMAT csv, HEADER)", "jsonl": "(FORMAT json)"}.get(form.rpartition(".")[2], "(FORMAT parquet)")
    connection.execute(f"COPY ({shaped.get(form, requests)}) TO '{draft}' {options}")
    draft.replace(file)


def with_melange(file: Path) -> dict[str, float]:
    """One run of ``read_trace``."""
    import ibis.backends.duckdb  # noqa: F401
    import pyarrow.parquet  # noqa: F401 (imports are left out of the time on both sides)

    from melange.workload import prefix_reuse, read_prefixes, typed_text  # noqa: F401
    from melange.workload.traces import read_trace

    nested = {"arrival": "arrival_s", "input": "usage.input_tokens", "output": "usage.output_tokens"}
    started = _clocks()
    workload = read_trace(file, columns=nested if "nested" in file.name else None)
    return _measured(started, (workload.request_rate * (workload.requests or 0) / workload.total_rate).round().tolist())


def with_pandas(file: Path) -> dict[str, float]:
    """One run of ``read_parquet`` and ``histogram2d``, and the rate; without the token sums of melange."""
    import numpy as np
    import pandas as pd
    import pyarrow.parquet  # noqa: F401

    from melange.workload.workload import DEFAULT_INPUT_EDGES, DEFAULT_OUTPUT_EDGES

    started = _clocks()
    table = pd.read_parquet(file)
    # Sizes are integers: half a token more makes upper edges inclusive, like ours.
    edges = [np.array([0, *upper]) + 0.5 for upper in (DEFAULT_INPUT_EDGES, DEFAULT_OUTPUT_EDGES)]
    counts, _, _ = np.histogram2d(table["input_tokens"], table["output_tokens"], bins=edges)
    _ = len(table) / (table["arrival_s"].max() - table["arrival_s"].min())
    return _measured(started, counts.tolist())


def with_polars(file: Path) -> dict[str, float]:
    """One run of ``scan_csv`` or ``scan_ndjson``, with counts and token sums by bucket, rate and burstiness."""
    import numpy as np
    import polars as pl

    from melange.workload.workload import DEFAULT_INPUT_EDGES, DEFAULT_OUTPUT_EDGES

    started = _clocks()
    table = pl.scan_csv(file) if file.suffix == ".csv" else pl.scan_ndjson(file)
    sizes: list[Any] = [pl.col("input_tokens"), pl.col("output_tokens")]
    if "nested" in file.name:
        sizes = [pl.col("usage").struct.field(name) for name in ("input_tokens", "output_tokens")]
    arrival = pl.col("arrival_s")
    arrival = arrival.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%z", time_zone="UTC") if "iso" in file.name else arrival
    found = table.select(arrival, *sizes).collect()
    i = np.searchsorted(DEFAULT_INPUT_EDGES, found["input_tokens"].to_numpy())
    o = np.searchsorted(DEFAULT_OUTPUT_EDGES, found["output_tokens"].to_numpy())
    by_bucket = (
        found.with_columns(i=pl.Series(i), o=pl.Series(o))
        .group_by("i", "o")
        .agg(pl.len(), pl.col("input_tokens").sum(), pl.col("output_tokens").sum())
    )
    counts = np.zeros((len(DEFAULT_INPUT_EDGES), len(DEFAULT_OUTPUT_EDGES)))
    counts[by_bucket["i"].to_numpy(), by_bucket["o"].to_numpy()] = by_bucket["len"].to_numpy()
    seconds = found["arrival_s"].cast(pl.Int64) / 1e6 if "iso" in file.name else found["arrival_s"]
    gaps = pl.DataFrame({"at": seconds}).sort("at").select(hour=pl.col("at") // 3600, gap=pl.col("at").diff())
    gaps.drop_nulls().group_by("hour").agg(pl.len(), pl.col("gap").sum(), squares=(pl.col("gap") ** 2).sum())
    _ = (found["arrival_s"].max(), found["arrival_s"].min())
    return _measured(started, counts.tolist())


def _clocks() -> tuple[float, float]:
    """Wall-clock time, and CPU time of this process [s]."""
    return time.perf_counter(), time.process_time()


def _measured(started: tuple[float, float], counts: list[list[float]]) -> dict[str, float]:
    elapsed_s, cpu_s = (now - before for now, before in zip(_clocks(), started, strict=True))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak = usage.ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak * 1024
    return {
        "elapsed_s": elapsed_s,
        "cpu_s": cpu_s,
        "peak_gib": peak_bytes / 2**30,
        "checksum": _sum(counts),
    }


def _sum(counts: list[list[float]]) -> float:
    """A weighted sum, which changes if counts are in other buckets."""
    return sum(count * (31 * i + o + 1) for i, row in enumerate(counts) for o, count in enumerate(row))


SIDES = {"melange": with_melange, "pandas": with_pandas, "polars": with_polars}


def compare(file: Path, rows: int, repeats: int, form: str) -> None:
    """Run both sides in turn; print each run, the medians and the ratio."""
    other = "pandas" if form == "parquet" else "polars"
    found: dict[str, list[dict[str, float]]] = {"melange": [], other: []}
    for _ in range(repeats):
        for side in found:
            command = [sys.executable, __file__, "--rows", str(rows), "--folder", str(file.parent)]
            command += ["--format", form, "--side", side]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            found[side].append(result)
            times = f"{result['elapsed_s']:8.3f} s   CPU {result['cpu_s']:6.2f} s"
            print(f"{side:8} {times}   peak {result['peak_gib']:.2f} GiB", flush=True)
    sums = {run["checksum"] for runs in found.values() for run in runs}
    if len(sums) > 1:
        raise SystemExit("the counts of the two sides differ")
    seconds = {side: statistics.median(run["elapsed_s"] for run in runs) for side, runs in found.items()}
    cpu = {side: statistics.median(run["cpu_s"] for run in runs) for side, runs in found.items()}
    print(f"{form}, {rows:,} rows, median of {repeats}:")
    for what, by_side in (("time", seconds), ("CPU", cpu)):
        print(f"{what}: melange {by_side['melange']:.3f} s, {other} {by_side[other]:.3f} s")
    if other == "polars":
        ratio = seconds["melange"] / seconds[other]
        print(f"times Polars: {ratio:.2f} (target {TARGET_OF_POLARS:g}: {_reached(ratio <= TARGET_OF_POLARS)})")
        return
    ratio = seconds[other] / seconds["melange"]
    peak = max(run["peak_gib"] for run in found["melange"])
    print(f"ratio {ratio:.1f} (target {TARGET_RATIO:g}: {_reached(ratio >= TARGET_RATIO)})")
    print(f"peak memory {peak:.2f} GiB (target {TARGET_GIB:g}: {_reached(peak <= TARGET_GIB)})")


def _reached(is_reached: bool) -> str:
    return "met" if is_reached else "NOT MET"


if __name__ == "__main__":
    main()
