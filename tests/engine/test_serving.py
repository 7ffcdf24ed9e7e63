"""That the engine behind these tests is a real one: it answers, counts exactly and streams token by token."""

import json
import time
import urllib.request

from engine_servers import Server


def post(server: Server, path: str, **body: object) -> bytes:
    """The whole answer to one request."""
    content = json.dumps({"model": server.name, **body}).encode()
    request = urllib.request.Request(f"{server.url}{path}", content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def test_lengths_are_exact(small: Server) -> None:
    """Token ids in, and as many tokens out as were asked for."""
    answer = post(small, "/v1/completions", prompt=list(range(300, 337)), max_tokens=11, ignore_eos=True)
    usage = json.loads(answer)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (37, 11)


def test_tokens_arrive_one_by_one(small: Server) -> None:
    """A stream spreads over time: its first token comes well before its last."""
    body = {"model": small.name, "prompt": [300], "max_tokens": 64, "ignore_eos": True, "stream": True}
    request = urllib.request.Request(
        f"{small.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    began = time.monotonic()
    with urllib.request.urlopen(request, timeout=60) as answer:
        moments = [time.monotonic() - began for line in answer if line.startswith(b"data: {")]
    # Tokens that were ready before the last chunk was sent go together: seen on a busy machine.
    assert 48 <= len(moments) <= 64
    assert moments[0] < 0.5 * moments[-1]
