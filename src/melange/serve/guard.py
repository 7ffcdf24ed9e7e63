"""What every server of the package refuses: other host names, large bodies, and clients without the token."""

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
# Longest body of a request that uploads nothing [bytes].
MOST_BODY = 32 * MIB


def check_reachable(host: str, token: str, token_env: str) -> tuple[str, ...]:
    """The names that a server on an address may be called by; ``*``: any.

    A page in a browser could otherwise reach a server on the loopback address under a name of its own.

    Raises
    ------
    InputError
        Others can reach the address, and no token protects it.
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
    """Write a request's body to a file as it comes; its size [bytes].

    Raises
    ------
    HTTPException
        A body of more than ``most`` bytes, of which nothing is kept.
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
    """Whether two secrets are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode(), wanted.encode())


def guard(app: FastAPI, hosts: tuple[str, ...], most_by_path: Mapping[str, float]) -> None:
    """Let an application refuse other host names, bodies that are too large or of unknown size, and malformed requests.

    Parameters
    ----------
    app
        The application.
    hosts
        Names that requests may address it by; ``*``: any.
    most_by_path
        Longest body by path, where it is not :data:`MOST_BODY` [bytes].
    """
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        """What is wrong with a request, without its values: some are none that JSON or UTF-8 can hold."""
        faults = [{key: one[key] for key in ("loc", "msg", "type")} for one in error.errors()]
        return Response(json.dumps({"detail": faults}), 422, media_type="application/json")

    @app.middleware("http")
    async def bounded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse a body before it is read."""
        if request.method == "POST":
            most = most_by_path.get(request.url.path, MOST_BODY)
            length = request.headers.get("content-length", "")
            if not length.isdecimal():
                return JSONResponse({"detail": "Content-Length is needed"}, 411)
            if int(length) > most:
                return JSONResponse({"detail": f"at most {int(most):,} bytes are accepted"}, 413)
        return await call_next(request)
