"""One request to a server and the arrival times of its tokens."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

# Status codes with which a server reports overload.
BUSY = (429, 503)
SHOWN = 200  # characters of a server's error message
_MOST_LINE = 2**24  # longest line of a stream [bytes]


@dataclass(slots=True, kw_only=True)
class Answer:
    """The outcome of one request; times are on the event loop's clock [s].

    Parameters
    ----------
    scheduled_s
        When the request was scheduled.
    sent_s, first_s, last_s
        When it was sent, and when its first and last token came; nan if no token came.
    input_tokens, output_tokens
        As in the server's usage block; the number of chunks if there is no usage block.
    chunks
        Pieces of text received.
    gaps
        Times between two chunks [s].
    is_counted
        Whether the server reported token counts.
    status
        HTTP status; 0 if there was no response.
    failure
        What went wrong; empty on success.
    """

    scheduled_s: float
    sent_s: float = float("nan")
    first_s: float = float("nan")
    last_s: float = float("nan")
    input_tokens: int = 0
    output_tokens: int = 0
    chunks: int = 0
    gaps: list[float] = field(default_factory=list)
    is_counted: bool = False
    status: int = 0
    failure: str = ""

    @property
    def lag_s(self) -> float:
        """Delay between the scheduled time and the actual send [s]."""
        return self.sent_s - self.scheduled_s

    @property
    def ttft_s(self) -> float:
        """Time from the scheduled send to the first token [s]."""
        return self.first_s - self.scheduled_s

    @property
    def latency_s(self) -> float:
        """Time from the scheduled send to the last token [s]."""
        return self.last_s - self.scheduled_s

    @property
    def tpot_s(self) -> float:
        """Mean time between tokens [s]; 0 for a single token."""
        return (self.last_s - self.first_s) / (self.output_tokens - 1) if self.output_tokens > 1 else 0.0

    @property
    def ntpot_s(self) -> float:
        """Latency divided by output tokens [s]."""
        return self.latency_s / max(self.output_tokens, 1)


async def ask(session: aiohttp.ClientSession, url: str, body: dict[str, Any], scheduled_s: float) -> Answer:
    """Send one request, read its stream to the end, and record when tokens came.

    A failure is part of the answer and is not raised: in a load test, failures are results. Canceling closes the
    connection, so that the server stops too.
    """
    import aiohttp

    now = asyncio.get_running_loop().time
    answer = Answer(scheduled_s=scheduled_s, sent_s=now())
    try:
        async with session.post(url, json=body, allow_redirects=False) as response:
            answer.status = response.status
            if response.status != 200:
                answer.failure = f"HTTP {response.status}: {(await response.text())[:SHOWN]}"
                return answer
            rest = b""
            async for data in response.content.iter_any():
                moment = now()
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    _take(answer, line, moment)
                if len(rest) > _MOST_LINE:
                    answer.failure = "the stream has an endless line"
                    return answer
            _take(answer, rest, now())
    except aiohttp.ClientConnectorError as error:
        answer.failure = f"cannot connect: {error.strerror or error}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        answer.failure = f"{type(error).__name__}: {error}"
    if not answer.failure and not answer.chunks:
        answer.failure = "the stream had no tokens"
    return answer


def _take(answer: Answer, line: bytes, moment: float) -> None:
    """One line of a stream of server-sent events."""
    if not line.startswith(b"data:"):
        return
    text = line[5:].strip()
    if text == b"[DONE]":
        return
    try:
        event = json.loads(text)
    except ValueError:
        answer.failure = answer.failure or f"an event of the stream is not JSON: {text[:SHOWN]!r}"
        return
    if not isinstance(event, dict) or "error" in event:
        answer.failure = answer.failure or f"the stream ended with an error: {text[:SHOWN]!r}"
        return
    _count(answer, event.get("usage"))
    if _is_token(event):
        if answer.chunks:
            answer.gaps.append(moment - answer.last_s)
        else:
            answer.first_s = moment
        answer.last_s = moment
        answer.chunks += 1
        if not answer.is_counted:
            answer.output_tokens = answer.chunks


def _count(answer: Answer, usage: Any) -> None:
    if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
        answer.input_tokens = int(usage.get("prompt_tokens") or 0)
        answer.output_tokens = usage["completion_tokens"]
        answer.is_counted = True


def _is_token(event: dict[str, Any]) -> bool:
    """Whether an event carries text, even an empty one: bytes of an incomplete character are a token too."""
    choices = event.get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        return False
    delta = choices[0].get("delta")
    if delta is None:
        return choices[0].get("text") is not None
    said = [delta.get(name) for name in ("content", "reasoning_content", "reasoning")]
    if delta.get("role") and not any(said):
        return False  # a chat's first event only names the role
    return any(text is not None for text in said)
