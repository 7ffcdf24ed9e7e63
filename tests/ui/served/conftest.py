"""Running pages of ``melange ui``, for tests with and without a browser."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("fastapi")

ROOT = Path(__file__).parents[3]
SERVICE = """\
# A chat service.
model: meta-llama/Llama-3.1-8B-Instruct
slo: {ttft_ms: 2000, tpot_ms: 80}
workload: {dataset: arena, rate: 8}
offers: {gpus: [L4, A10G, L40S], providers: [aws, gcp], regions: [us-east-1, us-central1], market: [on-demand]}
"""


class Answer(NamedTuple):
    """Status, body and headers of a response."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Page:
    """A running ``melange ui``."""

    def __init__(self, folder: Path, *words: str, token: str = "") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.token, self.log = folder, token, folder / f"log-{self.port}"
        command = [sys.executable, "-c", "from melange.cli import main; main()", "ui", *words, f"--port={self.port}"]
        with self.log.open("wb") as log:
            environment = os.environ | {"MELANGE_UI_TOKEN": token}
            self.process = subprocess.Popen(command, env=environment, cwd=folder, stderr=log)
        for _ in range(600):
            try:
                self.ask("GET", "/static/ui.css")
                return
            except urllib.error.URLError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.1)
        raise AssertionError("the server did not start")

    @property
    def address(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{self.port}/"

    def ask(
        self, method: str, path: str, content: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request as the page's script sends it; a body that is no bytes is sent as JSON."""
        data = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        if data is None and method == "POST":
            data = b""
        request = urllib.request.Request(f"{self.address}{path.lstrip('/')}", data, method=method)
        for name, value in ({"X-Melange-Page": "1", "Content-Type": "application/json"} | dict(headers or {})).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=180) as response:
                status, text, given = response.status, response.read().decode(), response.headers
        except urllib.error.HTTPError as error:
            status, text, given = error.code, error.read().decode(), error.headers
        try:
            return Answer(status, json.loads(text), given)
        except ValueError:
            return Answer(status, text, given)

    def follow(self, path: str, content: object) -> list[Any]:
        """The lines of long work, to its end."""
        body = self.ask("POST", path, content).body
        lines = body.splitlines() if isinstance(body, str) else [json.dumps(body)]
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        assert self.process.wait(60) is not None


@pytest.fixture(scope="session")
def serve_page() -> Iterator[Callable[..., Page]]:
    """Starts pages and ends them after all tests."""
    pages: list[Page] = []

    def start(folder: Path, *words: str, token: str = "") -> Page:
        pages.append(Page(folder, *words, token=token))
        return pages[-1]

    yield start
    for page in pages:
        page.close()


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory, serve_page: Callable[..., Page]) -> Page:
    """Of one service, with a log that may be chosen."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "service.yaml").write_text(SERVICE)
    rows = "".join(f"{second / 4},{200 + second},{20 + second % 50}\n" for second in range(400))
    (folder / "log.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    (folder / "secret.csv").write_text("never,to,be\nread,by,anyone\n")
    return serve_page(folder, "service.yaml", "--log=log.csv")
