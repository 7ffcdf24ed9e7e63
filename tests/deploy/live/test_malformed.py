from __future__ import annotations

import contextlib
import json
import re
import socket

import pytest
from balance_cases import Balancer, Replica, ask, complete, send_raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Pair = tuple[Replica, Replica]
BODY = b'{"prompt": "abc", "max_tokens": 1}'
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def statuses(received: bytes) -> list[int]:
    """Of the answers in what came back."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]


def refused(received: bytes) -> bool:
    """Whether what came back is one refusal."""
    return len(statuses(received)) == 1 and 400 <= statuses(received)[0] < 500


def let_go(received: bytes) -> bool:
    """Whether it is a refusal, or nothing before the connection was closed."""
    return refused(received) or not received


def seen(replicas: Pair) -> int:
    """Requests that replicas have seen."""
    return sum(one.seen["count"] for one in replicas)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[1, 2]",
        b'"text"',
        b'{"prompt": "abc"',
        b'{"prompt": "abc", "max_tokens": NaN}',
        b'{"prompt": "abc", "max_tokens": -1}',
        b'{"prompt": "abc", "max_tokens": 1.5}',
        b'{"prompt": "abc", "max_tokens": true}',
        b'{"prompt": "abc", "max_tokens": "9"}',
        b'{"prompt": "abc", "max_tokens": 1e400}',
        b'{"prompt": "abc", "stream": "yes"}',
        b'{"prompt": 7}',
        b'{"prompt": []}',
        b'{"prompt": [1, "a"]}',
        b'{"prompt": [[], []]}',
        b'{"prompt": {"a": 1}}',
        b'{"max_tokens": 4}',
        b'{"prompt": "\xff\xfe"}',
        '{"prompt": "abc"}'.encode("utf-16"),
        b'{"a":' * 100_000,
        b'{"prompt": "abc", "max_tokens": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_a_body_that_is_no_request_is_answered_400(balancer: Balancer, two_replicas: Pair, body: bytes) -> None:
    """With an error as the API has them; no replica sees it."""
    before = seen(two_replicas)
    answer = ask(balancer.port, "/v1/completions", body)
    assert answer.status in {400, 413}
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert seen(two_replicas) == before


def test_messages_of_a_wrong_kind_are_answered_400(balancer: Balancer, two_replicas: Pair) -> None:
    """Conversations too are looked at before they go on."""
    before = seen(two_replicas)
    for messages in (None, [], "abc", [1], [{"content": 7}]):
        assert ask(balancer.port, "/v1/chat/completions", {"messages": messages}).status == 400
    assert seen(two_replicas) == before
    parts = [{"role": "user", "content": [{"type": "text", "text": "abc"}, {"type": "image_url"}]}]
    assert ask(balancer.port, "/v1/chat/completions", {"messages": parts}).status == 200


def test_a_huge_body_is_refused_before_it_is_read(balancer: Balancer, two_replicas: Pair) -> None:
    """By its declared length, and in chunks as soon as there are too many."""
    before = seen(two_replicas)
    assert b" 413 " in send_raw(balancer.port, HEAD + b"Content-Length: 99999999999\r\n\r\n{")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    assert b" 413 " in send_raw(balancer.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 8)
    assert seen(two_replicas) == before


def test_other_methods_encodings_and_expectations_are_refused(balancer: Balancer, two_replicas: Pair) -> None:
    """405 with what is allowed, 415, 417; a client that expects 100 gets it."""
    before = seen(two_replicas)
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"):
        answer = ask(balancer.port, "/v1/completions", method=method)
        assert answer.status == 405
        assert answer.headers["allow"] == "POST"
    assert ask(balancer.port, "/v1/completions", BODY, Content_Encoding="gzip").status == 415
    assert ask(balancer.port, "/v1/completions", BODY, Expect="a miracle").status == 417
    assert seen(two_replicas) == before
    with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
        client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(BODY)
        assert b" 200 OK" in client.recv(65536)


@pytest.mark.parametrize(
    "data",
    [
        b"GET http://127.0.0.1:1/v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST http://other/v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 34\r\n\r\n" + BODY,
        b"CONNECT other:443 HTTP/1.1\r\nHost: other\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/../fault HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/%6dodels HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_it_is_no_open_proxy(balancer: Balancer, two_replicas: Pair, data: bytes) -> None:
    """Targets that name a host, tunnels and disguised paths lead nowhere."""
    before = seen(two_replicas)
    assert refused(send_raw(balancer.port, data))
    assert seen(two_replicas) == before


SMUGGLED = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 34\r\n\r\n" + BODY


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Content-Length: 4\r\nContent-Length: 34\r\n",
        b"Content-Length: 4, 34\r\n",
        b"Content-Length: +4\r\n",
        b"Content-Length: 0x4\r\n",
        b"Content-Length: -4\r\n",
        b"Content-Length : 4\r\n",
        b" Content-Length: 4\r\n",
        b"X: a\r\n b\r\nContent-Length: 4\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Transfer-Encoding: \x00chunked\r\n",
        b"X: a\rContent-Length: 4\r\n",
        b"X: a\nContent-Length: 4\r\n",
        b"X\x00: a\r\nContent-Length: 4\r\n",
        b"X Y: a\r\nContent-Length: 4\r\n",
        b": a\r\nContent-Length: 4\r\n",
    ],
    ids=repr,
)
def test_smuggling_shapes_reach_no_replica(balancer: Balancer, two_replicas: Pair, fields: bytes) -> None:
    """A message whose length may be read in two ways is refused, and what follows on the connection is not read."""
    before = seen(two_replicas)
    received = send_raw(balancer.port, HEAD + fields + b"\r\n" + b"0\r\n\r\n" + SMUGGLED)
    assert refused(received)
    assert seen(two_replicas) == before


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"\r\n\r\n\r\n",
        b"POST\r\n\r\n",
        b"POST /v1/completions\r\n\r\n",
        b"POST /v1/completions HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/2.0\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        HEAD + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
        HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(1000)) + b"\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\nabc",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_is_no_http_is_refused_or_closed(balancer: Balancer, two_replicas: Pair, data: bytes) -> None:
    """A 4xx or a plain close; the process goes on."""
    before = seen(two_replicas)
    assert let_go(send_raw(balancer.port, data, patience_s=0.3))
    assert seen(two_replicas) == before
    assert complete(balancer.port).status == 200


def test_slow_and_half_closed_clients_are_let_go(balancer: Balancer, two_replicas: Pair) -> None:
    """A head or a body that does not come, and a client that has said its last word in the middle of one."""
    before = seen(two_replicas)
    parts = (b"", b"POST /v1/comp", HEAD, HEAD + b"Content-Length: 34\r\n\r\n{")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", balancer.port), 10)) for _ in parts]
        for client, part in zip(clients, parts, strict=True):
            client.sendall(part)
        for client in clients:
            received = b""
            while piece := client.recv(65536):
                received += piece
            assert let_go(received)
    for cut in (1, len(HEAD), len(WHOLE) - 1):
        assert let_go(send_raw(balancer.port, WHOLE[:cut], patience_s=0.05))
    assert seen(two_replicas) == before


LENGTH = b"Content-Length: %d\r\n" % len(BODY)
BASES = (
    WHOLE,
    *(WHOLE.replace(LENGTH, LENGTH + more) for more in (b"Transfer-Encoding: chunked\r\n", b"Content-Length: 4\r\n")),
)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A request with bytes of its head or its framing replaced, removed, repeated or put in."""
    data = bytearray(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["replace", "remove", "insert", "repeat"]))
        some = draw(st.sampled_from([b"\r", b"\n", b"\r\n", b"\x00", b" ", b":", b"0", b"\xff", b"\t", b";", b","]))
        if kind == "replace":
            data[at : at + 1] = some
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 20))]
        elif kind == "insert":
            data[at:at] = some
        else:
            data[at:at] = data[max(0, at - draw(st.integers(1, 60))) : at]
    return bytes(data)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=mutations())
def test_mutated_requests_are_refused_or_still_requests(balancer: Balancer, two_replicas: Pair, data: bytes) -> None:
    """A replica sees what is still one whole request of one length, and nothing else; all else is a 4xx or a close."""
    before = seen(two_replicas)
    received = send_raw(balancer.port, data, patience_s=0.05)
    reached = seen(two_replicas) - before
    assert reached == statuses(received).count(200)
    if not reached:
        assert let_go(received)
        return
    assert reached == 1
    head, _, body = data.partition(b"\r\n\r\n")
    assert len(re.findall(rb"(?im)^(content-length|transfer-encoding):", head)) == 1
    assert json.loads(body[: int(re.findall(rb"(?i)content-length:[ \t]*(\d+)", head)[0])])["prompt"] is not None


def test_it_still_serves_and_has_logged_nothing_of_requests(balancer: Balancer) -> None:
    """After all that the process is the same, and its log holds no prompt, no target and no header of a client."""
    assert complete(balancer.port).status == 200
    log = "\n".join(balancer.lines)
    assert "Traceback" not in log
    assert " ended (" not in log
    for part in ("abc", "completions", "Transfer-Encoding", "xchunked", "HTTP/9.9"):
        assert part not in log
