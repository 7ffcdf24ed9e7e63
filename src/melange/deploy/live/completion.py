"""Observe a completion as it passes through: its length and the times of its tokens."""

from __future__ import annotations

import re

# Inside a JSON text every quote is escaped, so these stand for keys only.
_USAGE = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,9})')
_PROMPT = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,9})')
_TOKEN_KEYS = tuple(
    f'"{key}":{space}"'.encode() for key in ("text", "content", "reasoning_content", "reasoning") for space in ("", " ")
)
_ROLE, _NOTHING_SAID = re.compile(rb'"role"\s*:'), re.compile(rb'"content"\s*:\s*""')
# What is kept of a stream, whose last events hold the usage block, and of a completion that comes whole [bytes]. Less
# would miss the block behind long events, and chunks would be counted instead; more is memory for each open request.
_TAIL_BYTES, _WHOLE_BYTES = 4096, 2**16


class Completion:
    """A completion as it passes, none of it kept but its tail.

    Parameters
    ----------
    is_stream
        Whether tokens come as events.
    """

    __slots__ = ("chunks", "first_s", "is_stream", "last_s", "rest", "tail")

    def __init__(self, is_stream: bool) -> None:
        self.is_stream = is_stream
        self.chunks = 0
        self.first_s = self.last_s = 0.0
        self.tail = self.rest = b""

    def note(self, data: bytes, moment_s: float) -> None:
        """Look at a piece of it that came at a moment of the event loop's clock [s]."""
        if not self.is_stream:
            self.tail = (self.tail + data)[-_WHOLE_BYTES:] if self.tail else data[-_WHOLE_BYTES:]
            self.last_s = moment_s
            return
        events = self.rest + data if self.rest else data
        if data[-1:] == b"\n":
            self.rest = b""
        else:  # half an event: the whole of it is looked at when the rest comes
            events, _, rest = events.rpartition(b"\n")
            self.rest = rest[-_WHOLE_BYTES:]
        tokens = 0
        for key in _TOKEN_KEYS:
            tokens += events.count(key)
        if tokens and not self.chunks and _ROLE.search(events) and _NOTHING_SAID.search(events):
            tokens -= 1  # a chat's first event names the speaker
        if tokens:
            if not self.chunks:
                self.first_s = moment_s
            self.chunks += tokens
            self.last_s = moment_s
        self.tail = (self.tail[-_TAIL_BYTES:] + events)[-_TAIL_BYTES:] if len(events) < 1024 else events[-_TAIL_BYTES:]

    @property
    def output_tokens(self) -> int:
        """Tokens by the usage block, else by chunks; 0 where neither says any."""
        found = _USAGE.findall(self.tail)
        return int(found[-1]) if found else self.chunks

    @property
    def input_tokens(self) -> int:
        """Prompt tokens by the usage block; 0 where there is none."""
        found = _PROMPT.findall(self.tail)
        return int(found[-1]) if found else 0
