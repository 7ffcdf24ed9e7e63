"""Origins whose requests are counted in a log."""

from __future__ import annotations

from pathlib import Path

import pytest

from melange.errors import InputError
from melange.service.regional_session import RegionalSession

SERVICE = """\
model: meta-llama/Llama-3.1-8B-Instruct
slo: {tpot_ms: 60, ttft_ms: 2000, statistic: mean}
workload: {trace: log.csv, rate: 40, buckets: {input: [500, 2000], output: [200]}}
offers: {gpus: [L4, L40S], providers: [aws], regions: [us-east-1, eu-central-1]}
profile: {tensor_parallel: 1}
regions:
  origins:
    america: {where: {geo: [us, ca]}, at: us-east-1, allowed: [us-east-1]}
    europe: {where: {geo: de}, at: frankfurt, allowed: [eu-central-1]}
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Short prompts of America, and a quarter as many long ones of Europe."""
    rows = [(place, "de" if place % 5 == 0 else "ca" if place % 5 == 1 else "us") for place in range(400)]
    log = "".join(f"{0.1 * place},{1500 if geo == 'de' else 300},100,{geo}\n" for place, geo in rows)
    (tmp_path / "log.csv").write_text("arrival_s,input_tokens,output_tokens,geo\n" + log)
    path = tmp_path / "service.yaml"
    path.write_text(SERVICE)
    return path


def test_each_origin_has_the_sizes_of_its_rows(service: Path) -> None:
    """At the rate that is planned for, and not the log's."""
    plans = RegionalSession(service).plan().plans
    assert plans["us-east-1"].workload.request_rate.ravel().tolist() == pytest.approx([32, 0])
    assert plans["eu-central-1"].workload.request_rate.ravel().tolist() == pytest.approx([0, 8])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("regions.origins.america.where={geo: us}", r"their rows are 320 requests, but the log has 400 \(80\.00%\)"),
        ("regions.origins.america.where={geo: [us, ca, de]}", r"480 requests, but the log has 400"),
        ("regions.origins.europe={share: 0.2, at: paris}", "must all have share, or all have where"),
        ("regions.origins.europe={share: 1, where: {geo: de}, at: paris}", "got both"),
        ("regions.origins.europe={at: paris}", "got neither"),
        ("workload.where={geo: [us, de]}", "'geo' is already selected by workload.where"),
        ("workload={dataset: arena, rate: 4}", "the traffic is a dataset"),
    ],
)
def test_origins_that_do_not_divide_the_log(service: Path, setting: str, said: str) -> None:
    """With what is left out, or counted twice."""
    with pytest.raises(InputError, match=said):
        RegionalSession(service, settings=[setting]).plan()
