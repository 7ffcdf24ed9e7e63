"""Replicas as DNS says where they are."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path

import pytest
import yaml
from balance_cases import Balancer, Replica, complete, small_plan
from deploy_cases import two_types

from melange.deploy.addresses import read_addresses
from melange.deploy.live.discover import follow, main, resolved
from melange.deploy.render import render
from melange.errors import InputError


def known(addresses: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have names resolve to these addresses."""

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if not addresses.get(host):
            raise socket.gaierror("no such name")
        return [(None, None, None, "", (one, port)) for one in addresses[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_every_address_of_a_name_is_a_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted, each once, IPv6 in brackets; names without any have none yet."""
    known({"small": ["10.0.0.2", "10.0.0.1", "10.0.0.1"], "large": ["fd00::1"]}, monkeypatch)
    assert resolved(["L4=http://small:8000", "H100=https://large", "T4=http://none:1"]) == [
        "H100=https://[fd00::1]:443",
        "L4=http://10.0.0.1:8000",
        "L4=http://10.0.0.2:8000",
    ]
    for text in ("L4", "L4=small:8000", "=http://small:1", "L4=ftp://small"):
        with pytest.raises(InputError, match="NAME=http"):
            resolved([text])


def test_real_names_are_resolved() -> None:
    """By the system's own resolver."""
    assert "a=http://127.0.0.1:80" in resolved(["a=http://localhost"])


def test_the_file_is_what_the_balancer_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Types by their names in the plan, also one with a number sign or a blank in it."""
    known({"g5": ["10.0.0.1", "10.0.0.2"], "p4d": ["10.0.0.3"]}, monkeypatch)
    names = ("aws/us-east-1/g5.xlarge", "aws/us-east-1/p4d")
    out = tmp_path / "replicas.txt"
    assert main(["--once", "--out", str(out), f"{names[0]}=http://g5:8000", f"{names[1]}=http://p4d:8000"]) == 0
    found = read_addresses(out, two_types())
    assert [(one.place, one.url) for one in found] == [
        (0, "http://10.0.0.1:8000"),
        (0, "http://10.0.0.2:8000"),
        (2, "http://10.0.0.3:8000"),
    ]
    assert main(["--once", "--out", str(out), "nothing"]) == 2


def test_the_file_follows_and_outlives_a_moment_without_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written again when addresses change, and kept while there are none."""
    addresses = {"g5": ["10.0.0.1"]}
    known(addresses, monkeypatch)
    steps = iter([{}, {"g5": ["10.0.0.2"]}])
    seen = []
    out, finished = tmp_path / "replicas.txt", threading.Event()

    class StopError(Exception):
        """The end of the test."""

    def sleep(seconds: float) -> None:
        seen.append(out.read_text())
        step = next(steps, None)
        if step is None:
            finished.set()
            raise StopError
        addresses.clear()
        addresses.update(step)

    monkeypatch.setattr("melange.deploy.live.discover.time.sleep", sleep)
    with pytest.raises(StopError):
        follow(["a=http://g5:80"], out, every_s=2.0, is_once=False)
    assert seen == ["a=http://10.0.0.1:80\n", "a=http://10.0.0.1:80\n", "a=http://10.0.0.2:80\n"]
    assert finished.is_set()


def test_what_a_balancers_pod_runs_runs_here(tmp_path: Path) -> None:
    """The plan of the ConfigMap, the file of the discovery, and requests that get where they should."""
    manifest = render(small_plan(), "kubernetes", engine="vllm")
    documents = list(yaml.safe_load_all(manifest.files["manifests/balancer.yaml"]))
    (config,) = (one for one in documents if one["kind"] == "ConfigMap")
    (pod,) = (one["spec"]["template"]["spec"] for one in documents if one["kind"] == "Deployment")
    plan, replicas = tmp_path / "plan.json", tmp_path / "replicas.txt"
    plan.write_text(config["data"]["plan.json"])
    with Replica() as small, Replica() as large:
        here = dict(zip(("l4", "a100"), (small, large), strict=True))
        found = [word for word in pod["initContainers"][0]["args"] if "=http://" in word]
        placed = [re.sub(r"http://\S*?(l4|a100)-?\S*:8000", lambda m: here[m[1]].url, word) for word in found]
        assert main(["--once", "--out", str(replicas), *placed]) == 0
        with Balancer(plan, "--replicas", str(replicas)) as balancer:
            assert {complete(balancer.port).status for _ in range(20)} == {200}
        assert small.seen["count"] > 0
        assert large.seen["count"] > small.seen["count"]
