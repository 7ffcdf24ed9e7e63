"""``melange workload`` on logs of gateways and metrics of servers, by flags and by a service's keys."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from melange.cli.app import app
from melange.errors import InputError
from melange.service.session import Session

LOG = """prompt_tokens,completion_tokens,startTime,model,status,cache_hit
1000,210,2025-05-07 12:00:00+00,llama,success,False
500,20,2025-05-07 12:00:02+00,llama,success,False
900,20,2025-05-07 12:00:03+00,qwen,success,False
900,20,2025-05-07 12:00:04+00,llama,success,True
"""
SERVICE = """model: meta-llama/Llama-3.1-8B-Instruct
slo: {tpot_ms: 80}
workload: WORKLOAD
"""


def metrics(above: int = 0) -> str:
    """Two models of a server, some prompts of each above the last edge."""
    text = ""
    for model in ("base", "adapter"):
        for name, edge in (("prompt", 100), ("generation", 50)):
            more = above if name == "prompt" else 0
            labels = f'engine="0",model_name="{model}"'
            text += f'vllm:request_{name}_tokens_bucket{{{labels},le="{edge}.0"}} {2000 if more else 2000 + above}\n'
            text += f'vllm:request_{name}_tokens_bucket{{{labels},le="+Inf"}} {2000 + above}\n'
            text += f"vllm:request_{name}_tokens_sum{{{labels}}} 1000000\n"
    return text


def run(*arguments: str) -> dict[str, object]:
    """What it prints as JSON; an error of ours is raised."""
    result = CliRunner().invoke(app, ["workload", *arguments, "--json"])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.output)
    return found


def test_rows_are_chosen_by_flags_and_by_a_key(tmp_path: Path) -> None:
    """The same two requests, and the plan is certified on them alone."""
    path = tmp_path / "spend.csv"
    path.write_text(LOG)
    assert run(str(path), "--where", "model=llama", "--where", "cache_hit=false")["requests"] == 2
    assert run(str(path), "--where", "model=llama", "--where", "model=qwen")["requests"] == 3
    service = tmp_path / "service.yaml"
    chosen = "{trace: spend.csv, where: {model: llama, status: success, cache_hit: false}}"
    service.write_text(SERVICE.replace("WORKLOAD", chosen))
    session = Session(service)
    assert session.workload().requests == 2
    observed = session.observed()
    assert observed is not None
    assert observed.input_tokens.tolist() == [1000, 500]


def test_a_model_of_a_server_is_chosen_by_a_flag_and_by_a_key(tmp_path: Path) -> None:
    """One, or several added up; without a name the error says how to name one."""
    path = tmp_path / "metrics.txt"
    path.write_text(metrics())
    with pytest.raises(InputError, match="contains several models: adapter, base"):
        run("--metrics", str(path), "--rate", "4")
    assert run("--metrics", str(path), "--rate", "4", "--model", "base")["requests"] == 2000
    assert run("--metrics", str(path), "--rate", "4", "--model", "base", "--model", "adapter")["requests"] == 4000
    service = tmp_path / "service.yaml"
    for chosen, expected in (("base", 2000), ("[base, adapter]", 4000)):
        service.write_text(SERVICE.replace("WORKLOAD", f"{{metrics: metrics.txt, rate: 4, model: {chosen}}}"))
        assert Session(service).workload().requests == expected


def test_a_server_that_has_served_for_a_year_is_read(tmp_path: Path) -> None:
    """Counts are shares of the traffic, and none too many for a rate; so are those of a histogram."""
    path = tmp_path / "metrics.txt"
    path.write_text(metrics().replace(" 2000\n", " 3000000000\n").replace(" 1000000\n", " 150000000000\n"))
    found = run("--metrics", str(path), "--rate", "4", "--model", "base")
    assert found["requests"] == 3_000_000_000
    assert np.sum(found["request_rate"]) == pytest.approx(4)
    (tmp_path / "h.csv").write_text("input_tokens_upto rate,out_25,out_100\n100,2000000000,1000000000\n500,0,0\n")
    found = run("--histogram", str(tmp_path / "h.csv"), "--rate", "4")
    assert np.sum(found["request_rate"]) == pytest.approx(4)


def test_a_service_s_model_says_how_long_a_request_can_be(tmp_path: Path) -> None:
    """131,072 tokens of Llama 3.1 8B; the plan serves them."""
    (tmp_path / "metrics.txt").write_text(metrics(above=1))
    service = tmp_path / "service.yaml"
    service.write_text(SERVICE.replace("WORKLOAD", "{metrics: metrics.txt, rate: 4, model: base}"))
    session = Session(service, settings=["offers.gpus=[H100]", "offers.providers=[runpod]"])
    workload = session.workload()
    assert workload.buckets.input_edges == (100, 131072)
    assert float((workload.input_tokens[-1] + workload.output_tokens[-1]).max()) == pytest.approx(131072)
    assert "at the model's context of 131,072 tokens" in " ".join(map(str, workload.cautions))
    assert session.plan().cost_per_h > 0


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{trace: spend.csv, model: llama}", "workload.model chooses among the models of a server's metrics"),
        ("{dataset: azure-conversation, rate: 1, where: {a: b}}", "workload.where needs a trace"),
        ("{dataset: azure-conversation, rate: 1, columns: {input: b}}", "workload.columns needs a trace"),
        ("{trace: spend.csv, where: {model: {a: b}}}", "workload.where.model"),
    ],
)
def test_keys_that_would_be_passed_over_are_errors(tmp_path: Path, section: str, message: str) -> None:
    """Each belongs to one source."""
    (tmp_path / "spend.csv").write_text(LOG)
    service = tmp_path / "service.yaml"
    service.write_text(SERVICE.replace("WORKLOAD", section))
    with pytest.raises(InputError) as caught:
        Session(service).workload()
    assert message in str(caught.value)


@pytest.mark.parametrize("condition", ["model", "=llama", "model={a: b}"])
def test_a_condition_is_a_field_and_a_value(tmp_path: Path, condition: str) -> None:
    """And nothing else."""
    path = tmp_path / "spend.csv"
    path.write_text(LOG)
    with pytest.raises(InputError, match="--where must be FIELD=VALUE"):
        run(str(path), "--where", condition)


def test_a_condition_without_values_is_refused(tmp_path: Path) -> None:
    """An empty list of values selects nothing, which nobody can mean."""
    path = tmp_path / "spend.csv"
    path.write_text(LOG)
    with pytest.raises(InputError, match="where: model has an empty list of values"):
        run(str(path), "--where", "model=[]")


@pytest.mark.parametrize("condition", ["session=", "session=null", "session=[null]"])
def test_a_condition_may_ask_for_rows_without_a_value(tmp_path: Path, condition: str) -> None:
    """It is not left out like a missing flag; the hit of a response cache is no request in any case."""
    path = tmp_path / "spend.csv"
    head, *rows = LOG.strip().splitlines()
    path.write_text("\n".join([f"{head},session", f"{rows[0]},a", *(f"{row}," for row in rows[1:])]) + "\n")
    assert run(str(path))["requests"] == 3
    assert run(str(path), "--where", condition)["requests"] == 2
