"""Heads that are not framed as HTTP/1.1 asks for, and waits that are nobody's fault."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from balance_cases import Balancer, Replica, complete, eventually, send_raw

from melange.deploy.live.answers import UnservedError, error
from melange.deploy.live.exchange import Exchange
from melange.deploy.live.health import BROKEN
from melange.deploy.live.punctuality import Punctuality
from melange.errors import InputError

FAST = ("--health-every", "0.2")


@contextmanager
def raw_replica(answer: bytes) -> Iterator[str]:
    """The address of a server that is healthy, and answers everything else with these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(client,), daemon=True).start()

    def talk(client: socket.socket) -> None:
        with client:
            head = client.recv(65536)
            well = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            client.sendall(well if head.startswith(b"GET /health") else answer)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def answer_of(*fields: bytes, body: bytes = b"{}") -> bytes:
    """An answer with these field lines, each with its own end."""
    return b"HTTP/1.1 200 OK\r\n" + b"".join(fields) + b"Connection: close\r\n\r\n" + body


@pytest.mark.parametrize(
    "fields",
    [
        (b"Content-Length: 2\r\n", b"X-A: 1\r\n  X-Folded: 2\r\n"),
        (b"Content-Length: 2\r\n", b"X-A: 1\r\n\tmore\r\n"),
        (b"Content-Length: 2\r\n", b"X-A: 1\nX-B: 2\r\n"),
        (b"Content-Length: 2\r\n", b"X-A: 1\rX-B: 2\r\n"),
        (b"Content-Length: 2\r\n", b"X-A: 1\x002\r\n"),
        (b"Transfer-Encoding: gzip, chunked\r\n",),
        (b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\n"),
        (b"Transfer-Encoding: gzip\r\n",),
    ],
)
def test_a_head_that_two_readers_read_differently_is_not_passed_on(plan_file: Path, fields: tuple[bytes, ...]) -> None:
    """The client gets 502, and none of the replica's fields."""
    body = b"2\r\n{}\r\n0\r\n\r\n" if b"chunked" in b"".join(fields) else b"{}"
    with raw_replica(answer_of(*fields, body=body)) as url:
        options = (f"--replica=A100={url}", f"--replica=L4={url}/x", *FAST, "--max-failures", "100")
        with Balancer(plan_file, *options) as balancer:
            found = complete(balancer.port, words=500)
            assert found.status == 502
            assert not {name for name in found.headers if name.startswith("x-") and name != "x-melange-retries"}


def test_a_head_that_is_well_framed_is(plan_file: Path) -> None:
    """The same server with nothing wrong in it, so that the refusals above are of what they name."""
    fields = (b"Content-Length: 2\r\n", b"X-A: 1\r\n")
    with (
        raw_replica(answer_of(*fields)) as url,
        Balancer(plan_file, f"--replica=A100={url}", f"--replica=L4={url}/x", *FAST) as balancer,
    ):
        found = complete(balancer.port, words=500)
        assert (found.status, found.body, found.headers["x-a"]) == (200, b"{}", "1")


def test_a_request_in_another_transfer_coding_is_refused(plan_file: Path) -> None:
    """It is not unpacked, so it is not taken for what it says unpacked."""
    with Replica() as replica, Balancer(plan_file, f"--replica=L4={replica.url}", *FAST) as balancer:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
        found = send_raw(balancer.port, head + b'f\r\n{"prompt": "a"}\r\n0\r\n\r\n')
        assert found.split(b" ")[1] in {b"400", b"501"}
        assert replica.seen["count"] == 0


def test_a_client_that_stops_reading_ejects_no_replica(plan_file: Path) -> None:
    """Its stream is cut; the replica has failed nothing, though a single failure would eject it."""
    with Replica() as first, Replica() as second:
        urls = (f"--replica=A100={first.url}", f"--replica=L4={second.url}")
        options = ("--write-timeout", "0.5", "--max-failures", "1", *FAST)
        with Balancer(plan_file, *urls, *options) as balancer:
            body = json.dumps({"prompt": "abc " * 500, "max_tokens": 1_000_000, "stream": True}).encode()
            head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
                client.sendall(head + body)
                eventually(lambda: first.seen["gone"] == 1)
            assert (balancer.metric("replica_failed"), balancer.metric("replica_ejected")) == (0, 0)
            assert complete(balancer.port, words=500).status == 200


def test_a_replica_on_port_0_is_refused(plan_file: Path) -> None:
    """No server answers there."""
    from melange.deploy.addresses import addresses_of
    from melange.plan.plan import Plan

    with pytest.raises(InputError, match="must be http://host:port"):
        addresses_of([("--replica", "L4=http://localhost:0")], Plan.read(plan_file))


@pytest.mark.parametrize(("is_late", "fault"), [(False, BROKEN), (True, None)])
def test_a_connection_that_takes_too_long_is_one_failure_of_several(is_late: bool, fault: str | None) -> None:
    """And none where this process was late itself: the connection may long have been there."""
    said: list[str] = []

    async def connected(_: object) -> None:
        raise TimeoutError

    async def run() -> list[int]:
        answers: list[int] = []
        replica = SimpleNamespace(address=SimpleNamespace(url="http://localhost:1"))
        health = SimpleNamespace(
            punctuality=SimpleNamespace(is_late=is_late), failed=lambda _, __, fault: said.append(fault)
        )
        # A replica that cannot be connected to in time, and no other.
        places = [SimpleNamespace(replica=replica), None]
        proxy = SimpleNamespace(
            balancer=SimpleNamespace(place=lambda *_: places.pop(0), give_back=lambda _: None),
            health=health,
            links=SimpleNamespace(to=lambda _: SimpleNamespace(idle=lambda: None), connected=connected),
            ledger=None,
            loop=asyncio.get_running_loop(),
            now=asyncio.get_running_loop().time,
            no_place=lambda _: UnservedError(error(502, "none"), "failed"),
            settings=SimpleNamespace(answer_timeout_s=1.0),
        )
        client = SimpleNamespace(refuse=lambda refused, _: answers.append(refused.answer.status))
        Exchange(proxy, client, None, b"", None, 0.0).start()  # type: ignore[arg-type] # what it asks of them
        while not answers:
            await asyncio.sleep(0)
        return answers

    assert asyncio.run(run()) == [502]
    assert said == ([fault] if fault else [])


def test_a_process_knows_that_it_is_late() -> None:
    """By its beats: one that comes late counts for 5 s, and one that has not come by now."""
    now_s = 100.0
    beats = Punctuality(lambda: now_s, 1.0)
    for _ in range(5):
        now_s += 1.02
        beats.beat()
        assert not beats.is_late
    now_s += 3.0
    assert beats.is_late
    beats.beat()
    for _ in range(4):
        now_s += 1.0
        beats.beat()
        assert beats.is_late
    now_s += 1.2
    beats.beat()
    assert not beats.is_late
