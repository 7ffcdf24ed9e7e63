"""Responses that the balancer itself sends to clients."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from melange.deploy.live.headers import SERVER

_JSON = "application/json"


class Answer:
    """A response from the balancer itself.

    Parameters
    ----------
    status
        HTTP status.
    body
        Its content.
    headers
        Header fields besides those of the connection, length, date and server.
    closes
        Whether the connection ends: the remaining bytes on it cannot be trusted, or were not read.
    """

    __slots__ = ("body", "closes", "headers", "status")

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str], *, closes: bool = False) -> None:
        self.status, self.body, self.headers, self.closes = status, body, headers, closes

    def rendered(self, connection: bytes, *, has_body: bool = True) -> bytes:
        """The response as bytes.

        Parameters
        ----------
        connection
            The header line that says whether the connection stays open, or nothing.
        has_body
            False in a response to HEAD.
        """
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items()).encode("latin-1")
        first = b"HTTP/1.1 %d %b\r\n" % (self.status, HTTPStatus(self.status).phrase.encode())
        length = b"Content-Length: %d\r\n" % len(self.body)
        return b"".join(
            (first, lines, length, date_line(), SERVER, connection, b"\r\n", self.body if has_body else b"")
        )


def date_line() -> bytes:
    """The Date header line."""
    return _date_line(int(time.time()))


@lru_cache(maxsize=1)
def _date_line(unix_s: int) -> bytes:
    return b"Date: %b\r\n" % formatdate(unix_s, usegmt=True).encode()


def error(status: int, message: str, *, headers: Mapping[str, str] | None = None, closes: bool = False) -> Answer:
    """An error in the form that clients of the API read.

    Parameters
    ----------
    status
        HTTP status.
    message
        Message for the client; contains no part of the request.
    headers
        Header fields besides the usual ones.
    closes
        Whether the connection ends: the remaining bytes on it cannot be trusted, or were not read.
    """
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    content = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return Answer(status, json.dumps(content).encode(), {"Content-Type": _JSON, **(headers or {})}, closes=closes)


def page(content: object, *, status: int = 200, content_type: str = _JSON) -> Answer:
    """A response about the balancer itself: JSON, or text."""
    text = content if isinstance(content, str) else json.dumps(content)
    return Answer(status, text.encode(), {"Content-Type": content_type})


class UnservedError(Exception):
    """A request that ends without a completion: the balancer itself responds.

    Parameters
    ----------
    answer
        Response to the client.
    reason
        One of :data:`melange.deploy.live.counters.REASONS`.
    """

    def __init__(self, answer: Answer, reason: str = "malformed") -> None:
        super().__init__(reason)
        self.answer, self.reason = answer, reason
