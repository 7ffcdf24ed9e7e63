"""The HTTP API on a real server: what it answers, what it refuses, and that it reads no file of its machine."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from melange.cli.app import app
from melange.errors import InputError

pytest.importorskip("fastapi")

SERVICE = {
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "slo": {"ttft_ms": 2000, "tpot_ms": 80},
    "workload": {"dataset": "arena", "rate": 8},
    "offers": {"gpus": ["L4", "A10G"], "providers": ["aws"], "regions": ["us-east-1"]},
}
DRAFTS = {"method": "draft_model", "num_speculative_tokens": 2, "acceptance_rate": 0.5}
TOKEN = "a-long-random-text"  # of the tests


class Answer(NamedTuple):
    """Status and body of a response."""

    status: int
    body: Any


class Server:
    """A running ``melange serve``."""

    def __init__(self, folder: Path, token: str = "") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = [sys.executable, "-c", "from melange.cli import main; main()", "serve", f"--port={self.port}"]
        self.token, environment = token, os.environ | {"MELANGE_API_TOKEN": token}
        with (folder / f"log-{self.port}").open("wb") as log:
            self.process = subprocess.Popen([*words, "--limit=5m"], env=environment, stderr=log)
        for _ in range(600):
            try:
                self.ask("GET", "/openapi.json")
                return
            except urllib.error.URLError:
                time.sleep(0.1)
        raise AssertionError("the server did not start")

    def ask(
        self, method: str, path: str, content: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request; a body that is no bytes is sent as JSON."""
        data = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                status, text = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        try:
            return Answer(status, json.loads(text))
        except ValueError:
            return Answer(status, text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without a token, on the loopback address."""
    found = Server(tmp_path_factory.mktemp("serve"))
    yield found
    found.process.terminate()
    assert found.process.wait(30) is not None


def test_a_plan_is_that_of_the_command(server: Server, tmp_path: Path) -> None:
    """The same fingerprint; settings override the service."""
    path = tmp_path / "service.yaml"
    path.write_text(json.dumps(SERVICE))
    said = CliRunner().invoke(app, ["plan", str(path), "--quick", "--set", "workload.rate=16", "--json"])
    asked = {"service": SERVICE, "settings": {"workload.rate": 16}, "quick": True}
    found = server.ask("POST", "/v1/plan?wait=100", asked)
    assert found.status == 200
    assert found.body["state"] == "done"
    assert found.body["result"]["fingerprint"] == json.loads(said.stdout)["fingerprint"]


def test_a_plan_is_deployed_and_validated(server: Server) -> None:
    """The result of one verb is what the others take."""
    plan = server.ask("POST", "/v1/plan?wait=100", {"service": SERVICE, "quick": True}).body["result"]
    files = server.ask("POST", "/v1/deploy?wait=100", {"plan": plan, "to": "haproxy"}).body["result"]
    assert "backend" in json.dumps(files)
    asked = {"plan": plan, "requests": 50, "seeds": 1, "scale": 0.5}
    report = server.ask("POST", "/v1/validate?wait=100", asked).body
    assert report["state"] == "done", report["error"]
    assert 0 <= report["result"]["attainment"]["value"] <= 1


def test_an_uploaded_log_is_planned_for(server: Server) -> None:
    """By the name that the request gives it."""
    rows = "".join(f"{second},{200 + second},{20 + second}\n" for second in range(100))
    upload = server.ask("POST", "/v1/files", b"arrival_s,input_tokens,output_tokens\n" + rows.encode())
    assert upload.body["bytes"] == len(rows) + 37
    service = SERVICE | {"workload": {"trace": "log.csv", "rate": 8}}
    asked = {"service": service, "files": {"log.csv": upload.body["id"]}, "quick": True}
    found = server.ask("POST", "/v1/plan?wait=100", asked)
    assert found.body["error"] is None
    assert "log.csv" in found.body["result"]["workload"]["source"]


def test_progress_and_the_end_are_events(server: Server) -> None:
    """Until the job has ended."""
    job = server.ask("POST", "/v1/what-if", {"service": SERVICE, "rates": ["x2"], "quick": True})
    assert job.status == 202
    events = server.ask("GET", f"/v1/jobs/{job.body['id']}/events").body
    assert "event: progress" in events
    assert re.search(r'event: end\ndata: {"state": "done", "error": null}', events)
    done = server.ask("GET", f"/v1/jobs/{job.body['id']}").body
    assert [one["label"] for one in done["result"]["answers"]] == ["current", "rate x2"]
    listed = server.ask("GET", "/v1/jobs").body
    assert "result" not in next(one for one in listed if one["id"] == job.body["id"])


def test_a_job_is_cancelled(server: Server) -> None:
    """At once, and for good."""
    job = server.ask("POST", "/v1/plan", {"service": SERVICE | {"plan": {"headroom": 0.11}}}).body["id"]
    assert server.ask("DELETE", f"/v1/jobs/{job}").body["state"] == "cancelled"
    assert server.ask("GET", f"/v1/jobs/{job}?wait=3").status == 409


def test_what_cannot_be_planned_says_why(server: Server) -> None:
    """In the words of the command line, with reasons and hint."""
    found = server.ask("POST", "/v1/plan?wait=100", {"service": SERVICE, "settings": {"slo.ttft_ms": 1}, "quick": True})
    assert found.status == 422
    assert "no replica type can serve" in found.body["error"]["message"]
    assert found.body["error"]["reasons"]
    assert server.ask("POST", "/v1/plan", {"service": SERVICE, "quik": True}).status == 422
    assert server.ask("GET", "/v1/jobs/none").status == 404


@pytest.mark.parametrize(
    "change",
    [
        {"model": "{file}"},
        {"workload": {"trace": "{file}", "rate": 2}},
        {"workload": {"histogram": "../../{file}"}},
        {"workload": {"file": "~/../{file}"}},
        {"workload": {"metrics": ["{file}"]}},
        {"offers": {"file": "{file}"}},
        {"profile": {"source": ["{file}"]}},
        {"profile": {"anchors": ["L4={file}"]}},
        {"profile": {"anchors": ["{file}*"]}},
        {"profile": {"observed": "{file}"}},
        {"services": ["{file}"]},
        {"regions": {"origins": {"a": {"share": 1, "at": "us-east-1"}}, "round_trips": "{file}"}},
        {"engine": {"speculative": DRAFTS | {"model": "{file}"}}},
    ],
)
def test_no_file_of_the_server_is_read(change: dict[str, Any], server: Server, tmp_path: Path) -> None:
    """Whatever key of the service names it, and however."""
    secret = tmp_path / "secret.csv"
    secret.write_text("never,to,be\nseen,outside,1\n")
    service = json.loads(json.dumps(change).replace("{file}", str(secret)))
    if "services" not in change:
        service = SERVICE | service
    found = server.ask("POST", "/v1/plan?wait=100", {"service": service, "quick": True})
    assert found.status == 422
    assert "outside of the service's folder" in found.body["error"]["message"]
    assert "never" not in json.dumps(found.body)


@pytest.mark.parametrize(
    ("verb", "body", "said"),
    [
        ("plan", b'{"service": {}, "settings": {"a\\u0000b": 1}}', "the character NUL"),
        ("plan", b'{"service": {}, "settings": {"\\ud800": 1}}', "which is not a valid character"),
        ("plan", b'{"service": "\\ud800"}', "which is not a valid character"),
        ("what-if", b'{"service": {}, "changes": ["a=%s"]}' % (b"x" * 200_000), "100,000 bytes each"),
        ("what-if", b'{"service": {}, "changes": [%s"a=1"]}' % (b'"a=1",' * 100_000), "100,000 bytes each"),
        ("plan", b'{"service": 3, "quick": NaN}', "valid dictionary"),
        ("plan", b'{"service": {}, "\\ud800": 1}', "unable to parse raw data as a unicode string"),
    ],
)
def test_a_text_that_no_command_can_hold_is_refused(verb: str, body: bytes, said: str, server: Server) -> None:
    """Before there is a job: the system would cut it off, or never start the command."""
    found = server.ask("POST", f"/v1/{verb}", body)
    assert found.status == 422
    assert said in json.dumps(found.body)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"../log.csv": "x"}, "is not a valid file name"),
        ({".bashrc": "x"}, "is not a valid file name"),
        ({"service.yaml": "x"}, "is not a valid file name"),
        ({"log.csv": "../../../etc/passwd"}, "no upload has the id"),
        ({"log.csv": "upload-0123456789abcdef"}, "no upload has the id"),
    ],
)
def test_files_have_plain_names_and_known_ids(files: dict[str, str], said: str, server: Server) -> None:
    """Names stay inside of the job's folder, and only uploads are linked there."""
    found = server.ask("POST", "/v1/plan", {"service": SERVICE, "files": files})
    assert found.status == 422
    assert said in json.dumps(found.body)


def test_other_names_of_the_server_and_bodies_without_a_length_are_refused(server: Server) -> None:
    """A page in a browser that resolves its own name to this machine gets no answer."""
    assert server.ask("GET", "/v1/jobs", headers={"Host": "attacker.example"}).status == 400
    with socket.create_connection(("127.0.0.1", server.port)) as sent:
        sent.sendall(b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert b" 411 " in sent.recv(100)
    with socket.create_connection(("127.0.0.1", server.port)) as sent:
        sent.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        assert b" 413 " in sent.recv(100)


def test_a_token_is_asked_for_where_there_is_one(tmp_path: Path) -> None:
    """In every request; without one only the loopback address is served."""
    found = Server(tmp_path, TOKEN)
    try:
        assert found.ask("GET", "/v1/jobs").status == 200
        assert found.ask("GET", "/v1/jobs", headers={"Authorization": "Bearer other"}).status == 401
        found.token = ""
        assert found.ask("POST", "/v1/plan", {"service": SERVICE}).status == 401
    finally:
        found.process.terminate()
        found.process.wait(30)
    with pytest.raises(InputError, match="no token protects it"):
        app(["serve", "--host", "0.0.0.0", "--token-env", "MELANGE_NO_SUCH_TOKEN"], standalone_mode=False)


@pytest.mark.parametrize(("rate", "code"), [(8, 0), (80, 1)])
def test_the_cost_gate_fails_what_costs_more(rate: float, code: int, tmp_path: Path) -> None:
    """Ten times the traffic does; the same does not."""
    for name, value in (("before", 8), ("after", rate)):
        service = SERVICE | {"workload": {"dataset": "arena", "rate": value}}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(service))
    gate = Path(__file__).parents[2] / "examples" / "cost-gate" / "gate.py"
    words = [sys.executable, str(gate), "before.yaml", "after.yaml", "--quick"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "USD/h" in done.stdout
