"""The traffic of a live service, from balancers, Prometheus and logs; and the command's own faults."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_type_hints
from urllib.parse import parse_qs

import numpy as np
import pytest
from balance_cases import BUCKETS, small_plan
from typer.testing import CliRunner

from melange.cli.app import app
from melange.cli.operate import _DRIVERS, _DriverFlags
from melange.deploy.operate.live_traffic import BalancerTraffic, LogTraffic, PrometheusTraffic, spread
from melange.errors import InputError, MelangeError
from melange.workload.workload import Workload

Answers = dict[str, Callable[[dict[str, list[str]]], tuple[int, str]]]


@pytest.fixture
def site() -> Iterator[tuple[str, Answers, list[str]]]:
    """A server, what it answers by path, and the keys that it was shown."""
    answers: Answers = {}
    keys: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            keys.append(self.headers.get("Authorization", ""))
            status, text = answers[path](parse_qs(query))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers, keys
    server.shutdown()
    server.server_close()
    thread.join()


def test_balancers_are_added_up(site: tuple[str, Answers, list[str]]) -> None:
    """One that has completed nothing yet adds nothing, and the key is shown."""
    url, answers, keys = site
    live = Workload.at_upper_edges(BUCKETS, [[3.0, 1.0], [0.5, 0.0]])
    answers["/workload.json"] = lambda _: (200, live.dumps())
    answers["/idle/workload.json"] = lambda _: (404, '{"error": "no request has been completed yet"}')
    traffic = BalancerTraffic([url, f"{url}/", f"{url}/idle"], BUCKETS, "secret")
    assert traffic.read(0.0, 60.0).tolist() == [[6.0, 2.0], [1.0, 0.0]]
    assert set(keys) == {"Bearer secret"}
    assert BalancerTraffic([f"{url}/idle"], BUCKETS).read(0.0, 60.0) is None
    answers["/metrics"] = lambda _: (200, 'melange_replica_outstanding{type="L4",url="http://a:1"} 3\n')
    assert BalancerTraffic([url], BUCKETS).outstanding("http://a:1") == 3
    assert BalancerTraffic([url], BUCKETS).outstanding("http://b:1") == 0


def test_a_balancer_of_another_plan_is_said(site: tuple[str, Answers, list[str]]) -> None:
    """Its sizes are others; and so is one that refuses the key, or is not there."""
    url, answers, _ = site
    answers["/workload.json"] = lambda _: (200, small_plan().workload.at_rate(3.0).dumps().replace("1000", "2000"))
    with pytest.raises(MelangeError, match="other request sizes"):
        BalancerTraffic([url], BUCKETS).read(0.0, 60.0)
    answers["/workload.json"] = lambda _: (401, '{"error": "an API key is required"}')
    with pytest.raises(MelangeError, match="401: an API key is required"):
        BalancerTraffic([url], BUCKETS).read(0.0, 60.0)
    with pytest.raises(MelangeError, match="refused"):
        BalancerTraffic(["http://127.0.0.1:1"], BUCKETS).read(0.0, 60.0)


def test_histograms_in_prometheus_are_sorted_into_the_plans_sizes(site: tuple[str, Answers, list[str]]) -> None:
    """The engine's own edges, the user's labels, and the window."""
    url, answers, _ = site
    queries: list[str] = []
    counts = {
        "prompt": {50.0: 60.0, 150.0: 120.0, 2000.0: 180.0, math.inf: 180.0},
        "generation": {50.0: 90.0, math.inf: 120.0},
    }

    def query(asked: dict[str, list[str]]) -> tuple[int, str]:
        queries.append(asked["query"][0])
        found = next((some for word, some in counts.items() if f"vllm:request_{word}" in queries[-1]), {})
        result = [
            {"metric": {"le": str(edge).replace("inf", "+Inf")}, "value": [0, str(n)]} for edge, n in found.items()
        ]
        return 200, json.dumps({"status": "success", "data": {"result": result}})

    answers["/api/v1/query"] = query
    rate = PrometheusTraffic(url, BUCKETS, 'job="a"').read(1e9, 60.0)
    assert rate.sum() == pytest.approx(3.0)
    assert rate[:, 0] / rate.sum(axis=1) == pytest.approx([0.75, 0.75])
    assert rate[0].sum() == pytest.approx((60 + 30) / 60)
    assert 'job="a"' in queries[0]
    assert "[60s]" in queries[0]
    counts.clear()
    assert PrometheusTraffic(url, BUCKETS).read(1e9, 60.0) is None
    answers["/api/v1/query"] = lambda _: (200, '{"status": "error", "error": "bad query"}')
    with pytest.raises(MelangeError, match="bad query"):
        PrometheusTraffic(url, BUCKETS).read(1e9, 60.0)


@pytest.mark.parametrize("seed", range(5))
def test_spreading_keeps_every_request(seed: int) -> None:
    """Whatever the edges are."""
    choose = np.random.default_rng(seed)
    edges = np.unique(choose.integers(1, 5000, 8)).astype(float)
    counts = np.cumsum(choose.integers(0, 50, len(edges) + 1)).astype(float)
    given = dict(zip([*edges.tolist(), math.inf], counts.tolist(), strict=True))
    ours = tuple(np.unique(choose.integers(1, 4000, 5)).tolist())
    assert spread(given, ours).sum() == pytest.approx(counts[-1])


def test_a_log_is_read_for_its_last_window(tmp_path: Path) -> None:
    """Arrivals are points in time; a log that is not there is said."""
    now_s = 1.78e9
    moments = [datetime.fromtimestamp(now_s - 0.5 - k, UTC).isoformat() for k in range(200)]
    rows = [{"timestamp": moment, "input_tokens": 80, "output_tokens": 20} for moment in moments]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    rate = LogTraffic(str(log), BUCKETS).read(now_s, 100.0)
    assert rate[0, 0] == pytest.approx(1.0, rel=0.02)
    assert rate.sum() == rate[0, 0]
    with pytest.raises(InputError, match="no such log"):
        LogTraffic(str(tmp_path / "none"), BUCKETS).read(now_s, 100.0)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "the source of the traffic is missing"),
        (["--balancer", "http://a", "--log", "b"], "the traffic has one source, got --balancer and --log"),
        (["--balancer", "ftp://a"], "--balancer: must be http://host:port or https://host:port, got 'ftp://a'"),
        (["--prometheus", "file:///a"], "--prometheus: must be http://host:port or https://host:port, got 'file:///a'"),
        (["--log", "b", "--selector", "x"], "--log does not use --selector, an option of --prometheus"),
        (["--balancer", "http://a", "--driver", "magic"], "magic"),
        (["--balancer", "http://a", "--driver", "files"], "the output folder is missing"),
        (["--balancer", "http://a", "--driver", "files", "--folder", __file__], "is a file; a folder is needed"),
        (["--balancer", "http://a", "--driver", "command"], "must name a program"),
        (["--balancer", "http://a", "--driver", "process"], "the start commands are missing"),
        (["--balancer", "http://a", "--floor", "T9=1"], "T9"),
        (["--balancer", "http://a", "--floor", "l4=x"], "must be NAME=N or N"),
        (["--balancer", "http://a", "--window", "0"], "window_s must be > 0"),
        (["--replay", "none.jsonl"], "no such log"),
    ],
)
def test_faults_of_the_command_say_the_next_step(flags: list[str], words: str, tmp_path: Path) -> None:
    """Before anything is looked at."""
    plan = small_plan().save(tmp_path / "plan.json")
    outcome = CliRunner().invoke(app, ["operate", str(plan), "--state", str(tmp_path / "state"), *flags])
    assert isinstance(outcome.exception, InputError), outcome.output
    assert words in f"{outcome.exception} {outcome.exception.hint}"


@pytest.mark.parametrize(
    ("driver", "flags", "said"),
    [
        ("dry-run", "--command x", ["dry-run does not use --command, an option of --driver command"]),
        ("dry-run", "--option scaling=keda", ["dry-run does not use --option, an option of --driver files"]),
        ("dry-run", "--to kubernetes", ["dry-run does not use --to, an option of --driver files"]),
        (
            "kubernetes",
            "--folder f --commit",
            ["kubernetes does not use --folder, --commit, options of --driver files"],
        ),
        ("process", "--command-timeout 3", ["process does not use --command-timeout, an option of --driver command"]),
        (
            "files",
            "--namespace x --api-server http://1 --command y --start L4=x --folder f",
            [
                "files does not use --namespace, --api-server, options of --driver kubernetes",
                "files does not use --command, an option of --driver command",
                "files does not use --start, an option of --driver process",
            ],
        ),
    ],
)
def test_options_of_other_drivers_are_refused(driver: str, flags: str, said: list[str], tmp_path: Path) -> None:
    """All of them, each with its driver, even with the value that is the default; nothing is written."""
    plan = small_plan().save(tmp_path / "plan.json")
    words = ["operate", str(plan), "--balancer", "http://a", "--state", str(tmp_path / "s"), "--driver", driver]
    outcome = CliRunner().invoke(app, [*words, *flags.split()])
    assert isinstance(outcome.exception, InputError), outcome.output
    assert str(outcome.exception).splitlines() == [f"--driver {one}" for one in said]
    assert not (tmp_path / "s").exists()


def test_each_option_of_a_driver_is_listed_with_it() -> None:
    """A new flag of a driver is refused with the other drivers, as its help says which driver it is for."""
    hints = get_type_hints(_DriverFlags, include_extras=True)
    said = {name: hints[name].__metadata__[0].help.partition(":")[0] for name in hints}
    for driver, names in _DRIVERS.items():
        assert {name for name, word in said.items() if word == driver} == set(names)


def test_a_dry_run_says_what_it_would_do(site: tuple[str, Answers, list[str]], tmp_path: Path) -> None:
    """And does nothing: the fleet on paper follows."""
    url, answers, _ = site
    answers["/workload.json"] = lambda _: (200, small_plan().workload.at_rate(3_000.0).dumps())
    plan = small_plan().save(tmp_path / "plan.json")
    words = ["operate", str(plan), "--balancer", url, "--state", str(tmp_path / "state"), "--once", "--start-up", "0"]
    assert CliRunner().invoke(app, words).exit_code == 0
    log = (tmp_path / "state" / "log.jsonl").read_text()
    assert "scale up" in log
    assert (tmp_path / "state" / "plan.json").exists()
    assert len(json.loads((tmp_path / "state" / "paper.json").read_text())["instances"]) > 3
