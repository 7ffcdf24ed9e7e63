"""Responses that the balancer itself sends to clients."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import web

from melange.deploy.live.headers import SERVER

_JSON = "application/json"


def error(status: int, message: str, *, headers: Mapping[str, str] | None = None, closes: bool = False) -> web.Response:
    """An error in the form that clients of the API read.

    Parameters
    ----------
    status
        Of HTTP.
    message
        For the client; contains nothing of the request.
    headers
        Besides the usual ones.
    closes
        Whether the connection ends: what else is on it cannot be trusted, or was not read.
    """
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    content = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    answer = web.Response(
        status=status, body=json.dumps(content).encode(), headers={**(headers or {}), **SERVER}, content_type=_JSON
    )
    if closes:
        answer.force_close()
    return answer


def page(content: object, *, status: int = 200, content_type: str = _JSON) -> web.Response:
    """A response about the balancer itself: JSON, or ready text."""
    text = content if isinstance(content, str) else json.dumps(content)
    return web.Response(status=status, body=text.encode(), headers={"Content-Type": content_type, **SERVER})


class UnservedError(Exception):
    """A request ends without a completion: the balancer itself answers it.

    Parameters
    ----------
    answer
        What the client gets.
    reason
        One of :data:`melange.deploy.live.counters.REASONS`.
    """

    def __init__(self, answer: web.Response, reason: str = "malformed") -> None:
        super().__init__(reason)
        self.answer, self.reason = answer, reason
