"""What a completion tells while it passes through: how long it is, and when its tokens came."""

from __future__ import annotations

import re

# Inside a JSON text every quote is escaped, so these stand for keys only.
_USAGE = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,9})')
_PROMPT = re.compile(rb'"prompt_tokens"\s*:\s*(\d{1,9})')
_TOKEN_KEYS = tuple(
    f'"{key}":{space}"'.encode() for key in ("text", "content", "reasoning_content", "reasoning") for space in ("", " ")
)
_EVENT = b"data:"
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

    __slots__ = ("_kept", "_kept_bytes", "_key", "_most_bytes", "chunks", "first_s", "is_stream", "last_s", "rest")

    def __init__(self, is_stream: bool) -> None:
        self.is_stream = is_stream
        self.chunks = 0
        self.first_s = self.last_s = 0.0
        self.rest = b""
        self._key = b""  # that the last token came under
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._most_bytes = 2 * (_TAIL_BYTES if is_stream else _WHOLE_BYTES)

    def note(self, data: bytes, moment_s: float) -> None:
        """Look at a piece of it that came at a moment of the event loop's clock [s]."""
        if not self.is_stream:
            self.last_s = moment_s
        else:
            if self.rest:
                data, self.rest = self.rest + data, b""
            if data[-1:] != b"\n":  # half an event: the whole of it is looked at when the rest comes
                data, _, rest = data.rpartition(b"\n")
                self.rest = rest[-_WHOLE_BYTES:]
            key = self._key
            tokens = data.count(key) if key else 0
            if tokens != data.count(_EVENT):
                tokens = self._count(data)
            if tokens:
                if not self.chunks:
                    self.first_s = moment_s
                self.chunks += tokens
                self.last_s = moment_s
        self._kept.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > self._most_bytes:
            # Joined now and then: a copy of the tail for each token would cost more than all the rest.
            tail = self.tail
            self._kept, self._kept_bytes = [tail], len(tail)

    def _count(self, data: bytes) -> int:
        """Tokens in events of which some are under another key than the last, or hold none."""
        tokens = 0
        for key in _TOKEN_KEYS:
            if found := data.count(key):
                tokens += found
                self._key = key
        if tokens and not self.chunks and _ROLE.search(data) and _NOTHING_SAID.search(data):
            tokens -= 1  # a chat's first event names the speaker
        return tokens

    @property
    def tail(self) -> bytes:
        """The end of it, where usage blocks are."""
        return b"".join(self._kept)[-self._most_bytes // 2 :]

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
