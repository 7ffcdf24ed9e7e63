"""The files as text, and the command that writes them."""

import json
import math
import os
import re
import subprocess
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import yaml
from deploy_cases import GATEWAYS, plan_of, replica_type, two_types
from forked import command
from plan_cases import answering
from simulated import engine

import melange
from melange.deploy.manifest import Manifest
from melange.deploy.render import TARGETS
from melange.deploy.scaling_rule import SCHEDULE_TARGETS
from melange.errors import Caution, InputError

URLS = {"A10G": ["http://10.0.0.1:8000", "http://10.0.0.2:8000"], "A100-80GB": ["http://10.0.0.3:8000"]}
DAY = date(2026, 3, 1)


def text_of(target: str, **settings: object) -> str:
    """The one file of a target."""
    (text,) = melange.render(two_types(), target, **({"replicas": URLS, "written": DAY} | settings)).files.values()
    return text


@pytest.mark.parametrize("target", GATEWAYS)
def test_a_file_says_what_it_is_from_and_does(target: str, tmp_path: Path) -> None:
    """The fingerprint is the one in the plan's file; model, SLO, cost, replicas, date and every route are there."""
    saved = two_types().save(tmp_path / "plan.json")
    comments = " ".join(line[2:] for line in text_of(target).splitlines() if line.startswith("# "))
    for said in (
        json.loads(saved.read_text())["fingerprint"],
        "2026-03-01",
        "Llama-3.1-8B",
        "TTFT <= 1,000 ms and TPOT <= 80 ms for 99% of requests",
        "5.69 USD/h",
        "2 x aws/us-east-1/g5.xlarge",
    ):
        assert said in comments
    assert re.search(r"2\s+201-1,000 in, max_tokens <= 50\s+65.00%\s+35.00%", comments)
    assert str(tmp_path) not in text_of(target)


@pytest.mark.parametrize("target", GATEWAYS)
def test_a_file_is_the_same_each_time(target: str) -> None:
    """Byte for byte, on the same day, also from a plan that was solved again."""
    again = replace(two_types(), solve_s=9.0, gap=1e-4, bound_per_h=1.0, cautions=(Caution("stale-price", "of May"),))
    (text,) = melange.render(again, target, replicas=URLS, written=DAY).files.values()
    assert text == text_of(target)


@pytest.mark.parametrize("target", GATEWAYS)
def test_what_a_plan_says_cannot_become_a_directive(target: str) -> None:
    """Lines of a model's name are put into one comment."""
    types = [replica_type("aws/a; quiet;", "A"), replica_type("aws/b", "B} quiet;")]
    plan = answering(plan_of(np.full((2, 3, 2), 0.5), [1, 1], types), model="m\n    nbthread 1\r\nuser root;\x00")
    (text,) = melange.render(plan, target, written=DAY).files.values()
    injected = [line for line in text.splitlines() if re.search("nbthread|user root|quiet;", line)]
    assert injected
    assert all(line.lstrip().startswith("#") for line in injected)
    assert "\x00" not in text


@pytest.mark.parametrize("target", GATEWAYS)
def test_a_file_says_what_its_servers_must_be_started_with(target: str) -> None:
    """A line for each type in use, with vLLM's names for what the plan knows."""
    small, large = engine(era="vllm-1", memory_utilization=0.9, max_context=4096), engine(max_sequences=1024)
    plan = answering(two_types(), engines=(small, None, large))
    (text,) = melange.render(plan, target, replicas=URLS, written=DAY).files.values()
    assert [line for line in text.splitlines() if line.startswith("# A replica of")] == [
        "# A replica of aws/us-east-1/g5.xlarge: meta-llama/Llama-3.1-8B-Instruct, vllm, tensor parallel 1, "
        "max_num_seqs 8, max_num_batched_tokens 256, max_model_len 4096, block_size 16, gpu_memory_utilization 0.9, "
        "enable_chunked_prefill true, enable_prefix_caching false",
        "# A replica of aws/us-east-1/p4d: meta-llama/Llama-3.1-8B-Instruct, vllm, tensor parallel 1, "
        "max_num_seqs 1024, max_num_batched_tokens 256, max_model_len 2000, block_size 16, "
        "enable_chunked_prefill true, enable_prefix_caching false",
    ]


def test_haproxy_sizes_bodies_and_counts_turns() -> None:
    """Edges in bytes, the largest first; parts added up; stand-ins behind each type's own replicas."""
    text = text_of("haproxy", listen="[::1]:9000")
    assert "bind [::1]:9000" in text
    rules = re.findall(r"set-var\(txn.route\) int\((\d)\)(.*)", text)
    assert rules == [
        ("4", ""),
        ("3", " if { var(txn.bytes) -m int le 4100 }"),
        ("2", " if { var(txn.bytes) -m int le 4100 } { var(txn.limit) -m int 1:50 }"),
        ("1", " if { var(txn.bytes) -m int le 900 }"),
    ]
    assert re.findall(r"set-var proc.route(\d)_aws_us_east_1_g5_xlarge int\((\d+)\)", text) == [
        ("1", "10000"),
        ("2", "6500"),
        ("3", "3500"),
        ("4", "300"),
    ]
    backend = text[text.index("backend aws-us-east-1-p4d") :]
    assert [("backup" in line) for line in backend.splitlines() if " server " in line] == [False, True, True]


def test_envoy_is_yaml_with_each_type_and_its_stand_ins() -> None:
    """A cluster a type, its own replicas first, the others' behind."""
    content = yaml.safe_load(text_of("envoy"))["static_resources"]
    assert [one["name"] for one in content["clusters"]] == ["aws-us-east-1-g5-xlarge", "aws-us-east-1-p4d"]
    places = [len(group["lb_endpoints"]) for group in content["clusters"][0]["load_assignment"]["endpoints"]]
    assert places == [2, 1]
    listener = content["listeners"][0]["address"]["socket_address"]
    assert listener == {"address": "127.0.0.1", "port_value": 8080}


def test_nginx_has_an_upstream_a_type() -> None:
    """The replicas of other types stand behind its own."""
    text = text_of("nginx", max_body_bytes=5000, bytes_per_token=3.5, envelope_bytes=0)
    assert "client_max_body_size 5000;" in text
    assert "{700, {{math.huge, 1}}}," in text
    assert "{3500, {{50, 2}, {math.huge, 3}}}," in text
    assert "server 10.0.0.3:8000 max_fails=2 fail_timeout=5s backup;" in text


def test_unknown_targets_and_settings_are_errors() -> None:
    """With the nearest target that there is."""
    with pytest.raises(InputError, match="did you mean 'haproxy'"):
        text_of("haproxi")
    for listen in ("8080", "host", "127.0.0.1:0", "127.0.0.1:99999", "a b:80", "h:80;"):
        with pytest.raises(InputError, match="--listen"):
            text_of("nginx", listen=listen)
    wrong: list[dict[str, object]] = [{"bytes_per_token": value} for value in (0.0, 1e308, math.nan)]
    wrong += [{"envelope_bytes": -1}, {"envelope_bytes": 2**31}, {"max_body_bytes": 10}, {"max_body_bytes": 10**400}]
    for settings in (*wrong, {"listen": 80}):
        with pytest.raises(InputError, match="must be"):
            text_of("nginx", **settings)
    with pytest.raises(InputError, match="nginx: unknown option 'lisen'; did you mean 'listen'") as caught:
        text_of("nginx", lisen="host:80")
    assert caught.value.hint == "nginx has replicas, listen, bytes_per_token, envelope_bytes, max_body_bytes"


def test_a_manifest_is_written_to_a_folder(tmp_path: Path) -> None:
    """Which is made; names that lead elsewhere are wrong code."""
    manifest = melange.render(two_types(), "envoy", replicas=URLS)
    (path,) = manifest.write(tmp_path / "new" / "folder")
    assert path.read_text() == str(manifest) == manifest.files["envoy.yaml"]
    with pytest.raises(ValueError, match="must be plain"):
        Manifest(target="envoy", files={"../up": ""})
    with pytest.raises(InputError, match="cannot be created"):
        manifest.write(path / "below")


def run(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``melange deploy`` as a user runs it."""
    return command("deploy", *arguments, cwd=cwd, environment={**os.environ, **environment})


def test_the_command_prints_or_writes(tmp_path: Path) -> None:
    """The file on stdout, or in a folder; on stderr what should be known, made-up names among it."""
    two_types().save(tmp_path / "plan.json")
    done = run("plan.json", "--to", "haproxy", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("# Written by melange deploy")
    assert "aws-us-east-1-g5-xlarge-1.internal:8000" in done.stdout
    assert "# CAUTION: placeholder" in done.stdout
    assert "warning: placeholder" in done.stderr
    given = [f"--replica={name}={url}" for name, urls in URLS.items() for url in urls]
    done = run("plan.json", "--to", "nginx", *given, "--out", "gate", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "10.0.0.3:8000" in (tmp_path / "gate" / "nginx.conf").read_text()
    content = json.loads(run("plan.json", "--to", "envoy", "--json", cwd=tmp_path).stdout)
    assert (content["target"], list(content["files"])) == ("envoy", ["envoy.yaml"])


def test_the_command_takes_options_by_flag_or_by_name(tmp_path: Path) -> None:
    """The same file either way."""
    two_types().save(tmp_path / "plan.json")
    flags = ("--listen", "[::1]:9000", "--max-body-bytes", "5000", "--bytes-per-token", "3")
    names = ("--option", "listen=[::1]:9000", "--option=max_body_bytes=5000", "--option", "bytes_per_token=3")
    first, second = (run("plan.json", "--to", "nginx", *given, cwd=tmp_path) for given in (flags, names))
    assert first.returncode == second.returncode == 0
    assert first.stdout == second.stdout
    assert "listen [::1]:9000 default_server;" in first.stdout


def test_the_command_shows_what_changes_against_another_plan(tmp_path: Path) -> None:
    """Files that change, with what changed; nothing where the plans say the same."""
    two_types().save(tmp_path / "old.json")
    instances = np.array([3, 0, 1])
    cost_per_h = float(instances @ [one.cost_per_h for one in two_types().replica_types])
    replace(two_types(), instances=instances, cost_per_h=cost_per_h).save(tmp_path / "new.json")
    done = run("new.json", "--to", "kubernetes", "--diff", "old.json", cwd=tmp_path)
    assert done.returncode == 0
    assert "--- manifests/aws-us-east-1-g5-xlarge.yaml\n+++ manifests/aws-us-east-1-g5-xlarge.yaml" in done.stdout
    assert "-  replicas: 2\n+  replicas: 3\n" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 230
    done = run("new.json", "--to", "kubernetes", "--diff", "new.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no differences" in done.stderr
    done = run("new.json", "--to", "kubernetes", "--diff", "old.json", "--out", "k8s", cwd=tmp_path)
    assert done.returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.json", "old.json"]


def test_the_command_lists_targets_and_their_options(tmp_path: Path) -> None:
    """In 80 columns, with every default and without a word cut off; all of it as JSON."""
    done = run("--list", cwd=tmp_path, COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in done.stdout
    words = " ".join(done.stdout.split())
    content = json.loads(run("--list", "--json", cwd=tmp_path).stdout)["targets"]
    assert [one["name"] for one in content] == [*TARGETS, *SCHEDULE_TARGETS]
    assert [one["name"] for one in content if one["source"] == "schedule"] == [*SCHEDULE_TARGETS]
    assert re.search(r"^Target +What it makes of a schedule.json\ncron ", done.stdout, re.MULTILINE)
    for target in content:
        assert f"{target['name']} {target['about']}" in words
        for option in target["options"]:
            default = option["default"] if isinstance(option["default"], str) else json.dumps(option["default"])
            assert re.search(rf"{option['name']} +{re.escape(default)} ", done.stdout)
            assert f"{option['about']} ({option['kind']})" in words
    one = run("--list", "--to", "nginx", cwd=tmp_path).stdout
    assert "nginx" in one
    assert "haproxy" not in one
    assert run("--list", "--to", "ngin", cwd=tmp_path).returncode == 2
    cron = run("--list", "--to", "cron", cwd=tmp_path).stdout
    assert cron.startswith("Target  What it makes of a schedule.json")
    assert "time_zone" in cron
    assert "prometheus" not in cron
    both = run("--list", "--to", "skypilot", cwd=tmp_path).stdout
    assert both.index("What it is") < both.index("layout") < both.index("What it makes of a") < both.index("time_zone")


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    """Error and hint on stderr, exit code 2, and nothing written."""
    two_types().save(tmp_path / "plan.json")
    for arguments, said in (
        (("plan.json", "--to", "traefik"), "unknown target 'traefik'"),
        (("plan.json", "--to", "nginx", "--replica", "A10G=http://a:1"), "no replica was given for aws/us-east-1/p4d"),
        (("absent.json", "--to", "nginx"), "cannot be read"),
        (("plan.json", "--to", "nginx", "--out", "plan.json"), "a folder is needed"),
        (("plan.json", "--to", "nginx", "--option", "lisen=a:1"), "hint: nginx has replicas, listen, "),
        (("plan.json", "--to", "nginx", "--option", "listen"), "--option must be KEY=VALUE"),
        (("plan.json", "--to", "nginx", "--option", "envelope_bytes=few"), "must be a whole number, got 'few'"),
        (("plan.json", "--to", "nginx", "--listen", "a:1", "--option", "listen=a:1"), "also given by its own flag"),
        (("plan.json", "--to", "cron"), "cron is a target of schedules"),
        (("plan.json",), "melange deploy --list"),
        (("--to", "nginx"), "melange deploy --list"),
    ):
        done = run(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
