"""A replica with faults: answers completions at once or token by token, and misbehaves as it is told."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from aiohttp import web


class Replica:
    """What it does, and what it has seen."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.count = self.gone = 0
        self.last: dict[str, Any] = {}
        self.release = asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Any request."""
        if request.path == "/health":
            return web.Response(status=503 if self.fault == "ill" else 200)
        if request.path == "/fault":
            self.fault = (await request.read()).decode()
            self.release.set()
            self.release = asyncio.Event()
            return web.Response()
        if request.path == "/seen":
            return web.json_response({"count": self.count, "gone": self.gone, "last": self.last})
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "tiny"}]})
        if request.path == "/tokenize":
            return web.json_response({"count": len((await request.json())["prompt"].split())})
        self.count += 1
        body = await request.read()
        self.last = {"path": request.raw_path, "headers": dict(request.headers), "body": body.decode()}
        return await self.complete(request, json.loads(body))

    async def complete(self, request: web.BaseRequest, body: dict[str, Any]) -> web.StreamResponse:
        """A completion of as many tokens as may be."""
        if self.fault == "reset":
            assert request.transport is not None
            request.transport.abort()
        if self.fault.isdigit():
            return web.json_response({"error": "as told"}, status=int(self.fault))
        if self.fault == "wait":
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.gone += 1
                raise
        tokens = body.get("max_tokens", 16)
        usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
        headers = {"X-Kept": "yes", "Connection": "keep-alive, X-Dropped", "X-Dropped": "no", "Keep-Alive": "timeout=9"}
        if not body.get("stream"):
            text = {"choices": [{"index": 0, "text": "a" * tokens}], "usage": usage}
            return web.json_response(text, headers=headers)
        response = web.StreamResponse(headers=headers | {"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for token in range(tokens):
                if token == 2 and self.fault == "cut":
                    assert request.transport is not None
                    request.transport.abort()
                if token == 2 and self.fault == "pause":
                    await self.release.wait()
                event = {"choices": [{"index": 0, "text": "a"}]}
                await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                if self.fault == "slow":
                    await asyncio.sleep(0.02)
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionResetError, asyncio.CancelledError):
            self.gone += 1
            raise
        return response


async def main() -> None:
    """Serve on a free port, which is printed, until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fault", default="")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    server = web.Server(Replica(given.fault).handle, access_log=None, handler_cancellation=True)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", given.port, reuse_address=True, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
