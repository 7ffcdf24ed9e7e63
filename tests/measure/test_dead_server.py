"""A server that is not there is reported after seconds, however it fails to answer."""

import asyncio
import socket

import pytest

from melange.errors import MeasurementError
from melange.measure import endpoint
from melange.measure.endpoint import connect
from melange.measure.load import client_session


def outcome(port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[str, float]:
    """What is said of a port with nobody behind it, and how long the tries waited in between [s]."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(wait_s: float) -> None:
        waits.append(wait_s)
        await sleep(wait_s / 20)

    async def run() -> None:
        async with client_session("") as session:
            await connect(session, f"http://127.0.0.1:{port}")

    monkeypatch.setattr(endpoint, "_SILENCE_S", 0.5)
    monkeypatch.setattr(endpoint.asyncio, "sleep", noted)
    with pytest.raises(MeasurementError, match=r"must list the served models|cannot connect") as found:
        asyncio.run(run())
    return str(found.value), sum(waits)


def test_a_refused_connection_is_not_waited_for_as_long_as_a_busy_server() -> None:
    """Three seconds without an answer, thirty if it answers that it is busy: with the start, five seconds."""
    assert endpoint._SILENCE_S <= 3.0 < endpoint._PATIENCE_S


def test_refused_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said, _ = outcome(port, monkeypatch)
    assert f"127.0.0.1:{port}" in said
    assert "cannot connect: Connection refused" in said


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes connections and says nothing; the error says for how long it was waited."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        said, waited_s = outcome(silent.getsockname()[1], monkeypatch)
    assert "no answer within 0.5 s" in said
    assert waited_s == 0.0


def test_a_server_that_takes_no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue of connections is full, so that packets are dropped, as by a firewall."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for one in fillers:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        said, _ = outcome(port, monkeypatch)
        for one in fillers:
            one.close()
    assert "no answer within 0.5 s" in said
