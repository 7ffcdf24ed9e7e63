"""Requests that every server of the package rejects: other host names, large bodies, and clients without the token."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from melange.errors import InputError
from melange.units import MIB

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Longest body of a request that is not an upload [bytes].
MOST_BODY = 32 * MIB


def check_reachable(host: str, token: str, token_env: str) -> tuple[str, ...]:
    """Host names that clients may use for a server on an address; ``*``: any.

    A page in a browser could otherwise reach a server on the loopback address under a name of its own.

    Raises
    ------
    InputError
        Other machines can reach the address, and no token protects the server.
    """
    if host in LOOPBACK:
        return LOOPBACK
    if not token:
        raise InputError(
            f"--host {host}: others can reach this address, but no token protects it",
            hint=f"set {token_env} to a long random text, or listen on 127.0.0.1",
        )
    return ("*",)


async def received(request: Request, place: Path, most: float) -> int:
    """Write a request's body to a file while it arrives; returns its size [bytes].

    Raises
    ------
    HTTPException
        The body is longer than ``most`` bytes; none of it is kept.
    """
    size = 0
    with place.open("wb") as file:
        async for part in request.stream():
            size += len(part)
            if size > most:
                break
            file.write(part)
    if size > most:
        place.unlink()
        raise HTTPException(413, f"at most {int(most):,} bytes are accepted")
    return size


def is_same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal; the time does not depend on where they differ."""
    return hmac.compare_digest(given.encode(), wanted.encode())


def guard(app: FastAPI, hosts: tuple[str, ...], most_by_path: Mapping[str, float]) -> None:
    """Make an application reject other host names, bodies of excessive or unknown size, and malformed requests.

    Parameters
    ----------
    app
        The application.
    hosts
        Host names that requests may use; ``*``: any.
    most_by_path
        Longest body by path, if it is not :data:`MOST_BODY` [bytes].
    """
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        """What is wrong with a request, without its values: JSON or UTF-8 cannot hold some of them."""
        faults = [{key: one[key] for key in ("loc", "msg", "type")} for one in error.errors()]
        return Response(json.dumps({"detail": faults}), 422, media_type="application/json")

    @app.middleware("http")
    async def bounded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Reject a body before it is read."""
        if request.method == "POST":
            most = most_by_path.get(request.url.path, MOST_BODY)
            length = request.headers.get("content-length", "")
            if not length.isdecimal():
                return JSONResponse({"detail": "Content-Length is needed"}, 411)
            if int(length) > most:
                return JSONResponse({"detail": f"at most {int(most):,} bytes are accepted"}, 413)
        return await call_next(request)
