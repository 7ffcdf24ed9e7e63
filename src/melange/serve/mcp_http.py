"""The MCP server over HTTP, with the same protection as the HTTP API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from mcp.server.lowlevel.server import Server

from melange.serve.guard import MOST_BODY, guard, is_same
from melange.serve.queue import Queue


def http_application(server: Server[Queue], *, token: str, host: str, hosts: tuple[str, ...]) -> FastAPI:
    """Serve at ``/mcp`` over streamable HTTP, with the same protection as the HTTP API.

    Parameters
    ----------
    server
        A server without access to files: its clients may be on other machines.
    token
        Token that clients must send as ``Authorization: Bearer``; empty: none, for the loopback address.
    host
        The address that it listens on.
    hosts
        Host names that requests may use; ``*``: any.
    """
    inner = server.streamable_http_app(host=host, max_request_body_size=int(MOST_BODY))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with server.session_manager.run():
            yield

    app = FastAPI(title="Melange over MCP", lifespan=lifespan, openapi_url=None)
    app.mount("/", inner)
    guard(app, hosts, {})

    @app.middleware("http")
    async def authorized(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Reject clients without the token before reading anything."""
        if token and not is_same(request.headers.get("authorization", ""), f"Bearer {token}"):
            return JSONResponse({"detail": "a bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
        return await call_next(request)

    return app
