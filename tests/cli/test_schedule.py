"""Planning over time through the real entry point."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from forked import command

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
slo: {tpot_ms: 80}
workload: {file: demand.json, over: day}
offers: {gpus: [L4, L40S], providers: [aws], regions: [us-east-1]}
profile: {tensor_parallel: 1}
schedule: {reserved: [{term_years: 1, discount: 0.4}], spot: {discount: 0.6}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A service, and a log of a day in which it is busy at noon."""
    random = np.random.default_rng(1)
    times = np.sort(random.normal(43200, 15000, 4000) % 86400)
    rows = [f"{t + 1.7e9 - 1.7e9 % 86400:.2f},{random.integers(50, 900)},{random.integers(10, 300)}" for t in times]
    (tmp_path / "log.csv").write_text("\n".join(["arrival,input_tokens,output_tokens", *rows]) + "\n")
    (tmp_path / "service.yaml").write_text(SERVICE)
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``melange`` in a folder."""
    environment = os.environ | {"TERM": "dumb", "COLUMNS": "80"}
    return command(*arguments, cwd=folder, environment=environment, timeout_s=300)


@pytest.mark.heavy
def test_from_a_log_to_a_schedule(folder: Path) -> None:
    """The traffic of a log as a file, then the schedule in words, as JSON and as a page."""
    read = run(folder, "workload", "log.csv", "--over", "day", "--time-zone", "Europe/Berlin", "--out", "demand.json")
    assert read.returncode == 0, read.stderr
    assert "in the busiest" in read.stdout
    done = run(folder, "schedule", "service.yaml", "--quick", "--out", "schedule.json", "--report", "page.html")
    assert done.returncode == 0, done.stderr
    assert "a week (" in done.stdout.splitlines()[0]
    assert max(map(len, done.stdout.splitlines())) <= 80
    content = json.loads((folder / "schedule.json").read_text())
    assert content["melange"] == "schedule/1"
    assert len(content["hours"]["cost_per_h"]) == 24
    assert "The fleet of each hour under its load" in (folder / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("schedule", "service.yaml"), "demand.json: cannot be read"),
        (("schedule", "log.csv"), "a schedule needs a service.yaml"),
        (("schedule", "service.yaml", "--out", "a", "--report", "a"), "both name a"),
        (("workload", "log.csv", "--over", "month"), "over"),
        (("workload", "log.csv", "--time-zone", "Europe/Berlin"), "time_zone applies only to traffic over time"),
        (("workload", "--rates", "log.csv", "--over", "day"), "workload.rates needs workload.sizes"),
    ],
)
def test_errors_name_what_is_wrong(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    """Exit code 2, and one sentence."""
    done = run(folder, *arguments)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
