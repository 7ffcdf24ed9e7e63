"""Time ``read_trace`` against pandas ``read_parquet`` + ``numpy.histogram2d`` on one Parquet file.

    python bench/ingest.py [--rows 100000000] [--repeats 3] [--folder DIR]

Both run in turn, each in a process of its own, and both end with the same counts by bucket. Times are those of the
call, imports done before; memory is the peak of the process. Target: a tenth of the time, at most 1 GiB. The file
(about 1 GB for 100 million rows: arrivals, log-normal sizes) is made once.
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

TARGET_RATIO, TARGET_GIB = 10.0, 1.0


def main() -> None:
    """Run the benchmark, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "melange-bench")
    parser.add_argument("--side", choices=["melange", "pandas"], help="run this side once and print JSON")
    arguments = parser.parse_args()
    file = arguments.folder / f"requests-{arguments.rows}.parquet"
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](file)))
        return
    if not file.exists():
        print(f"writing {file} ({arguments.rows:,} rows)", flush=True)
        write_requests(file, arguments.rows)
    compare(file, arguments.rows, arguments.repeats)


def write_requests(file: Path, rows: int) -> None:
    """Requests at 1,000/s with log-normal sizes: medians 148 input and 122 output tokens, cut at the last edges."""
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

    connection.execute(
        f"COPY (SELECT i / 1000 + random() / 1000 AS arrival_s, {size(148, 1.3, 128_000)} AS input_tokens, "
        f"{size(122, 1.0, 32_000)} AS output_tokens FROM range({rows}) AS requests(i)) TO '{draft}' (FORMAT parquet)"
    )
    draft.replace(file)


def with_melange(file: Path) -> dict[str, float]:
    """One run of ``read_trace``."""
    import ibis.backends.duckdb  # noqa: F401
    import pyarrow.parquet  # noqa: F401 (imports are left out of the time on both sides)

    from melange.workload.traces import read_trace

    started = time.perf_counter()
    workload = read_trace(file)
    return _measured(started, (workload.request_rate * (workload.requests or 0) / workload.total_rate).round().tolist())


def with_pandas(file: Path) -> dict[str, float]:
    """One run of ``read_parquet`` and ``histogram2d``, and the rate; without the token sums that melange also has."""
    import numpy as np
    import pandas as pd
    import pyarrow.parquet  # noqa: F401

    from melange.workload.workload import DEFAULT_INPUT_EDGES, DEFAULT_OUTPUT_EDGES

    started = time.perf_counter()
    table = pd.read_parquet(file)
    # Whole numbers: half a token more makes upper edges included, as ours are.
    edges = [np.array([0, *upper]) + 0.5 for upper in (DEFAULT_INPUT_EDGES, DEFAULT_OUTPUT_EDGES)]
    counts, _, _ = np.histogram2d(table["input_tokens"], table["output_tokens"], bins=edges)
    _ = len(table) / (table["arrival_s"].max() - table["arrival_s"].min())
    return _measured(started, counts.tolist())


def _measured(started: float, counts: list[list[float]]) -> dict[str, float]:
    elapsed_s = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak = usage.ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak * 1024
    return {
        "elapsed_s": elapsed_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_gib": peak_bytes / 2**30,
        "checksum": _sum(counts),
    }


def _sum(counts: list[list[float]]) -> float:
    """A weighted sum that differs where counts lie in other buckets."""
    return sum(count * (31 * i + o + 1) for i, row in enumerate(counts) for o, count in enumerate(row))


SIDES = {"melange": with_melange, "pandas": with_pandas}


def compare(file: Path, rows: int, repeats: int) -> None:
    """Interleaved runs; prints each, the medians and the ratio."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side in SIDES:
            command = [sys.executable, __file__, "--rows", str(rows), "--folder", str(file.parent), "--side", side]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            found[side].append(result)
            times = f"{result['elapsed_s']:8.3f} s   CPU {result['cpu_s']:6.2f} s"
            print(f"{side:8} {times}   peak {result['peak_gib']:.2f} GiB", flush=True)
    sums = {run["checksum"] for runs in found.values() for run in runs}
    if len(sums) > 1:
        raise SystemExit("the two sides counted differently")
    seconds = {side: statistics.median(run["elapsed_s"] for run in runs) for side, runs in found.items()}
    peak = max(run["peak_gib"] for run in found["melange"])
    ratio = seconds["pandas"] / seconds["melange"]
    print(f"{rows:,} rows, median of {repeats}: melange {seconds['melange']:.3f} s, pandas {seconds['pandas']:.3f} s")
    print(f"ratio {ratio:.1f} (target {TARGET_RATIO:g}: {'reached' if ratio >= TARGET_RATIO else 'NOT reached'})")
    print(f"peak memory {peak:.2f} GiB (target {TARGET_GIB:g}: {'reached' if peak <= TARGET_GIB else 'NOT reached'})")


if __name__ == "__main__":
    main()
