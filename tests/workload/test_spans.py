"""Logs of observability tools, made by their published schemas."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from melange.errors import InputError
from melange.workload.traces import read_trace
from melange.workload.workload import Buckets

Write = Callable[[str, str], Path]


def _span(at_s: float, operation: str | None, **tokens: Any) -> dict[str, Any]:
    given = {"gen_ai.operation.name": operation, "gen_ai.request.model": "llama", **tokens}
    values = {name: {"stringValue": value} for name, value in given.items() if isinstance(value, str)}
    values |= {name: {"intValue": str(value)} for name, value in given.items() if isinstance(value, int)}
    start = str(1_762_000_000_000_000_000 + int(at_s * 1e9))
    attributes = [{"key": name, "value": value} for name, value in values.items()]
    return {"traceId": "5b8e", "spanId": "eee1", "name": f"{operation} llama", "kind": 3, "startTimeUnixNano": start,
            "endTimeUnixNano": start, "attributes": attributes, "status": {}}  # fmt: skip


def _usage(inputs: int, outputs: int) -> dict[str, int]:
    return {"gen_ai.usage.input_tokens": inputs, "gen_ai.usage.output_tokens": outputs}


def _exports(*spans: dict[str, Any]) -> str:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "gateway"}}]}
    lines = [{"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]} for span in spans]
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_spans_of_requests_count(write: Write, toy_buckets: Buckets) -> None:
    """Chats and completions, by new and by earlier names; agents, tools and web requests do not; failures are told."""
    spans = [
        _span(0, "chat", **_usage(374, 44)),
        _span(1, "invoke_agent", **_usage(900, 190)),
        _span(2, "execute_tool"),
        _span(4, None, **{"gen_ai.usage.prompt_tokens": 396, "gen_ai.usage.completion_tokens": 109}),
        _span(5, "generate_content", **_usage(879, 55)),
        _span(6, "chat", **{"error.type": "timeout"}),
        _span(10, "text_completion", **_usage(91, 16)),
        {"name": "GET /", "startTimeUnixNano": "1762000011000000000"},
    ]
    workload = read_trace(write("spans.jsonl", _exports(*spans)), buckets=toy_buckets)
    assert (workload.requests, workload.failed_requests) == (4, 1)
    assert workload.total_rate == pytest.approx(0.4)
    assert workload.input_tokens.tolist() == [[232.5, 396], [1000, 879]]
    assert "OpenTelemetry spans" in workload.source


def test_spans_are_chosen_by_attributes(write: Write, toy_buckets: Buckets) -> None:
    """As columns of any log."""
    path = write("spans.jsonl", _exports(_span(0, "chat", **_usage(5, 6)), _span(2, "chat", **_usage(7, 8))))
    assert read_trace(path, buckets=toy_buckets, where={"gen_ai.request.model": "llama"}).requests == 2
    with pytest.raises(InputError, match=r"no requests where gen_ai\.operation\.name = chat"):
        read_trace(path, where={"gen_ai.request.model": "other"})


def test_damaged_spans_are_named(write: Write) -> None:
    """Counts that are no numbers, by row."""
    broken = _span(1, "chat", **{"gen_ai.usage.input_tokens": "many", "gen_ai.usage.output_tokens": 5})
    path = write("spans.jsonl", _exports(_span(0, "chat", **_usage(5, 6)), broken))
    with pytest.raises(InputError, match=r"row 2: gen_ai\.usage\.input_tokens must be a whole number >= 0, got 'many'"):
        read_trace(path)


def test_exports_of_langfuse(write: Write, toy_buckets: Buckets) -> None:
    """Observations as exported to object storage: UTC without a zone, usage by kind."""
    rows = [
        {"id": "1", "type": "GENERATION", "start_time": "2026-11-01 10:00:00.000000",
         "usage_details": {"input": 300, "input_cached_tokens": 74, "output": 44, "total": 418}},
        {"id": "2", "type": "SPAN", "start_time": "2026-11-01 10:00:01.000000", "usage_details": {}},
        {"id": "3", "type": "GENERATION", "start_time": "2026-11-01 10:00:10.000000",
         "usage_details": {"input": 91, "output": 10, "output_reasoning_tokens": 6, "total": 107}},
    ]  # fmt: skip
    path = write("observations.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    workload = read_trace(path, buckets=toy_buckets)
    assert workload.requests == 2
    assert workload.total_rate == pytest.approx(0.2)
    assert workload.input_tokens[0, 0] == pytest.approx((374 + 91) / 2)
    assert workload.output_tokens[0, 0] == pytest.approx((44 + 16) / 2)
    assert "Langfuse export" in workload.source
