"""Who may use the page, asked of an application without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

pytest.importorskip("fastapi")

from fastapi import FastAPI

from melange.ui.visitors import COOKIE, check_visitors, cookie_of

TOKEN = "a-long-random-text"  # of the tests


def status(path: str, headers: Mapping[str, str] | None = None, *, token: str = "", method: str = "GET") -> int:
    """The status of an answer."""
    app = FastAPI()
    check_visitors(app, token)
    app.add_route("/", lambda _: _response(), methods=["GET"])
    app.add_route("/api/answer", lambda _: _response(), methods=["GET", "POST"])
    said: list[int] = []
    given = {"host": "localhost:8091", "x-melange-page": "1"} | dict(headers or {})
    scope = {
        "type": "http", "method": method, "path": path, "query_string": b"", "scheme": "http", "http_version": "1.1",
        "headers": [(name.encode(), value.encode()) for name, value in given.items() if value],
    }  # fmt: skip

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Mapping[str, object]) -> None:
        if message["type"] == "http.response.start":
            said.append(int(str(message["status"])))

    asyncio.run(app(scope, receive, send))
    return said[0]


def _response() -> object:
    from fastapi.responses import PlainTextResponse

    return PlainTextResponse("here")


@pytest.mark.parametrize(
    ("path", "headers", "wanted"),
    [
        ("/", {}, 200),
        ("/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ("/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ("/api/answer", {}, 200),
        ("/api/answer", {"x-melange-page": ""}, 403),
        ("/api/answer", {"sec-fetch-site": "same-origin"}, 200),
        ("/api/answer", {"sec-fetch-site": "same-site"}, 403),
        ("/api/answer", {"sec-fetch-site": "cross-site"}, 403),
        ("/api/answer", {"origin": "http://localhost:8091"}, 200),
        ("/api/answer", {"origin": "http://localhost:9999"}, 403),
        ("/api/answer", {"origin": "https://attacker.example"}, 403),
        ("/api/answer", {"origin": "null"}, 403),
    ],
)
def test_only_the_page_itself_asks(path: str, headers: dict[str, str], wanted: int) -> None:
    """A link may open the page; nothing else comes from other sites."""
    assert status(path, headers) == wanted


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({}, 401),
        ({"cookie": f"{COOKIE}={TOKEN}"}, 401),
        ({"cookie": f"{COOKIE}={cookie_of('other')}"}, 401),
        ({"cookie": f"{COOKIE}={cookie_of(TOKEN)}"}, 200),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
        ({"authorization": "Bearer \u00e9"}, 401),
    ],
)
def test_a_token_is_needed_where_there_is_one(headers: dict[str, str], wanted: int) -> None:
    """Its cookie is not the token itself."""
    assert status("/", headers, token=TOKEN) == wanted
    assert status("/api/answer", headers, token=TOKEN, method="POST") == wanted
