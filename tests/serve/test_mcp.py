"""The MCP server over real stdin and stdout, and over HTTP, with the client of its SDK."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from melange.cli.app import app

pytest.importorskip("mcp")

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError

SERVICE = {
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "slo": {"ttft_ms": 2000, "tpot_ms": 80},
    "workload": {"dataset": "arena", "rate": 8},
    "offers": {"gpus": ["L4", "A10G"], "providers": ["aws"], "regions": ["us-east-1"]},
}
TEXT = json.dumps(SERVICE)  # JSON is YAML
LONG = json.dumps(SERVICE | {"plan": {"headroom": 0.11}})
COMMAND = "from melange.cli import main; main()"
TOKEN = "a-long-random-text"  # of the tests


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the server may use, beside something that it may not."""
    made = tmp_path / "services"
    made.mkdir()
    (made / "chat.yaml").write_text(TEXT)
    (tmp_path / "secret.yaml").write_text(TEXT)
    (tmp_path / "secret.csv").write_text("arrival_s,input_tokens,output_tokens\n0,10,10\n1,10,10\n")
    return made


def with_client(folder: Path, use: Callable[[Client], Awaitable[None]], *flags: str) -> None:
    """Use a server of a folder, in a process of its own."""

    async def run() -> None:
        environment = {name: value for name, value in os.environ.items() if name.startswith("MELANGE_")}
        words = ["-c", COMMAND, "mcp", "--limit=5m", *flags]
        server = StdioServerParameters(command=sys.executable, args=words, cwd=folder, env=environment)
        async with Client(stdio_client(server)) as client:
            await use(client)

    asyncio.run(run())


async def failure(client: Client, tool: str, given: dict[str, Any]) -> str:
    """The error that a call leads to, as text; in parts it is the same."""
    found = await client.call_tool(tool, given)
    assert found.is_error
    error = (found.structured_content or {})["error"]
    said = str(found.content[0].text)  # type: ignore[union-attr] # it is a text
    assert f"error: {error['message']}" in said
    assert not error["hint"] or f"hint: {error['hint']}" in said
    return said


def test_tools_have_typed_inputs_and_refuse_what_is_not_theirs(folder: Path) -> None:
    """The verbs of the HTTP API; no file outside of the folder is read, and none is replaced."""

    async def use(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"plan", "what-if", "explore", "validate", "deploy"}
        for tool in tools.values():
            assert tool.description
            assert all(one["type"] or one["anyOf"] for one in tool.input_schema["properties"].values() if "type" in one)
        assert tools["deploy"].input_schema["required"] == ["to"]
        assert "is outside the folder" in await failure(client, "plan", {"service_file": "../secret.yaml"})
        assert "is outside the folder" in await failure(client, "plan", {"service_file": "/etc/passwd"})
        both = {"service": TEXT, "service_file": "chat.yaml"}
        assert "either the text" in await failure(client, "plan", both)
        assert "exists already" in await failure(
            client, "plan", {"service_file": "chat.yaml", "incumbent": "", "out": "chat.json"}
        )
        assert "must end in .json" in await failure(client, "plan", {"service": TEXT, "out": "chat.yaml"})
        assert "no result has the id 'never'" in await failure(client, "validate", {"plan": "never"})
        assert "requests: input should be" in await failure(client, "validate", {"plan": "x", "requests": 0})
        assert "no_such: extra inputs" in await failure(client, "plan", {"service": TEXT, "no_such": 1})
        template = await client.read_resource("melange://service.yaml")
        assert "slo:" in template.contents[0].text  # type: ignore[union-attr] # it is a text
        with pytest.raises(MCPError, match="no such resource"):
            await client.read_resource("melange://results/never")
        with pytest.raises(MCPError, match="unknown tool"):
            await client.call_tool("rm", {})

    (folder / "chat.json").write_text("{}")
    with_client(folder, use)
    assert (folder / "chat.json").read_text() == "{}"


@pytest.mark.heavy
def test_an_assistant_plans_validates_compares_and_deploys(folder: Path) -> None:
    """With the figures and the pages of the command line, and progress."""
    path = folder / "chat.yaml"
    lines = CliRunner().invoke(app, ["plan", str(path), "--quick"], env={"COLUMNS": "100"}).stdout
    wanted = json.loads(CliRunner().invoke(app, ["plan", str(path), "--quick", "--json"]).stdout)
    news: list[str] = []

    async def hear(progress: float, _total: float | None, message: str | None) -> None:
        assert progress == len(news) + 1
        news.append(message or "")

    async def use(client: Client) -> None:
        plans = []
        for given in ({"service_file": "chat.yaml", "out": "plan.json"}, {"service": TEXT}):
            found = await client.call_tool("plan", {**given, "quick": True}, progress_callback=hear)
            assert not found.is_error, found.content
            assert news, "progress is reported"
            news.clear()
            plans.append(found)
        ids = [plan.structured_content["id"] for plan in plans]  # type: ignore[index] # as its schema says
        for plan, number in zip(plans, ids, strict=True):
            answer, text = plan.structured_content["answer"], plan.content[0].text  # type: ignore[index,union-attr]
            assert answer["fingerprint"] == wanted["fingerprint"]
            assert answer["cost_per_h"] == wanted["cost_per_h"]
            assert "profile" not in answer
            assert text.endswith(f"id: {number}")
            assert lines.splitlines()[2] == text.splitlines()[2]
            assert len(json.dumps(answer)) < 20_000
        whole = await client.read_resource(f"melange://results/{ids[0]}")
        assert json.loads(whole.contents[0].text)["profile"]  # type: ignore[union-attr] # it is a text
        assert json.loads((folder / "plan.json").read_text())["fingerprint"] == wanted["fingerprint"]
        for given in ({"plan": ids[1]}, {"plan_file": "plan.json"}):
            report = await client.call_tool("validate", {**given, "requests": 50, "seeds": 1})
            assert 0 <= report.structured_content["answer"]["attainment"]["value"] <= 1  # type: ignore[index]
        files = await client.call_tool("deploy", {"plan": ids[0], "to": "haproxy"})
        content = files.structured_content["answer"]["files"]  # type: ignore[index] # as the command prints it
        assert "backend" in json.dumps(content)
        assert all(text.rstrip() in files.content[0].text for text in content.values())  # type: ignore[union-attr]
        kept = await client.call_tool("plan", {"service": TEXT, "quick": True, "incumbent": ids[0]})
        assert kept.structured_content["answer"]["changes"] == {}  # type: ignore[index]
        other = await client.call_tool("what-if", {"service": TEXT, "quick": True, "rates": ["x2"]})
        assert [one["label"] for one in other.structured_content["answer"]["answers"]] == ["current", "rate x2"]  # type: ignore[index]
        asked = {"service": TEXT, "quick": True, "out": "explore.html"}
        curves = (await client.call_tool("explore", asked)).structured_content["answer"]  # type: ignore[index]
        assert {one["metric"] for one in curves["by_limit"]} == {"tpot", "ttft"}
        assert any(one["cost_per_h"] == wanted["cost_per_h"] for one in curves["by_rate"])
        assert "<html" in (folder / "explore.html").read_text()
        said = await failure(client, "plan", {"service": TEXT, "quick": True, "settings": {"slo.ttft_ms": 1}})
        assert said.startswith("error: no replica type can serve")
        assert "\n  - " in said
        assert "hint: relax the SLO" in said

    with_client(folder, use)
    assert {one.name for one in folder.iterdir()} == {"chat.yaml", "plan.json", "explore.html"}


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"service_file": "chat.yaml", "settings": {"workload": {"trace": "../secret.csv"}}}, "are not read here"),
        ({"service": json.dumps(SERVICE | {"workload": {"trace": "/etc/passwd"}})}, "are not read here"),
        (
            {"service_file": "chat.yaml", "settings": {"workload": {"table": "logs", "connection": "postgres://x/y"}}},
            "databases are not read here",
        ),
    ],
)
def test_what_a_service_names_outside_of_the_folder_is_not_read(given: dict[str, Any], said: str, folder: Path) -> None:
    """Nor is a database, which the server's owner may read."""

    async def use(client: Client) -> None:
        assert said in await failure(client, "plan", {**given, "quick": True})

    with_client(folder, use)


@pytest.mark.heavy
def test_a_log_of_the_folder_is_read(folder: Path) -> None:
    """As the service in the folder names it, and to replay a plan."""
    rows = "".join(f"{second},{200 + second},{20 + second}\n" for second in range(100))
    (folder / "log.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    (folder / "own.yaml").write_text(json.dumps(SERVICE | {"workload": {"trace": "log.csv", "rate": 8}}))

    async def use(client: Client) -> None:
        plan = await client.call_tool("plan", {"service_file": "own.yaml", "quick": True})
        assert "log.csv" in plan.structured_content["answer"]["workload"]["source"]  # type: ignore[index]
        replay = {"plan": plan.structured_content["id"], "trace_file": "log.csv"}  # type: ignore[index]
        report = await client.call_tool("validate", replay)
        assert "log.csv" in report.structured_content["answer"]["source"]  # type: ignore[index]

    with_client(folder, use)


def _jobs_of(process: int) -> list[int]:
    """The processes that a server has started and that still run."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after[1]) == process and after[0] != "Z":
            found.append(int(place.parent.name))
    return found


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_cancelled_call_and_a_closed_client_end_the_work(folder: Path) -> None:
    """The process of a plan ends with the call, and with the client."""

    async def use(client: Client) -> None:
        (server,) = _jobs_of(os.getpid())
        call = asyncio.create_task(client.call_tool("plan", {"service": LONG}))
        while not _jobs_of(server):
            await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        for _ in range(200):
            if not _jobs_of(server):
                break
            await asyncio.sleep(0.05)
        assert not _jobs_of(server)
        call = asyncio.create_task(client.call_tool("plan", {"service": LONG}))
        while not (running := _jobs_of(server)):
            await asyncio.sleep(0.05)
        started.extend(running)
        call.cancel()

    started: list[int] = []
    with_client(folder, use)
    for _ in range(200):
        if not any(Path(f"/proc/{number}").exists() for number in started):
            break
        time.sleep(0.05)
    assert not any(Path(f"/proc/{number}").exists() for number in started)


@pytest.fixture
def served(folder: Path) -> Iterator[str]:
    """A server over HTTP with a token: its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", COMMAND, "mcp", "--http", f"--port={port}"]
    process = subprocess.Popen(words, cwd=folder, env=os.environ | {"MELANGE_API_TOKEN": TOKEN})
    for _ in range(600):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/mcp"
    process.terminate()
    process.wait(30)


@pytest.mark.heavy
def test_over_http_a_token_is_asked_for_and_no_file_is_named(served: str) -> None:
    """Other names of the server are refused, too."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    async def run() -> None:
        with httpx2.Client() as one:
            body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            assert one.post(served, json=body).status_code == 401
            bearer = {"authorization": f"Bearer {TOKEN}"}
            assert one.post(served, json=body, headers={**bearer, "host": "evil.example"}).status_code in (400, 421)
        async with (
            httpx2.AsyncClient(headers=bearer, timeout=60) as http,
            Client(streamable_http_client(served, http_client=http)) as client,
        ):
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert "service_file" not in tools["plan"].input_schema["properties"]
            assert "no files" in await failure(client, "plan", {"service_file": "chat.yaml"})
            found = await client.call_tool("plan", {"service": TEXT, "quick": True})
            assert found.structured_content["answer"]["cost_per_h"] > 0  # type: ignore[index]

    asyncio.run(run())


def test_flags_of_the_command_are_checked(tmp_path: Path) -> None:
    """Files only where the client is the user's own."""
    for words, said in (
        (["--http", "--folder", str(tmp_path)], "which reads no files"),
        (["--folder", str(tmp_path / "none")], "is not a folder"),
        (["--http", "--host", "0.0.0.0"], "no token protects it"),
    ):
        error = CliRunner().invoke(app, ["mcp", *words]).exception
        assert said in str(error)
