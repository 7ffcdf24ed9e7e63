"""Errors of the command line: each names what would work, and the commands in hints work as printed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import command

Run = Callable[..., subprocess.CompletedProcess[str]]
SERVICE = """\
model: meta-llama/Llama-3.1-8B
slo: {tpot_ms: 120}
workload: {dataset: arena, rate: 8}
offers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1]}
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``melange`` in a folder with a service."""
    (tmp_path / "service.yaml").write_text(SERVICE)
    return lambda *words: command(*words, cwd=tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("plan service.yaml --rate 3", "error: no such option: --rate\nhint: --set workload.rate=VALUE\n"),
        ("plan service.yaml --set rate=3", "error: --set: unknown key 'rate'; did you mean 'workload.rate'?\n"),
        (
            "plan service.yaml --set engine=sglang --set engine.max_num_seqs=8",
            "engine holds a value, not keys\nhint: --set 'engine={name: sglang, max_num_seqs: 8}'\n",
        ),
        (
            "plan service.yaml --set plan.grid_g_per_kwh=400 --set plan.grid_g_per_kwh.us-east-1=380",
            "hint: --set 'plan.grid_g_per_kwh={us-east-1: 380}'\n",
        ),
        (
            "plan service.yaml --set plan.min_replicas=2 --set plan.min_replicas.L4=3",
            "hint: --set 'plan.min_replicas={L4: 3}'\n",
        ),
        ("plan service.yaml --set plan.require=[L4] --set plan.require.L4=3", "plan.require holds a value, not keys\n"),
        ("plan service.yaml --set tpot_ms=3", "did you mean 'slo.tpot_ms'?\n"),
        (
            "catalog gpus",
            "error: invalid value for 'subject': 'gpus' is not one of 'accelerators', 'offers', 'models', 'update'\n",
        ),
        ("catalog --foo", "hint: melange catalog --help\n"),
        (
            "deploy service.yaml --to kubernetes",
            "error: service.yaml is a service, not a plan\n"
            "hint: melange plan service.yaml --out plan.json, then melange deploy plan.json --to kubernetes\n",
        ),
        ("operate service.yaml", "error: service.yaml is a service, not a plan\n"),
        (
            "measure service.yaml --url http://127.0.0.1:9 --replica-type l5",
            "error: --replica-type: unknown replica type 'l5'",
        ),
        (
            "plan absent.yaml",
            "error: absent.yaml: cannot be read: No such file or directory\nhint: melange init writes one",
        ),
        ("plan service.yaml --set slo.ttft_ms=1s", "slo.ttft_ms: must be a number of milliseconds, got '1s'\n"),
        ("plan service.yaml --set slo.attainment=99", "must be above 0 and at most 1, got 99: 99 % is 0.99\n"),
        ("plan service.yaml --set slo.percentile=95", "unknown key 'percentile'; use attainment: 0.95, or statistic"),
        (
            "plan service.yaml --set offers.gpus=[g6e.xlarge]",
            "error: gpu 'g6e.xlarge' is an instance type (1 x L40S)\nhint: name its accelerator: L40S\n",
        ),
        ("plan service.yaml --set offers.gpus=[zzz]", ", ...; melange catalog accelerators lists all\n"),
        (
            "plan service.yaml --quick --set workload.dataset=azure-conversation --set slo.ttft_ms=1000",
            "or leave out --quick: in a certified plan, 1% of the requests may miss\n",
        ),
        ("validate absent.json --scenario lost_replica", "did you mean 'lost-replica'?"),
        ("validate absent.json --policy roundrobin", "did you mean 'round-robin'"),
        ("validate absent.json --steps slower", "unknown steps 'slower'; did you mean 'slow'?"),
        (
            "validate plan.json --set plan.spare_replicas=1",
            "hint: plan again: melange plan service.yaml --set plan.spare_replicas=1 --out plan.json\n",
        ),
    ],
)
def test_what_is_wrong_comes_with_what_would_work(run: Run, words: str, said: str) -> None:
    """On stderr, with exit code 2, before anything is planned or read."""
    done = run(*words.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_no_arguments_print_the_help(run: Run) -> None:
    """With each command's whole summary; and wrong ones print the usage first."""
    assert not [line for line in run("--help").stdout.splitlines() if line.endswith("...") and "Usage" not in line]
    assert run().stderr.startswith("Usage: melange [OPTIONS] COMMAND")
    assert run("plan", "--foo").stderr.startswith("Usage: melange plan [OPTIONS]")


def test_a_log_with_other_columns_is_read_with_the_flag_of_the_hint(run: Run, tmp_path: Path) -> None:
    """The hint has the flag of the command line and the key of a service."""
    (tmp_path / "log.csv").write_text("time,in,out\n0,100,10\n1,200,20\n")
    told = run("workload", "log.csv").stderr
    assert "--columns arrival=...,input=...,output=..." in told
    assert "columns: {arrival: ..., input: ..., output: ...}" in told
    assert run("workload", "log.csv", "--columns", "arrival=time,input=in,output=out").returncode == 0


def test_files_of_another_plan_in_the_folder_are_named(run: Run, tmp_path: Path) -> None:
    """They stay, and kubectl apply -f manifests/ would start them; k8s is Kubernetes."""
    assert run("plan", "service.yaml", "--quick", "--out", "plan.json").returncode == 0
    first = run("deploy", "plan.json", "--to", "k8s", "--out", "k8s")
    assert (first.returncode, "other-files" in first.stderr) == (0, False)
    (tmp_path / "k8s/manifests/old.yaml").write_text("{}")
    second = run("deploy", "plan.json", "--to", "kubernetes", "--out", "k8s")
    told = "other-files: k8s/manifests/old.yaml is not part of this plan; delete it if an earlier plan wrote it"
    assert told in " ".join(second.stderr.split())
    assert (tmp_path / "k8s/manifests/old.yaml").exists()


def test_a_file_without_slo_or_workload_gets_examples(run: Run, tmp_path: Path) -> None:
    """Both, with their lines' form."""
    (tmp_path / "short.yaml").write_text("model: meta-llama/Llama-3.1-8B\n")
    told = run("plan", "short.yaml").stderr
    assert "slo is required; for example slo: {ttft_ms: 1000, tpot_ms: 80}\n" in told
    assert "workload is required; for example workload: {dataset: azure-conversation, rate: 16}\n" in told


def test_a_list_without_offers_says_which_filters_leave_none(run: Run) -> None:
    """And who has offers on that market; as JSON it is an empty list."""
    words = ("catalog", "offers", "--market", "spot", "--provider", "aws")
    assert json.loads(run(*words, "--json").stdout) == []
    assert (
        run(*words).stdout
        == "no offers match --provider aws --market spot; spot offers are known from azure, gcp, vultr\n"
    )


def test_the_package_runs_as_a_module(run: Run) -> None:
    """``python -m melange``."""
    done = subprocess.run([sys.executable, "-m", "melange", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == run("--version").stdout
