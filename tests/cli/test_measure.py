"""Measuring through the real entry point: what it says before, while and after; interruptions; what becomes of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from measuring import queue_server, workload

from melange.units import count_of

MELANGE = Path(sys.executable).with_name("melange")
Start = Callable[..., subprocess.Popen[str]]
QUICK = ("--slo", "tpot_ms=5,statistic=mean", "--workload", "workload.json", "--requests", "8", "--precision", "0.4")
SERVER = ("--fixed-ms", "2", "--each-ms", "0.4")
SERVICE = """\
model: meta-llama/Llama-3.1-8B
slo: {tpot_ms: 5, statistic: mean}
workload: {file: workload.json}
offers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1]}
"""


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start ``melange`` in a folder with a workload and a service."""
    workload([[0.1, 0.5], [0.1, 0.1]]).save(tmp_path / "workload.json")
    (tmp_path / "service.yaml").write_text(SERVICE)
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "dumb"}

    def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [MELANGE, *arguments],
            cwd=tmp_path,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_with_interrupts,
        )

    return start


def _with_interrupts() -> None:
    """Ctrl-C reaches a command even where these tests run in the background, which has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit status and what it said on stdout and stderr."""
    out, errors = process.communicate(timeout=120)
    return process.returncode, out, errors


def points_in(path: Path) -> list[tuple[list[int], float | None, bool]]:
    """Bucket and rate of every load point of a journal, and whether it was a short test."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [(line["bucket"], line["step"]["rate"], line["step"]["is_far"]) for line in lines if "step" in line]


@pytest.mark.heavy
def test_it_is_interrupted_killed_resumed_and_planned_with(start: Start, tmp_path: Path) -> None:
    """Ctrl-C says how to go on, kill -9 loses nothing either, no point is sent twice, and a plan reads the profile."""
    journal = tmp_path / "measure-box.jsonl"
    with queue_server(*SERVER, "--key", "secret") as url:
        command = ("measure", "--url", url, "--replica-type", "box", "--cost-per-h", "2", *QUICK, "--out", "p.json")
        for ending, count in ((signal.SIGINT, 1), (signal.SIGKILL, 2)):
            process = start(*command, *(("--resume",) if count > 1 else ()), MELANGE_API_KEY="secret")
            while not (journal.exists() and len(points_in(journal)) >= count) and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(ending)
            status, _, errors = ended(process)
            assert status == (130 if ending == signal.SIGINT else -signal.SIGKILL)
            if ending == signal.SIGINT:
                kept = len(points_in(journal))
                are = "is" if kept == 1 else "are"
                assert f"{count_of(kept, 'load point')} {are} kept in measure-box.jsonl" in errors
                assert "the same command with --resume continues" in errors
        status, _, errors = ended(start(*command, MELANGE_API_KEY="secret"))
        assert status == 2
        assert "measure-box.jsonl: already exists" in errors
        status, out, errors = ended(start(*command, "--resume", MELANGE_API_KEY="secret"))
    assert status == 0, errors
    assert "Expected measuring time" in errors
    assert "USD" in errors
    assert "Ended: the plan would no longer change" in out
    points = [str(point) for point in points_in(journal)]
    assert len(points) == len(set(points))
    profile = json.loads((tmp_path / "p.json").read_text())
    assert {profile["provenances"][cell] for rows in profile["provenance"] for row in rows for cell in row} == {
        "measured",
        "anchored",
    }
    status, out, errors = ended(
        start("plan", "--quick", "--workload", "workload.json", "--profile", "p.json", "--json")
    )
    assert status == 0, errors
    assert json.loads(out)["cost_per_h"] == 2.0


@pytest.mark.heavy
def test_a_service_says_what_the_server_is_and_the_rest_is_estimated(start: Start, tmp_path: Path) -> None:
    """The measured cell and the anchored ones are of the type that the server is; a plan of the service reads them."""
    with queue_server(*SERVER) as url:
        options = ("--url", url, "--buckets", "1", "--requests", "8", "--precision", "0.4")
        status, out, errors = ended(start("measure", "service.yaml", "--replica-type", "A10G", *options, "--json"))
    assert status == 0, errors
    content = json.loads(out)
    assert content["campaign"]["points"] >= 3
    by_accelerator = {
        item["offer"]["accelerator"]: {content["provenances"][cell] for row in rows for cell in row}
        for item, rows in zip(content["replica_types"], content["provenance"], strict=True)
        if item["tensor_parallel"] == 1
    }
    assert by_accelerator == {"A10G": {"measured", "anchored"}, "L4": {"estimated"}}
    journal = next(tmp_path.glob("measure-*.jsonl"))
    status, out, errors = ended(start("profile", "service.yaml", "--anchor", str(journal), "--json"))
    assert status == 0, errors
    assert "measured" in {
        json.loads(out)["provenances"][c] for r in json.loads(out)["provenance"] for o in r for c in o
    }


def test_a_dry_run_says_what_it_would_take_and_sends_no_load(start: Start, tmp_path: Path) -> None:
    """Minutes and price by size, before anything is measured."""
    with queue_server(*SERVER) as url:
        status, out, errors = ended(start("measure", "--url", url, *QUICK, "--cost-per-h", "2", "--dry-run"))
    assert status == 0, errors
    assert "All 4 take about" in out
    assert not list(tmp_path.glob("*.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--url", "localhost:8000", *QUICK), "--url must be the http address", "--url http://localhost:8000"),
        (("--url", "http://127.0.0.1:9", "--workload", "workload.json"), "an SLO is needed", "--slo tpot_ms=60"),
        (("--url", "http://127.0.0.1:9", "--slo", "tpot_ms=60"), "a workload is needed", "--workload workload.json"),
        (("--url", "http://127.0.0.1:9", "--slo", "tpot=60"), "unknown key 'tpot'", ""),
        (("--url", "http://127.0.0.1:9", "--slo", "60"), "--slo must be KEY=VALUE", "tpot_ms=60"),
        (("service.yaml", "--url", "http://127.0.0.1:9", "--cost-per-h", "1"), "offers already have prices", ""),
        (("--url", "http://127.0.0.1:9", *QUICK, "--budget", "soon"), "--budget must be a duration", ""),
    ],
    ids=lambda value: None,
)
def test_what_is_missing_is_said_before_a_server_is_asked(
    start: Start, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    """With the next thing to do."""
    status, _, errors = ended(start("measure", *arguments))
    assert status == 2
    assert message in errors
    assert hint in errors


def test_without_the_live_extra_it_says_what_to_install(tmp_path: Path) -> None:
    """Not an ImportError."""
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'aiohttp' else find(name, *rest)\n"
        "from melange.cli import main\n"
        "sys.argv = ['melange', 'measure', '--url', 'http://127.0.0.1:9']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 2
    assert "hint: in the clone of Melange: pip install '.[live]'" in done.stderr
