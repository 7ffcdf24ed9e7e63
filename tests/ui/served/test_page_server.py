"""The page's server without a browser: what it answers, what it refuses, and that it reads no file of its machine."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

STATES = [
    {},
    {"rate": "21"},
    {"growth": "50"},
    {"traffic": "mixture", "mix": "arena:80,arxiv-summarization:20"},
    {"traffic": "log.csv"},
    {"traffic": "log.csv", "growth": "25"},
    {"ttft_ms": "1800", "tpot_ms": "none"},
    {"attainment": "95"},
    {"statistic": "mean"},
    {"gpus": "L4", "max": "L4:40", "market": "all"},
    {"providers": "all", "regions": "all"},
    {"spare_replicas": "1", "max_types": "1"},
    {"headroom": "25", "min_total_replicas": "5", "spare_total_replicas": "1"},
]


def command_of(page: Any, command: str, *more: str) -> dict[str, Any]:
    """What a command line that the page shows prints as JSON, where the page's server was started."""
    words = shlex.split(command)
    assert words[0] == "melange"
    run = [sys.executable, "-c", "from melange.cli import main; main()", *words[1:], *more, "--json"]
    done = subprocess.run(run, cwd=page.folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("state", STATES, ids=str)
def test_the_command_gives_the_same_answer(state: dict[str, str], page: Any) -> None:
    """As the closed form on the page, and so does the file that it offers."""
    query = urlencode(state)
    found = page.ask("GET", f"/api/answer?{query}").body
    assert found["summary"]["cost_per_h"] is not None, found
    plan = command_of(page, found["quick_command"])
    used = {name: count for name, count in plan["instances"].items() if count}
    assert used == found["summary"]["instances"]
    assert plan["cost_per_h"] == pytest.approx(found["summary"]["cost_per_h"])
    text = page.ask("GET", f"/service.yaml?{query}").body
    (page.folder / "downloaded.yaml").write_text(text)
    again = command_of(page, "melange plan downloaded.yaml --quick")
    assert again["fingerprint"] == plan["fingerprint"]
    offered = page.ask("GET", f"/plan.json?{query}").body
    assert offered["fingerprint"] == plan["fingerprint"]


def test_the_certified_answer_is_that_of_the_command(page: Any) -> None:
    """With progress before it, and from then on it is the answer of the state."""
    lines = page.follow("/api/certify?rate=6", {})
    assert any("progress" in line for line in lines)
    found = lines[-1]["done"]
    assert found["summary"]["kind"] == "certified"
    assert "95% interval" in found["html"]
    plan = command_of(page, found["command"])
    assert plan["attainment"] == found["summary"]["attainment"]
    assert page.ask("GET", "/plan.json?rate=6").body["fingerprint"] == plan["fingerprint"]
    again = page.ask("GET", "/api/answer?rate=6").body
    assert again["is_certified"]
    compared = page.follow("/api/certify?rate=6&pin=rate%3D8", {})[-1]["done"]
    assert "Against rate 8" in compared["html"]
    assert again["summary"]["kind"] == "certified"


def test_work_that_nobody_follows_is_cancelled(page: Any) -> None:
    """As soon as the connection of the last follower is closed; another state then need not wait for it."""
    with socket.create_connection(("127.0.0.1", page.port)) as sent:
        sent.sendall(certifying("rate=33&tpot_ms=40"))
        assert b"200 OK" in sent.recv(1000)
        wait_until(lambda: commands_of(page), "a job")
    wait_until(lambda: not commands_of(page), "its end")


def certifying(query: str) -> bytes:
    """A request that starts a certification."""
    head = (
        f"POST /api/certify?{query} HTTP/1.1\r\nHost: localhost\r\nX-Melange-Page: 1\r\nContent-Length: 2\r\n\r\n{{}}"
    )
    return head.encode()


def commands_of(page: Any) -> list[str]:
    """Jobs of a page's server that run now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            words = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue  # it has ended
        if parent == str(page.process.pid) and "plan" in words:
            found.append(" ".join(words))
    return found


def wait_until(holds: Callable[[], Any], what: str) -> None:
    """Half a minute at most."""
    for _ in range(300):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError(f"{what} was waited for")


def test_two_people_who_ask_the_same_follow_one_job(page: Any) -> None:
    """And one who leaves does not end it for the other."""
    ask = certifying("rate=9")
    first = socket.create_connection(("127.0.0.1", page.port))
    first.sendall(ask)
    assert b"200 OK" in first.recv(1000)
    wait_until(lambda: commands_of(page), "a job")
    with socket.create_connection(("127.0.0.1", page.port)) as second:
        second.sendall(ask)
        assert b"200 OK" in second.recv(1000)
        assert len(commands_of(page)) <= 1
        first.close()
        assert page.follow("/api/certify?rate=9", {})[-1]["done"]["summary"]["kind"] == "certified"


@pytest.mark.parametrize(
    "query",
    [
        "traffic=secret.csv",
        "traffic=../secret.csv",
        "traffic=/etc/passwd",
        "traffic=0123456789abcdef/secret.csv",
        "traffic=0123456789abcdef/../../secret.csv",
        "model=secret.csv",
        "workload.trace=secret.csv",
        "offers.file=secret.csv",
        "set=offers.file%3Dsecret.csv",
        "mix=secret.csv:1&traffic=mixture",
        "service=../secret",
        "pin=traffic%3Dsecret.csv",
        "rate=5%0Aoffers.file%3Dsecret.csv",
        "statistic=secret.csv",
        "gpus=secret.csv",
        "max=secret.csv:1",
    ],
)
def test_no_file_of_the_server_is_read(query: str, page: Any) -> None:
    """Whatever an address says: it is refused, or means no file."""
    for path in ("/api/answer", "/service.yaml", "/plan.json", "/api/curves", "/api/pinned"):
        found = page.ask("GET", f"{path}?{query}")
        assert "anyone" not in json.dumps(found.body), path
        if path == "/plan.json" and not query.startswith("pin"):
            assert found.status == 422
    for path in ("/static/..%2f..%2fopened.py", "/static/%2e%2e/opened.py", "/static//etc/passwd"):
        assert page.ask("GET", path).status == 404


def test_what_if_takes_no_key_of_the_service(page: Any) -> None:
    """Only the flags that name prices, rates, what to leave out and what to save."""
    assert page.ask("POST", "/api/what-if", {"change": ["offers.file=secret.csv"]}).status == 422
    lines = page.follow("/api/what-if?rate=4", {"rate": ["x2"], "without": ["L4"], "save": ["20%"]})
    done = lines[-1]["done"]
    assert "rate x2" in done["html"]
    assert "without L4" in done["html"]
    assert "--set=workload.rate=4" in done["command"]
    printed = command_of(page, done["command"])
    assert [one["label"] for one in printed["answers"]] == ["current", "rate x2", "without L4", "all combined"]
    assert f"{printed['answers'][1]['cost_per_h']:,.2f}" in done["html"]


def test_an_uploaded_log_is_planned_for(page: Any) -> None:
    """By the id that it got, and the settings that are shown name it as the person's file is named."""
    log = (page.folder / "log.csv").read_bytes()
    up = page.ask("POST", "/api/files?name=own.csv", log)
    assert up.body["bytes"] == len(log)
    found = page.ask("GET", f"/api/answer?{urlencode({'traffic': up.body['traffic']})}").body
    assert found["summary"]["cost_per_h"]
    assert '"trace": "own.csv"' in found["command"]
    (page.folder / "own.csv").write_bytes(log)
    assert command_of(page, found["quick_command"])["cost_per_h"] == pytest.approx(found["summary"]["cost_per_h"])
    assert page.ask("POST", "/api/files?name=..%2fown.csv", log).status == 422
    assert page.ask("POST", "/api/files?name=.bashrc", log).status == 422
    broken = page.ask("POST", "/api/files?name=broken.csv", b"no,log\n1,2\n").body["traffic"]
    said = json.dumps(page.ask("GET", f"/api/answer?{urlencode({'traffic': broken})}").body)
    assert "broken.csv" in said
    assert "melange-ui-" not in said


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
    ],
)
def test_other_sites_cannot_ask(headers: dict[str, str], page: Any) -> None:
    """Neither through the browser of somebody who may."""
    assert page.ask("GET", "/api/answer", headers=headers).status == 403
    assert page.ask("POST", "/api/certify", {}, headers=headers).status == 403


def test_other_names_of_the_server_are_refused_and_headers_are_safe(page: Any) -> None:
    """A page that resolves its own name to this machine gets no answer, and nothing may frame the page."""
    assert page.ask("GET", "/", headers={"Host": "attacker.example"}).status == 400
    assert page.ask("GET", "/api/answer", headers={"Host": f"attacker.example:{page.port}"}).status == 400
    found = page.ask("GET", "/")
    assert found.status == 200
    assert "frame-ancestors 'none'" in found.headers["Content-Security-Policy"]
    assert "script-src 'self';" in found.headers["Content-Security-Policy"]
    with socket.create_connection(("127.0.0.1", page.port)) as sent:
        sent.sendall(b"GET /api/answer HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 403 " in sent.recv(100)
    with socket.create_connection(("127.0.0.1", page.port)) as sent:
        head = b"POST /api/files?name=a.csv HTTP/1.1\r\nHost: localhost\r\nX-Melange-Page: 1\r\n"
        sent.sendall(head + b"Content-Length: 99999999999\r\n\r\n")
        assert b" 413 " in sent.recv(100)


def test_a_token_is_asked_for_where_there_is_one(page: Any, serve_page: Callable[..., Any]) -> None:
    """Everything but the form and its style; the cookie that it gives is Wrong token."""
    token = "a-long-random-text"  # of the test
    locked = serve_page(page.folder, "service.yaml", token=token)
    assert locked.ask("GET", "/?rate=5").status == 401
    assert "chat" not in locked.ask("GET", "/").body
    for path in ("/api/answer", "/service.yaml", "/plan.json"):
        assert locked.ask("GET", path).status == 401
    assert locked.ask("POST", "/api/certify", {}).status == 401
    wrong = locked.ask("POST", "/login?rate=5", b"token=guess")
    assert wrong.status == 401
    assert "Wrong token" in wrong.body
    assert locked.ask("GET", "/api/answer", headers={"Cookie": f"melange_ui={token}"}).status == 401
    assert locked.ask("GET", "/api/answer", headers={"Authorization": f"Bearer {token}"}).status == 200


def test_a_fleet_has_a_page_for_each_service_and_one_for_the_pools(
    tmp_path: Path, serve_page: Callable[..., Any]
) -> None:
    """Planned together by the command that is shown."""
    root = Path(__file__).parents[3] / "examples"
    for name in ("fleet.yaml", "chat.yaml", "code.yaml"):
        (tmp_path / name).write_text((root / name).read_text())
    fleet = serve_page(tmp_path, "fleet.yaml")
    both = [fleet.ask("GET", f"/api/answer?service={name}").body for name in ("chat", "code")]
    assert "chat.yaml" in both[0]["command"]
    assert "code.yaml" in both[1]["command"]
    assert "Services and pools" in fleet.ask("GET", "/?service=code").body
    done = fleet.follow("/api/pools", {"limits": {"L40S": 4}})[-1]["done"]
    plan = command_of(fleet, done["command"])
    assert f"{plan['cost_per_h']:,.2f} USD/h" in done["html"]
    assert fleet.ask("GET", "/api/answer?service=other").status == 422


def test_a_week_is_planned_over_time(tmp_path: Path, serve_page: Callable[..., Any]) -> None:
    """By the command that is shown, with its figures."""
    root = Path(__file__).parents[3] / "examples"
    shutil.copytree(root / "week", tmp_path / "week")
    (tmp_path / "week.yaml").write_text((root / "week.yaml").read_text())
    week = serve_page(tmp_path, "week.yaml")
    done = week.follow("/api/week", {})[-1]["done"]
    assert set(done["figures"]) == {"week", "frontier"}
    plan = command_of(week, done["command"])
    assert f"{plan['running']['cost_per_h'] * 168:,.0f} USD a week" in done["html"]
