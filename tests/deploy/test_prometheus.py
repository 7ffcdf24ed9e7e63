"""A real Prometheus reads a balancer under traffic by the written rules: every panel has something to show."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from balance_cases import Balancer, Replica, complete, eventually, small_plan

from melange.deploy.render import render

PROMETHEUS = shutil.which("prometheus")
# What has no data while all is well: nothing was refused, retried or ejected, and no plan was looked for again.
QUIET = ("retries", "ejection", "unserved")


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[str]:
    """The address of one that reads a balancer five times a second."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = {
        "global": {"scrape_interval": "200ms", "evaluation_interval": "200ms"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "chat", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [str(PROMETHEUS), "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def asked(url: str, path: str, **fields: str) -> Any:
    """What its API says."""
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(fields)}", timeout=10) as answer:
        return json.load(answer)["data"]


def is_up(url: str) -> bool:
    """Whether it has read the balancer."""
    try:
        return bool(asked(url, "query", query='melange_completed_requests_total{job="chat"} > 0')["result"])
    except OSError:
        return False


@pytest.mark.heavy
@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (Debian: prometheus)")
def test_every_panel_shows_something_of_a_balancer_under_traffic(tmp_path: Path) -> None:
    """And no rule fails in a real Prometheus."""
    plan = small_plan(rate=1e4)
    render(plan, "grafana", selector='job="chat"').write(tmp_path)
    file = plan.save(tmp_path / "plan.json")
    with (
        Replica() as first,
        Replica() as second,
        Balancer(file, f"--replica=L4={first.url}", f"--replica=A100={second.url}", "--replan-every", "1") as balancer,
        prometheus(tmp_path, balancer.port) as url,
    ):
        end_s = time.monotonic() + 8.0
        while time.monotonic() < end_s:
            assert complete(balancer.port, stream=True).status == 200
            assert complete(balancer.port, words=200).status == 200
        eventually(lambda: is_up(url))
        panels = json.loads((tmp_path / "dashboard.json").read_text())["panels"]
        empty = []
        for panel in panels:
            for target in panel["targets"]:
                query = target["expr"].replace("$__rate_interval", "5s").replace("$__range", "10s")
                if not asked(url, "query", query=query)["result"]:
                    empty.append(f"{panel['title']}: {query}")
        assert [one for one in empty if not any(word in one for word in QUIET)] == []
        rules = [rule for group in asked(url, "rules")["groups"] for rule in group["rules"]]
        assert len(rules) > 5
        assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
        firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
        assert firing == set()
