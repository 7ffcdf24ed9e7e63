"""Every endpoint that is passed through: how large its requests are, and how long its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from balance_cases import Balancer, ask, eventually, small_plan
from scripted_replica import ScriptedReplica

from melange.deploy.live.completion import EVENTS, Completion
from melange.deploy.live.endpoints import ENDPOINTS
from melange.deploy.live.sizing import BadRequestError

RESPONSES, EMBEDDINGS, CHAT = b"/v1/responses", b"/v1/embeddings", b"/v1/chat/completions"
TURN = {"role": "user", "content": [{"type": "input_text", "text": "x" * 40}]}
CALL = {"type": "function_call", "name": "f", "arguments": "x" * 20}
GIVEN = {"type": "function_call_output", "output": "x" * 12}


@pytest.mark.parametrize(
    ("path", "content", "tokens", "most"),
    [
        (RESPONSES, {"input": "x" * 80}, 20, 0),
        (RESPONSES, {"input": "x" * 80, "instructions": "y" * 40, "max_output_tokens": 7}, 30, 7),
        (RESPONSES, {"input": [TURN, CALL, GIVEN, {"type": "reasoning", "summary": []}]}, 18, 0),
        (RESPONSES, {"input": "x", "max_tokens": 7, "max_completion_tokens": 7}, 1, 0),
        (EMBEDDINGS, {"input": "x" * 80}, 20, 1),
        (EMBEDDINGS, {"input": ["x" * 40, "y" * 40], "dimensions": 64}, 20, 1),
        (EMBEDDINGS, {"input": [1, 2, 3], "max_tokens": "ignored"}, 3, 1),
        (EMBEDDINGS, {"input": [[1, 2, 3], [4, 5]]}, 5, 1),
        (EMBEDDINGS, {"messages": [{"role": "user", "content": "x" * 8}]}, 2, 1),
        (CHAT, {"messages": [TURN], "max_completion_tokens": 5, "max_tokens": 9}, 10, 5),
    ],
)
def test_sizes_are_read_where_each_endpoint_has_them(path: bytes, content: Any, tokens: int, most: int) -> None:
    """Prompt, instructions, calls and what they gave count; the bound is the endpoint's own."""
    size = ENDPOINTS[path].size_of(content, 4.0)
    assert (size.input_tokens, size.max_tokens) == (tokens, most)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (RESPONSES, {}),
        (RESPONSES, {"input": []}),
        (RESPONSES, {"input": ["text"]}),
        (RESPONSES, {"input": 5}),
        (RESPONSES, {"input": "x", "instructions": 5}),
        (RESPONSES, {"input": "x", "max_output_tokens": 0}),
        (RESPONSES, {"input": "x", "max_output_tokens": True}),
        (RESPONSES, {"input": "x", "stream": "yes"}),
        (RESPONSES, {"input": [{"content": 5}]}),
        (EMBEDDINGS, {}),
        (EMBEDDINGS, {"input": []}),
        (EMBEDDINGS, {"input": [1, "x"]}),
        (EMBEDDINGS, {"input": {"text": "x"}}),
    ],
)
def test_what_is_no_request_is_refused(path: bytes, content: Any) -> None:
    """Before a replica sees it."""
    with pytest.raises(BadRequestError):
        ENDPOINTS[path].size_of(content, 4.0)


def test_turns_of_a_conversation_share_a_key() -> None:
    """By the first thing that the user says, as in chats."""
    later = {"input": [TURN, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "y"}]}
    keys = {ENDPOINTS[RESPONSES].size_of(one, 4.0).key for one in ({"input": [TURN]}, later)}
    other = ENDPOINTS[RESPONSES].size_of({"input": [TURN | {"content": "z"}]}, 4.0).key
    assert len(keys) == 1
    assert other not in keys


def event(kind: str, **content: Any) -> bytes:
    """An event of a response."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | content)}\n\n".encode()


USAGE = {"input_tokens": 12, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 15}
TEXT = event("response.output_text.delta", delta="a")
STREAM = (
    event("response.created", response={"status": "in_progress", "output": []}),
    event("response.content_part.added", part={"type": "output_text", "text": ""}),
    TEXT, TEXT, TEXT,
    event("response.output_text.done", text="aaa"),
    event("response.completed", response={"output": [{"content": [{"text": "aaa"}]}], "usage": USAGE}),
)  # fmt: skip


def test_a_response_tells_its_length_by_deltas_and_by_its_usage() -> None:
    """Events that begin, repeat or end a text are no tokens."""
    moments = Completion(is_stream=True, lengths=EVENTS)
    for second, piece in enumerate(STREAM):
        moments.note(piece, float(second))
    assert (moments.chunks, moments.first_s, moments.last_s) == (3, 2.0, 4.0)
    assert (moments.input_tokens, moments.output_tokens) == (12, 3)
    cut = Completion(is_stream=True, lengths=EVENTS)
    for piece in STREAM[:5]:
        cut.note(piece, 1.0)
    assert cut.output_tokens == 3


def test_responses_and_embeddings_pass_and_are_counted(tmp_path: Path) -> None:
    """Bodies and the headers of priorities go through untouched; sizes and lengths are learned; others are refused."""
    whole = json.dumps({"object": "list", "data": [], "usage": {"prompt_tokens": 120, "total_tokens": 120}}).encode()

    def answer(request: bytes, _: int) -> bytes:
        if b" /v1/embeddings " in request.partition(b"\r\n")[0]:
            return (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(whole) + whole
            )
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in STREAM) + b"0\r\n\r\n"

    plan = small_plan(rate=1e4).save(tmp_path / "plan.json")
    with ScriptedReplica(answer) as replica, Balancer(plan, f"--replica=A100={replica.url}") as proxy:
        asked = {"model": "m", "input": "x" * 800, "stream": True, "max_output_tokens": 40, "priority": -2}
        found = ask(proxy.port, "/v1/responses", asked, X_Priority="high", X_Gateway_Inference_Objective="chat")
        assert (found.status, found.body) == (200, b"".join(STREAM))
        head, _, body = replica.requests[-1].partition(b"\r\n\r\n")
        assert json.loads(body) == asked
        assert {b"X-Priority: high", b"X-Gateway-Inference-Objective: chat"} <= set(head.split(b"\r\n"))
        assert ask(proxy.port, "/v1/embeddings", {"model": "m", "input": ["abc", "def"]}).body == whole
        eventually(lambda: proxy.metric("completed_requests_total") == 2)
        assert proxy.metric("output_tokens_total") == 3 + 1
        assert proxy.metric("output_tokens_total", input_upto="1000") == 1  # of 120 tokens, by the usage block
        assert proxy.metric("arrived_requests_total", input_upto="1000") == 1
        for path in ("/v1/responses/resp_1", "/v1/responses/resp_1/cancel", "/v1/audio/speech", "/tokenize"):
            assert ask(proxy.port, path, {"input": "x"}).status == 404
        assert ask(proxy.port, "/v1/embeddings").status == 405
