"""A small OpenAI-compatible replica that says who it is in every answer, and streams at a pace."""

from __future__ import annotations

import argparse
import asyncio
import json

from aiohttp import web


async def health(_: web.Request) -> web.Response:
    """Well."""
    return web.Response(text="ok")


async def gone(request: web.Request) -> web.Response:
    """How many requests were given up before they were answered."""
    return web.json_response(len(request.app["gone"]))


async def complete(request: web.Request) -> web.StreamResponse:
    """An answer after ``wait_s``, or a stream of ``tokens`` events ``gap_s`` apart."""
    body = await request.json()
    headers = {"X-Replica": request.app["name"]}
    if body.get("wait_s"):
        try:
            await asyncio.sleep(body["wait_s"])
        except asyncio.CancelledError:  # the client has gone
            request.app["gone"].append(body["wait_s"])
            raise
    if not body.get("stream"):
        content = {"replica": request.app["name"], "prompt_bytes": len(body["prompt"])}
        return web.json_response(content, headers=headers)
    response = web.StreamResponse(headers=headers | {"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for k in range(body["tokens"]):
        if k:
            await asyncio.sleep(body["gap_s"])
        await response.write(b"data: " + json.dumps({"choices": [{"text": f"t{k}"}]}).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response


async def main() -> None:
    """Serve until the process is ended; the port is printed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    app = web.Application(client_max_size=2**24)
    app["name"], app["gone"] = options.name, []
    app.router.add_get("/gone", gone)
    app.router.add_get("/health", health)
    app.router.add_post("/v1/completions", complete)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port, reuse_address=True)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
