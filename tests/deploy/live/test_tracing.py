"""Traces: the client's goes on to the replica, and spans go to a collector where one is configured."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from balance_cases import Balancer, Replica, ask, complete, eventually, small_plan

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """An OTLP endpoint and the spans that it has got, each with the name of its service."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Keep the spans."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                named = {one.key: one.value.string_value for one in resource.resource.attributes}
                spans.extend(
                    (named["service.name"], span, body) for part in resource.scope_spans for span in part.spans
                )
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    server.server_close()


def test_spans_join_the_clients_trace_and_replicas_join_them(tmp_path: Path, collector: tuple[str, list[Any]]) -> None:
    """A span a request, from the client's to the replica's; nothing of what was said is in it."""
    url, spans = collector
    plan = small_plan(rate=1e4).save(tmp_path / "plan.json")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with Replica() as replica, Balancer(plan, f"--replica=A100={replica.url}", **environment) as proxy:
        secret = {"prompt": "a secret prompt", "max_tokens": 3}
        assert ask(proxy.port, "/v1/completions", secret, **CONTEXT).status == 200
        told = {name.lower(): value for name, value in replica.seen["last"]["headers"].items()}
        eventually(lambda: len(spans) == 1)
        service, span, body = spans[0]
        assert (service, span.name) == ("melange-balance", "POST /v1/completions")
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        assert told["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
        assert told["tracestate"] == "vendor=1"
        assert b"secret" not in body
        found = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
        assert found["melange.replica_type"] == "cloud/east/a100 (A100)"
        assert found["melange.replica_url"] == replica.url
        assert (found["http.response.status_code"], found["gen_ai.usage.output_tokens"]) == (200, 3)
        assert span.end_time_unix_nano > span.start_time_unix_nano
        replica.be("500")
        assert complete(proxy.port).status == 500
        eventually(lambda: len(spans) == 2)
        failed = spans[1][1]
        assert not failed.parent_span_id
        assert failed.status.code == 2
        replica.be("")
    assert proxy.process.returncode == 0


def test_without_a_collector_the_clients_context_passes_untouched(tmp_path: Path) -> None:
    """And nothing of the SDK is loaded."""
    plan = small_plan(rate=1e4).save(tmp_path / "plan.json")
    with Replica() as replica, Balancer(plan, f"--replica=A100={replica.url}") as proxy:
        assert ask(proxy.port, "/v1/completions", {"prompt": "abc"}, **CONTEXT).status == 200
        told = {name.lower(): value for name, value in replica.seen["last"]["headers"].items()}
        assert CONTEXT.items() <= told.items()
    loaded = "from melange.deploy.live import proxy, tracing; import sys; print(tracing.tracing_of_environment())"
    said = subprocess.run(
        [sys.executable, "-c", f"{loaded}; print('opentelemetry.sdk' in sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert said == ["None", "False"]


def test_a_collector_without_the_sdk_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What is missing, and how to get it; requests are served without."""
    from melange.deploy.live import tracing

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert tracing.tracing_of_environment() is None
    assert "pip install '.[otel]'" in caplog.text
