"""Anchors, suggestions and confidence through the real entry point."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import command

Run = Callable[..., subprocess.CompletedProcess[str]]
SERVICE = """\
model: meta-llama/Llama-3.1-8B
slo: {tpot_ms: 60}
workload: {dataset: arena, rate: 8, buckets: {input: [100, 1000, 16000], output: [100, 2000]}}
offers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1]}
"""
POINT = {"input_tokens": 500, "output_tokens": 200, "concurrency": 8, "tpot_s": 0.045}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``melange`` in a folder with a service and results."""
    (tmp_path / "service.yaml").write_text(SERVICE)
    (tmp_path / "results").mkdir()
    for name, concurrency in (("a", 4), ("b", 16)):
        point = POINT | {"concurrency": concurrency, "accelerator": "A10G"}
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps([point]))
    (tmp_path / "unnamed.json").write_text(json.dumps([POINT]))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "dumb"}
        return command(*arguments, cwd=tmp_path, environment=environment)

    return run


def kinds(profile: dict[str, object]) -> dict[str, set[str]]:
    """How the cells of each accelerator are known."""
    found: dict[str, set[str]] = {}
    for item, rows in zip(profile["replica_types"], profile["provenance"], strict=True):
        names = {profile["provenances"][cell] for row in rows for cell in row}
        key = f"{item['offer']['accelerator']} tp{item['tensor_parallel']}"
        found[key] = found.get(key, set()) | names
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("service.yaml", "--anchor", "results/*.json"),
        ("service.yaml", "--anchor", "results/a.json", "results/b.json"),
        ("service.yaml", "--anchor", "A10G=unnamed.json"),
    ],
)
def test_results_anchor_the_type_that_they_are_of(run: Run, arguments: tuple[str, ...]) -> None:
    """As a pattern, as a shell spreads it, or named by the user; other types stay estimated."""
    done = run("profile", *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    known = kinds(json.loads(done.stdout))
    assert known["A10G tp1"] == {"anchored"}
    assert {name for name, how in known.items() if how == {"estimated"}} == set(known) - {"A10G tp1"}


def test_a_service_names_its_anchors(run: Run, tmp_path: Path) -> None:
    """Relative to its own folder; they are used wherever the service is."""
    (tmp_path / "service.yaml").write_text(SERVICE + "profile: {anchors: ['L4=unnamed.json', results/a.json]}\n")
    known = kinds(json.loads(run("profile", "service.yaml", "--json").stdout))
    assert known["A10G tp1"] == known["L4 tp1"] == {"anchored"}


def test_suggestions_come_with_their_price(run: Run) -> None:
    """In JSON beside the profile, and as a table."""
    # With many replicas a percent of capacity is worth money, whatever the constants are.
    asked = ("profile", "service.yaml", "--suggest-measurements", "2", "--set", "workload.rate=200")
    content = json.loads(run(*asked, "--json").stdout)
    first = content["suggested_measurements"][0]
    assert first["saves_per_h"] > 0
    assert first["gpu_minutes"] > 5
    assert content["max_request_rate"]
    page = run(*asked).stdout
    assert "Suggested measurements" in page
    assert "GPU-minutes" in page


def test_a_cautious_plan_tells_the_cost_of_not_knowing(run: Run) -> None:
    """Cost at low, mid and high, and what to measure; nothing of it where no confidence is asked for."""
    plan = json.loads(run("plan", "--quick", "service.yaml", "--set", "plan.confidence=0.9", "--json").stdout)
    assert plan["confidence"] == 0.9
    assert plan["cost_at"]["low"] >= plan["cost_at"]["mid"] >= plan["cost_at"]["high"] > 0
    assert plan["cost_per_h"] == plan["cost_at"]["low"]
    page = run("plan", "--quick", "service.yaml", "--set", "plan.confidence=0.9").stdout
    assert "The cost of uncertainty" in page
    assert json.loads(run("plan", "--quick", "service.yaml", "--json").stdout)["cost_at"] is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("profile", "service.yaml", "--anchor", "unnamed.json"), "does not name the replica that was measured"),
        (("profile", "service.yaml", "--anchor", "none.json"), "none.json: no such file"),
        (("profile", "service.yaml", "--anchor", "H200=unnamed.json"), "H200 is not among the offers"),
        (("profile", "service.yaml", "results/a.json"), "one service.yaml is needed"),
        (("profile", "results/a.json", "--suggest-measurements", "1"), "need a service.yaml"),
        (
            ("plan", "--quick", "service.yaml", "--set", "plan.confidence=0.3"),
            "plan.confidence must be in [0.5, 1), got 0.3",
        ),
        (
            ("profile", "service.yaml", "--set", "profile={source: m.json, anchors: [results/a.json]}"),
            "profile.anchors correct estimates",
        ),
    ],
)
def test_bad_input_is_two_lines_and_exit_code_2(run: Run, arguments: tuple[str, ...], complaint: str) -> None:
    """Each says what must hold."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
