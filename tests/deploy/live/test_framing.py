"""Messages of both sides: which are passed on, as what, and which are not."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from balance_cases import Balancer, Replica, complete, eventually, send_raw
from scripted_replica import OK, ScriptedReplica

FAST = ("--health-every", "0.2", "--max-failures", "1000")
BODY = b'{"prompt": "abc", "max_tokens": 1}'
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
LAST = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"


def receive_all(client: socket.socket) -> bytes:
    """What comes until the connection ends."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(65536):
            received += piece
    return received


@pytest.fixture(scope="module")
def script() -> dict[str, bytes]:
    """The answer that the scripted replica gives at present."""
    return {"answer": OK}


@pytest.fixture(scope="module")
def scripted(plan_file: Path, script: dict[str, bytes]):
    """A scripted replica and a balancer before it."""
    with (
        ScriptedReplica(lambda *_: script["answer"]) as replica,
        Balancer(plan_file, f"--replica=A100={replica.url}", *FAST) as balancer,
    ):
        yield replica, balancer


OTHERWISE = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 1\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n Content-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    b"HTTP/1.1 200 OK\r\nX Y: 1\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nX: \x01\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n: 1\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n{}",
    b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"200 OK\r\n\r\n{}",
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(300)) + b"Content-Length: 2\r\n\r\n{}",
)


@pytest.mark.parametrize("answer", OTHERWISE, ids=lambda answer: repr(answer[:70]))
def test_an_answer_that_may_be_read_otherwise_is_not_passed_on(
    scripted: tuple[ScriptedReplica, Balancer], script: dict[str, bytes], answer: bytes
) -> None:
    """The client gets 502, the connection is not used again, and the next answer is itself."""
    script["answer"] = answer
    assert complete(scripted[1].port).status == 502
    script["answer"] = OK
    assert complete(scripted[1].port).body == b"{}"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"{}"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX-Trailer: 1\r\n\r\n", b"{}"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n000002\r\n{}\r\n1\r\n.\r\n0\r\n\r\n", b"{}."),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"{}"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}", b"{}"),
    ],
    ids=repr,
)
def test_an_answer_that_is_well_framed_is_passed_on(
    scripted: tuple[ScriptedReplica, Balancer], script: dict[str, bytes], answer: bytes, body: bytes
) -> None:
    """Its body is what the client gets, and nothing of how it was framed: extensions, trailers, early hints."""
    script["answer"] = answer
    found = complete(scripted[1].port)
    assert (found.status, found.body) == (204 if b" 204 " in answer else 200, body)
    assert not {"x-trailer", "link"} & set(found.headers)
    assert b"a=b" not in send_raw(scripted[1].port, LAST)
    script["answer"] = OK


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", b"junk", b"HTTP/1.1 200 O"])
def test_what_a_replica_says_unasked_reaches_nobody(
    scripted: tuple[ScriptedReplica, Balancer], script: dict[str, bytes], more: bytes
) -> None:
    """A second answer behind the first is not taken for that to the next request."""
    script["answer"] = OK + more
    for _ in range(5):
        assert complete(scripted[1].port).body in {b"{}"}
    script["answer"] = OK
    assert complete(scripted[1].port).body == b"{}"


@pytest.mark.parametrize("rest", [b"zz\r\n", b"5\r\nab", b"-1\r\n", b"2\r\nab\r\n"])
def test_a_stream_whose_framing_breaks_is_cut(
    scripted: tuple[ScriptedReplica, Balancer], script: dict[str, bytes], rest: bytes
) -> None:
    """What was well framed has come, its end has not."""
    first = b"data: 1\n\n"
    chunk = b"%x\r\n%b\r\n" % (len(first), first)
    script["answer"] = STREAM + b"Connection: close\r\n\r\n" + chunk + rest
    with socket.create_connection(("127.0.0.1", scripted[1].port), 10) as client:
        client.sendall(WHOLE.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        received = receive_all(client)
    script["answer"] = OK
    assert not received.endswith(b"0\r\n\r\n")
    assert b" 502 " in received or b"data: 1" in received


def test_a_body_in_pieces_reaches_the_replica_with_one_length(scripted: tuple[ScriptedReplica, Balancer]) -> None:
    """Extensions and trailers of a client end at the proxy."""
    replica, balancer = scripted
    pieces = b"5;x=1\r\n" + BODY[:5] + b"\r\n%x\r\n" % (len(BODY) - 5) + BODY[5:] + b"\r\n0\r\nX-Trailer: 1\r\n\r\n"
    coded = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + pieces
    assert b" 200 OK" in send_raw(balancer.port, coded)
    head, _, body = replica.requests[-1].partition(b"\r\n\r\n")
    assert body == BODY
    assert re.findall(rb"(?i)content-length: (\d+)", head) == [b"%d" % len(BODY)]
    assert not re.search(rb"(?i)transfer-encoding|trailer", head)
    with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
        for byte in coded:  # the same, byte by byte
            client.sendall(bytes((byte,)))
        assert b" 200 OK" in client.recv(65536)
    assert replica.requests[-1].partition(b"\r\n\r\n")[2] == BODY


def test_requests_behind_one_another_are_answered_in_turn(
    balancer: Balancer, two_replicas: tuple[Replica, Replica]
) -> None:
    """Each gets its own answer on the one connection, however many are sent at once."""
    bodies = [json.dumps({"prompt": "abc", "max_tokens": n % 4 + 1}).encode() for n in range(12)]
    with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
        client.sendall(b"".join(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies))
        received = b""
        while received.count(b'"usage"') < len(bodies):
            piece = client.recv(65536)
            assert piece, received
            received += piece
    assert [len(text) for text in re.findall(rb'"text": "(a+)"', received)] == [n % 4 + 1 for n in range(12)]


def test_far_too_many_requests_at_once_are_not_taken(balancer: Balancer) -> None:
    """A thousand in one piece: the first are answered, then the connection is closed."""
    with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        received = receive_all(client)
    assert 1 <= received.count(b" 200 OK") < 100
    assert received.count(b"Connection: close") == 1


def test_old_clients_get_answers_that_they_can_read(balancer: Balancer) -> None:
    """Over HTTP/1.0 a stream has no chunks and ends with the connection, and one that asks for it is kept."""
    # Seven tokens by its bytes, as replicas count all prompts: other tests look at the mean.
    body = json.dumps({"prompt": "abc " * 7, "max_tokens": 3, "stream": True}).encode()
    old = b"POST /v1/completions HTTP/1.0\r\n%bContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
        client.sendall(old % (b"", len(body)) + body)
        received = receive_all(client)
    assert received.endswith(b"data: [DONE]\n\n")
    assert b"Transfer-Encoding" not in received
    with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
        for _ in range(2):
            client.sendall(old % (b"Connection: keep-alive\r\n", len(BODY)) + BODY)
            answer = client.recv(65536)
            assert b"Connection: keep-alive" in answer


def test_a_wish_for_another_protocol_is_passed_over(balancer: Balancer) -> None:
    """Clients that offer HTTP/2 are served over HTTP/1.1, on the same connection also afterwards."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
        for _ in range(2):
            client.sendall(WHOLE.replace(b"Host: x\r\n", b"Host: x\r\n" + upgrade))
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "start",
    [b"", HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;"],
)
def test_what_never_ends_is_not_kept(balancer: Balancer, start: bytes) -> None:
    """Heads, trailers and extensions of 100 kB are refused while they come."""
    with socket.create_connection(("127.0.0.1", balancer.port), 10) as client, contextlib.suppress(ConnectionError):
        client.sendall(start + (b"" if start else HEAD) + b"X-Long: ")
        received = b""
        client.settimeout(0.01)
        for _ in range(200):
            client.sendall(b"a" * 1000)
            with contextlib.suppress(TimeoutError):
                received += client.recv(65536)
                if received:
                    break
        assert re.match(rb"HTTP/1.1 4\d\d ", received)


def test_a_connection_that_was_closed_as_it_was_used_again_costs_nothing(plan_file: Path) -> None:
    """The only replica closes each connection at its second request: a new one serves it, and none is ejected."""
    with (
        ScriptedReplica(lambda _, count: OK if count == 0 else b"") as replica,
        Balancer(plan_file, f"--replica=A100={replica.url}", "--health-every=60", "--max-failures=1") as balancer,
    ):
        answers = [complete(balancer.port) for _ in range(10)]
        assert [one.status for one in answers] == [200] * 10
        assert any("x-melange-retries" in one.headers for one in answers)
        assert balancer.metric("replica_up") == 1
        assert balancer.metric("replica_failures_total") == 0


def test_a_stream_waits_for_its_client(plan_file: Path) -> None:
    """50 MB that nobody reads for a while stay with the replica, and come whole when they are read."""
    with Replica() as replica, Balancer(plan_file, f"--replica=A100={replica.url}", "--health-every=60") as balancer:
        child = Path(f"/proc/{balancer.process.pid}/task/{balancer.process.pid}/children").read_text().split()[0]

        def memory() -> int:
            return int(Path(f"/proc/{child}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        complete(balancer.port)
        body = json.dumps({"prompt": "abc", "max_tokens": 200_000, "stream": True}).encode()
        before = memory()
        with socket.create_connection(("127.0.0.1", balancer.port), 30) as client:
            client.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            eventually(lambda: balancer.metric("replica_outstanding") == 1)
            time.sleep(0.5)
            assert memory() - before < 8 * 2**20
            received = 0
            tail = b""
            while piece := client.recv(2**20):
                received += len(piece)
                tail = (tail + piece)[-100:]
            assert memory() - before < 8 * 2**20
        assert tail.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert received > 9_000_000
        assert balancer.metric("output_tokens_total") == 200_000 + 8


def test_replicas_behind_tls_are_who_they_say(plan_file: Path, tmp_path: Path) -> None:
    """One with a certificate that is trusted serves; the same without trust is never spoken to."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert)]
    names = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *names], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    with ScriptedReplica(lambda *_: OK, tls=context) as replica:
        url = f"--replica=A100={replica.url}"
        with Balancer(plan_file, url, SSL_CERT_FILE=str(cert)) as balancer:
            assert [complete(balancer.port).body for _ in range(3)] == [b"{}"] * 3
        with Balancer(plan_file, url) as balancer:
            assert complete(balancer.port).status == 503
    assert len(replica.requests) == 3


def test_a_client_that_half_closes_is_taken_for_gone(balancer: Balancer, two_replicas: tuple[Replica, Replica]) -> None:
    """Its request is given up at once."""
    for one in two_replicas:
        one.be("wait")
    gone = sum(one.seen["gone"] for one in two_replicas)
    with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
        client.sendall(WHOLE)
        eventually(lambda: balancer.metric("replica_outstanding") == 1)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    eventually(lambda: sum(one.seen["gone"] for one in two_replicas) == gone + 1)
    eventually(lambda: balancer.metric("replica_outstanding") == 0)
