"""How servers of different kinds are found out, each a real one."""

import asyncio
import socket

import pytest
from measuring import measured, queue_server

from melange.errors import MeasurementError
from melange.measure.endpoint import Endpoint, connect
from melange.measure.load import client_session, send_alone


@pytest.mark.parametrize(
    ("flags", "is_chat", "has_ids", "full_length"),
    [
        ((), False, True, ("ignore_eos", "min_tokens")),
        (("--strict",), False, True, ("ignore_eos",)),
        (("--text-only",), False, False, ("ignore_eos", "min_tokens")),
        (("--chat-only",), True, False, ("ignore_eos", "min_tokens")),
        (("--chat-only", "--strict"), True, False, ("ignore_eos",)),
        (("--tokenize",), False, True, ("ignore_eos", "min_tokens")),
    ],
    ids=str,
)
def test_prompts_are_as_long_as_asked_whatever_a_server_understands(
    flags: tuple[str, ...], is_chat: bool, has_ids: bool, full_length: tuple[str, ...]
) -> None:
    """Token ids where they are taken, else words whose tokens were counted; a chat's template is part of the length."""

    async def work(session: object, endpoint: Endpoint) -> Endpoint:
        for tokens in (16, 33, 500):  # refused where the usage block counts others
            await send_alone(session, endpoint, tokens, 3, 2)
        return endpoint

    with queue_server("--fixed-ms", "1", "--each-ms", "0", *flags) as url:
        endpoint = measured(url, work)
    assert endpoint.is_chat == is_chat
    assert bool(endpoint.vocabulary.ids) == has_ids
    assert endpoint.full_length == full_length
    assert endpoint.max_context == 4096


@pytest.mark.parametrize(
    ("flags", "path", "model", "message"),
    [
        (("--no-usage",), "", "", "streams have no usage block"),
        ((), "", "gpt-5", "unknown model 'gpt-5'"),
        ((), "/nothing", "", "must list the served models, got: HTTP 404"),
        (("--key", "secret"), "", "", "got: HTTP 401"),
    ],
    ids=str,
)
def test_a_server_that_cannot_be_measured_is_refused_with_the_reason(
    flags: tuple[str, ...], path: str, model: str, message: str
) -> None:
    """Before any load."""

    async def run(url: str) -> None:
        async with client_session() as session:
            await connect(session, f"{url}{path}", model, patience_s=0.5)

    with queue_server(*flags) as url, pytest.raises(MeasurementError, match=message):
        asyncio.run(run(url))


def test_a_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a bearer token, with every request."""

    async def run(url: str) -> Endpoint:
        async with client_session("secret") as session:
            endpoint = await connect(session, url)
            await send_alone(session, endpoint, 8, 2, 1)
            return endpoint

    with queue_server("--key", "secret") as url:
        assert asyncio.run(run(url)).model == "queue"


def test_nobody_there_is_said_after_some_patience() -> None:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"

    async def run() -> None:
        async with client_session() as session:
            await connect(session, url, patience_s=0.3)

    with pytest.raises(MeasurementError, match=f"^{url}: cannot connect: "):
        asyncio.run(run())


def test_prompts_never_begin_alike() -> None:
    """A prefix cache would make them cheaper than they are."""
    with queue_server("--fixed-ms", "1") as url:
        endpoint = measured(url, lambda _, endpoint: asyncio.sleep(0, endpoint))
    prompts = [tuple(endpoint.body(64, 2)["prompt"][:4]) for _ in range(200)]
    assert len(set(prompts)) == 200
