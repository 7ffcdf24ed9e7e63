"""Write examples/requests.parquet: a small synthetic request log, half an hour of a chat service that gets busier.

The sizes are lognormal, the arrivals Poisson at 3 to 5 requests/s: drawn, and nobody's traffic.
"""

from pathlib import Path

import duckdb
import numpy as np

REQUESTS, START_US = 7_200, 1_790_000_000_000_000
draw = np.random.default_rng(7)
rate = np.linspace(3.0, 5.0, REQUESTS)
arrival = START_US + np.cumsum(draw.exponential(1e6 / rate)).astype(np.int64)
log = {
    "arrival": arrival,
    "input": np.clip(draw.lognormal(5.8, 1.1, REQUESTS), 5, 8_000).astype(np.int32),
    "output": np.clip(draw.lognormal(4.9, 0.8, REQUESTS), 1, 1_000).astype(np.int32),
}
target = Path(__file__).with_name("requests.parquet")
query = "SELECT make_timestamp(arrival) AS arrival, input AS input_tokens, output AS output_tokens FROM log"
duckdb.sql(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
print(f"{REQUESTS:,} requests: {target.stat().st_size:,} bytes")
