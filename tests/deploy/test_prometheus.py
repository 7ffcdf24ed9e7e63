"""A real Prometheus reads a balancer under traffic by the written rules: every panel has something to show."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
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


def has_data(url: str, query: str) -> bool:
    """Whether a query finds anything; not while it does not answer."""
    try:
        return bool(asked(url, "query", query=query)["result"])
    except OSError:
        return False


def queries(dashboard: Path) -> dict[str, str]:
    """Every query of a dashboard by where it is, over some seconds."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "10s")
        for panel in json.loads(dashboard.read_text())["panels"]
        for target in panel["targets"]
    }


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
        stop = threading.Event()

        def ask() -> None:
            while not stop.wait(0.02):
                complete(balancer.port, stream=True)
                complete(balancer.port, words=200)

        asker = threading.Thread(target=ask)
        asker.start()
        waiting = queries(tmp_path / "dashboard.json")
        assert len(waiting) > 15
        try:
            # One at a time: on a busy machine a single reading may be missing.
            for query in waiting.values():
                if not any(word in query for word in QUIET):
                    eventually(lambda query=query: has_data(url, query), 60.0)
        finally:
            stop.set()
            asker.join()
        rules = [rule for group in asked(url, "rules")["groups"] for rule in group["rules"]]
        assert len(rules) > 5
        assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
        firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
        assert firing == set()
