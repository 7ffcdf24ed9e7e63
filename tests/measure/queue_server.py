"""A small OpenAI-compatible server whose capacity is known: it batches, and its steps take ``fixed + batch each``.

In every step each running request gets a token; waiting ones enter while there are slots. With o output tokens and a
limit T on the mean time between them it carries ``(T - fixed) / each`` requests at once, so
``(T - fixed) / (each o T)`` a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import deque
from typing import Any

from aiohttp import web

MODEL = "queue"
TEMPLATE_TOKENS = 3


class Engine:
    """Steps, as long as there is work."""

    def __init__(self, fixed_s: float, each_s: float, slots: int) -> None:
        self.fixed_s, self.each_s, self.slots = fixed_s, each_s, slots
        self.waiting: deque[tuple[int, asyncio.Queue[bool]]] = deque()
        self.running: list[list[Any]] = []
        self.has_work = asyncio.Event()
        self.served = 0

    def enter(self, tokens: int) -> asyncio.Queue[bool]:
        """A queue that gets True for each token."""
        queue: asyncio.Queue[bool] = asyncio.Queue()
        self.waiting.append((tokens, queue))
        self.has_work.set()
        return queue

    def leave(self, queue: asyncio.Queue[bool]) -> None:
        """The client has gone."""
        self.running = [one for one in self.running if one[1] is not queue]
        self.waiting = deque(one for one in self.waiting if one[1] is not queue)

    async def run(self) -> None:
        """Step after step, on a clock that makes up for sleeping too long."""
        now = asyncio.get_running_loop().time
        due_s = now()
        while True:
            if not self.running and not self.waiting:
                self.has_work.clear()
                await self.has_work.wait()
                due_s = now()
            while self.waiting and len(self.running) < self.slots:
                self.running.append(list(self.waiting.popleft()))
            due_s += self.fixed_s + self.each_s * len(self.running)
            await asyncio.sleep(max(due_s - now(), 0))
            for one in self.running:
                one[0] -= 1
                one[1].put_nowait(True)
            self.served += sum(one[0] == 0 for one in self.running)
            self.running = [one for one in self.running if one[0] > 0]


def tokens_of(prompt: Any) -> int:
    """A token an id, a token a word, two for words of six letters and more."""
    if isinstance(prompt, list):
        return len(prompt)
    return sum(1 + (len(word) >= 6) for word in prompt.split())


class Server:
    """The engine behind HTTP, with what this server understands and what not."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.engine = Engine(options.fixed_ms / 1e3, options.each_ms / 1e3, options.slots)

    def application(self) -> web.Application:
        """Its routes."""

        @web.middleware
        async def with_key(request: web.Request, handler: Any) -> web.StreamResponse:
            if self.options.key and request.headers.get("Authorization") != f"Bearer {self.options.key}":
                return web.json_response({"error": "no key"}, status=401)
            answer: web.StreamResponse = await handler(request)
            return answer

        app = web.Application(middlewares=[with_key])
        if self.options.tokenize:
            app.router.add_post("/tokenize", self.tokenize)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/served", self.served)
        app.router.add_post("/v1/chat/completions", self.complete)
        if not self.options.chat_only:
            app.router.add_post("/v1/completions", self.complete)

        async def with_engine(_: web.Application) -> Any:
            task = asyncio.create_task(self.engine.run())
            yield
            task.cancel()

        app.cleanup_ctx.append(with_engine)
        return app

    async def models(self, _: web.Request) -> web.Response:
        """The one model."""
        return web.json_response({"data": [{"id": MODEL, "max_model_len": self.options.max_context}]})

    async def served(self, _: web.Request) -> web.Response:
        """Requests that ran to their end, and those that it holds."""
        held = len(self.engine.running) + len(self.engine.waiting)
        return web.json_response({"served": self.engine.served, "held": held})

    async def tokenize(self, request: web.Request) -> web.Response:
        """Ids of a prompt's words."""
        words = (await request.json())["prompt"].split()
        return web.json_response({"tokens": [sum(word.encode()) for word in words]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """A stream of as many tokens as were asked for."""
        body = await request.json()
        is_chat = "messages" in body
        prompt = body["messages"][0]["content"] if is_chat else body["prompt"]
        if isinstance(prompt, list) and self.options.text_only:
            return web.json_response({"error": "prompt must be text"}, status=400)
        if "min_tokens" in body and self.options.strict:
            return web.json_response({"error": "unknown field min_tokens"}, status=400)
        if tokens_of(prompt) > self.options.max_prompt:
            return web.json_response({"error": "prompt too long"}, status=400)
        if len(self.engine.waiting) >= self.options.most_waiting:
            return web.json_response({"error": "busy"}, status=429)
        count = tokens_of(prompt) + TEMPLATE_TOKENS * is_chat
        tokens = body["max_tokens"]
        if self.options.stops_early:
            tokens = max(1, tokens // 2)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        queue = self.engine.enter(tokens)
        try:
            if is_chat:
                await self.event(response, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
            for _ in range(tokens):
                await queue.get()
                choice = {"delta": {"content": "a"}} if is_chat else {"text": "a"}
                await self.event(response, {"choices": [choice]})
            if not self.options.no_usage:
                usage = {"prompt_tokens": count, "completion_tokens": tokens}
                await self.event(response, {"choices": [], "usage": usage})
            await response.write(b"data: [DONE]\n\n")
        except ConnectionResetError:  # the client has had enough
            return response
        finally:
            self.engine.leave(queue)
        return response

    async def event(self, response: web.StreamResponse, content: dict[str, Any]) -> None:
        """One event of the stream."""
        await response.write(b"data: " + json.dumps(content).encode() + b"\n\n")


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """From the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fixed-ms", type=float, default=4.0)
    parser.add_argument("--each-ms", type=float, default=1.0)
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--max-context", type=int, default=4096)
    parser.add_argument("--max-prompt", type=int, default=10**9)
    parser.add_argument("--most-waiting", type=int, default=10**9)
    parser.add_argument("--key", default="")
    for flag in ("chat-only", "text-only", "strict", "stops-early", "no-usage", "tokenize"):
        parser.add_argument(f"--{flag}", action="store_true")
    return parser.parse_args(arguments)


async def main() -> None:
    """Serve on a free port, which is printed, until the process is ended."""
    runner = web.AppRunner(Server(options_of()).application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
