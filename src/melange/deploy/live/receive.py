"""Read a client's request completely, within limits of size and time."""

from __future__ import annotations

import asyncio

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestPayloadError

from melange.deploy.live.answers import UnservedError, error


async def receive(request: web.BaseRequest, most_bytes: int, timeout_s: float) -> bytes:
    """The body of a request.

    Parameters
    ----------
    request
        Whose head has come.
    most_bytes
        Largest body [bytes].
    timeout_s
        How long it may take [s].

    Raises
    ------
    UnservedError
        A body that is too large, too slow, compressed or broken. What is left of it is not read.
    """
    headers = request.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnservedError(error(415, "compressed bodies are not supported", closes=True))
    coding = headers.get("Transfer-Encoding")
    if coding is not None and coding.strip().lower() != "chunked":
        raise UnservedError(error(501, "the only supported transfer coding is chunked", closes=True))
    length = request.content_length
    if length is not None and length > most_bytes:
        raise _too_large(most_bytes)
    if "Expect" in headers:
        if headers["Expect"].lower() != "100-continue":
            raise UnservedError(error(417, "the only supported expectation is 100-continue", closes=True))
        if request.version >= (1, 1) and request.transport is not None and not request.content.is_eof():
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    content = request.content
    try:
        if content.is_eof():
            body = content.read_nowait()
        else:
            async with asyncio.timeout(timeout_s):
                body = await _read(content, most_bytes)
    except TimeoutError as late:
        raise UnservedError(error(408, f"the body must arrive within {timeout_s:g} s", closes=True)) from late
    except (RequestPayloadError, web.HTTPException, OSError, ValueError) as broken:
        raise UnservedError(error(400, "the body is not valid HTTP", closes=True)) from broken
    if len(body) > most_bytes:
        raise _too_large(most_bytes)
    return body


async def _read(content: StreamReader, most_bytes: int) -> bytes:
    pieces: list[bytes] = []
    total = 0
    while piece := await content.readany():
        total += len(piece)
        if total > most_bytes:
            raise _too_large(most_bytes)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(most_bytes: int) -> UnservedError:
    return UnservedError(error(413, f"the body must have at most {most_bytes} bytes", closes=True))
