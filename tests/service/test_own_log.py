"""A service whose workload is a log: its plan is certified on the log's requests as they came."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from melange.cli.app import app
from melange.plan.plan import Plan
from melange.service.session import Session
from melange.workload.arrivals import draw
from melange.workload.datasets import dataset

pytestmark = pytest.mark.heavy

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
slo: {ttft_ms: 2000, tpot_ms: 80}
workload: {trace: log.csv}
offers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1]}
plan: {max_types: 1}  # mixes take longer to find, and hold no less
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """With three times as many requests in a fifth of the time, 8 a second in the mean."""
    shape = [(0.0, 1.0), (0.4, 1.0), (0.4, 3.0), (0.6, 3.0), (0.6, 1.0), (1.0, 1.0)]
    drawn = draw(dataset("arena", request_rate=8.0), 3000, seed=3).shaped(shape).at_rate(8.0)
    rows = np.column_stack([drawn.arrival_s, drawn.input_tokens, drawn.output_tokens])
    head = "arrival_s,input_tokens,output_tokens"
    np.savetxt(tmp_path / "log.csv", rows, fmt=["%.4f", "%d", "%d"], delimiter=",", header=head, comments="")
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)
    return path


@pytest.mark.parametrize(
    ("settings", "rate"),
    [((), 8.0), (("workload.rate=16",), 16.0), (("workload.rate=max", "workload.window=30s"), 8.0)],
    ids=["its own", "a number", "a statistic"],
)
def test_what_is_certified_for_a_log_holds_when_it_is_replayed(
    service: Path, tmp_path: Path, settings: tuple[str, ...], rate: float
) -> None:
    """At the log's own pace, also where a statistic of it is planned for, or at the rate that a service says."""
    plan = Session(service, settings=settings).answer()
    assert plan.certificate is not None
    assert plan.certificate.rate == pytest.approx(rate, rel=1e-3)
    plan.save(tmp_path / "plan.json")
    done = CliRunner().invoke(
        app, ["validate", str(tmp_path / "plan.json"), "--trace", str(tmp_path / "log.csv"), "--json"]
    )
    shown = json.loads(done.stdout)
    assert shown["holds"]
    assert shown["attainment"]["value"] == pytest.approx(plan.attainment, abs=1e-3)
    assert shown["rate"] == pytest.approx(rate, rel=0.05)
    assert shown["source"].startswith("3,000 requests of log.csv as recorded")


def test_a_burstiness_draws_in_place_of_the_log(service: Path, tmp_path: Path) -> None:
    """Given by the flag, and then also where it is that of Poisson arrivals; the plan's words say which it was."""
    runner = CliRunner()
    drawn = runner.invoke(app, ["plan", str(service), "--burstiness", "1", "--out", str(tmp_path / "plan.json")])
    assert "Requests: sizes drawn from 3,000 requests of log.csv, Poisson arrivals." in " ".join(drawn.stdout.split())
    assert Plan.read(tmp_path / "plan.json").certificate is not None
    own = runner.invoke(app, ["plan", str(service)])
    words = "Requests: 3,000 requests of log.csv as recorded; the busiest minute brings "
    assert words in " ".join(own.stdout.split())


def test_traffic_that_is_given_in_place_of_the_log_is_not_the_log(service: Path, tmp_path: Path) -> None:
    """A plan for another mix is not certified on the service's own log."""
    flags = {"workload": {"dataset": "arena", "rate": 4}}
    assert Session(service, flags=flags).observed() is None
    flags = {"workload": {"trace": str(tmp_path / "log.csv"), "rate": 4}}
    other = Session(service, flags=flags).observed()
    assert other is not None
    assert other.rate == pytest.approx(4.0)


def test_a_log_of_sizes_alone_can_be_planned(service: Path, tmp_path: Path) -> None:
    """It says no times, so they are drawn; this used to be an error."""
    (tmp_path / "sizes.csv").write_text("input_tokens,output_tokens\n" + "300,100\n20,400\n" * 50)
    plan = Session(service, settings=["workload.trace=sizes.csv", "workload.rate=4"]).answer()
    assert plan.certificate is not None
    assert plan.certificate.arrivals.endswith("Poisson arrivals")
