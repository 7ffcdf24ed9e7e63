"""Observe a completion as it passes through: its length, and the times of its tokens."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right


class Lengths:
    """How to find the length of responses of one kind.

    In JSON text every quote is escaped, so these patterns match only keys.

    Parameters
    ----------
    prompt, answer
        Keys of the usage block.
    texts
        Keys of an event's text: each occurrence is a token.
    """

    __slots__ = ("answer", "prompt", "texts")

    def __init__(self, prompt: str, answer: str, texts: tuple[str, ...]) -> None:
        self.prompt, self.answer = _number_under(prompt), _number_under(answer)
        self.texts = tuple(f'"{key}":{space}"'.encode() for key in texts for space in ("", " "))


def _number_under(key: str) -> tuple[bytes, re.Pattern[bytes]]:
    name = f'"{key}"'.encode()
    return name, re.compile(name + rb"\s*:\s*(\d{1,9})")


# Completions and chats; and responses, whose events have a text under "delta".
CHOICES = Lengths("prompt_tokens", "completion_tokens", ("text", "content", "reasoning_content", "reasoning"))
EVENTS = Lengths("input_tokens", "output_tokens", ("delta",))
_EVENT = b"data:"
_ROLE, _NOTHING_SAID = re.compile(rb'"role"\s*:'), re.compile(rb'"content"\s*:\s*""')
# Bytes that are kept of a stream, whose last events contain the usage block, and of a completion that arrives at once.
# With less, the block could be missed behind long events, and chunks would be counted instead; more takes memory for
# each open request.
_TAIL_BYTES, _WHOLE_BYTES = 4096, 2**16
# Bytes of a stream that are parsed together: parsing each piece alone would cost more than forwarding it; more takes
# memory for each open request.
_TOGETHER_BYTES = 8192
# Most pieces that are parsed together, for the same reasons.
MOST_PIECES = 32


class Completion:
    """A completion as it passes through; only its end is kept.

    Parameters
    ----------
    is_stream
        Whether tokens arrive as events.
    lengths
        Keys that give its length.
    """

    __slots__ = ("_chunks", "_first_s", "_key", "_last", "_lengths", "_new_bytes", "_rest", "_tail", "is_stream",
                 "pieces", "pieces_s")  # fmt: skip

    def __init__(self, is_stream: bool, lengths: Lengths = CHOICES) -> None:
        self.is_stream, self._lengths = is_stream, lengths
        self._chunks = 0
        self._first_s = 0.0
        # The last events with a token: their bytes, the bytes before them, the pieces, and the times of the pieces. The
        # time of the last complete token is computed only once, at the end.
        self._last: tuple[bytes, int, list[bytes], list[float]] = (b"", 0, [], [0.0])
        self._key = b""  # key of the last token
        self._tail = self._rest = b""
        # Pieces that are not parsed yet, and their arrival times [s]. Chunks of whole lines may be among them as they
        # are: their first and last lines contain no event.
        self.pieces: list[bytes] = []
        self.pieces_s: list[float] = []
        self._new_bytes = 0

    def note(self, data: bytes, moment_s: float) -> None:
        """A piece of the completion has arrived at a time on the event loop's clock [s]."""
        if not self.is_stream:
            self._tail = (self._tail + data)[-_WHOLE_BYTES:]
            self._last = (b"", 0, [], [moment_s])
            return
        self.pieces.append(data)
        self.pieces_s.append(moment_s)
        self._new_bytes += len(data)
        # Until the first token, each piece is parsed at once.
        if not self._chunks or self._new_bytes > _TOGETHER_BYTES:
            self.look()

    @property
    def has_begun(self) -> bool:
        """Whether the first token has been seen."""
        return self._chunks > 0

    def look(self) -> None:
        """Parse the pieces of a stream that arrived since the last call."""
        pieces, pieces_s = self.pieces, self.pieces_s
        if not pieces:
            return
        data = self._rest + b"".join(pieces)
        # An incomplete event is parsed after its rest has arrived.
        end = data.rfind(b"\n") + 1
        events = data[:end]
        self._count(events)
        self._tail = events[-_TAIL_BYTES:] if end >= _TAIL_BYTES else (self._tail + events)[-_TAIL_BYTES:]
        self._rest = data[end:][-_WHOLE_BYTES:]
        pieces.clear()
        pieces_s.clear()
        self._new_bytes = 0

    def _count(self, events: bytes) -> None:
        """Count the tokens in events that have just been completed."""
        tokens, others = 0, events
        if self._key and (place := events.rfind(self._key)) >= 0:
            end, tokens = events.index(b"\n", place) + 1, events.count(self._key)
            if tokens == events.count(_EVENT, 0, end):
                others = events[end:]
            else:  # some are under another key than the last one, or contain no token
                tokens = 0
        if _EVENT in others:
            for key in self._lengths.texts:
                if found := others.count(key):
                    tokens += found
                    self._key = key
        if tokens and not self._chunks and _ROLE.search(events) and _NOTHING_SAID.search(events):
            tokens -= 1  # a chat's first event only names the role
        if tokens:
            self._last = (events, len(self._rest), self.pieces[:], self.pieces_s[:])
            if not self._chunks:
                self._first_s = self._moment_of_last()
            self._chunks += tokens

    def _moment_of_last(self) -> float:
        """Time at which the last event with a token was complete [s]."""
        events, at, pieces, moments_s = self._last
        if not events:
            return moments_s[-1]
        place = events.rfind(self._key) + 1
        place += max(map(events[place:].rfind, self._lengths.texts))
        starts = list(itertools.accumulate(map(len, pieces), initial=at))
        return moments_s[bisect_right(starts, events.index(b"\n", place)) - 1]

    @property
    def chunks(self) -> int:
        """Events with text."""
        if self.pieces:
            self.look()
        return self._chunks

    @property
    def first_s(self) -> float:
        """Time of the first token [s]."""
        return self._first_s

    @property
    def last_s(self) -> float:
        """Time of the last token [s]."""
        if self.pieces:
            self.look()
        return self._moment_of_last()

    @property
    def rest(self) -> bytes:
        """The last event, which is still incomplete."""
        self.look()
        return self._rest

    @property
    def tail(self) -> bytes:
        """The end of the completion, which contains usage blocks."""
        self.look()
        return self._tail

    @property
    def output_tokens(self) -> int:
        """Output tokens from the usage block, or else the number of chunks; 0 if there is neither."""
        if self.pieces:
            self.look()
        return _last_number(self._lengths.answer, self._tail) or self._chunks

    @property
    def input_tokens(self) -> int:
        """Prompt tokens from the usage block; 0 if there is none."""
        if self.pieces:
            self.look()
        return _last_number(self._lengths.prompt, self._tail)


def _last_number(key_and_pattern: tuple[bytes, re.Pattern[bytes]], tail: bytes) -> int:
    """The number under the last key of that name that has a number; 0 if there is none."""
    key, pattern = key_and_pattern
    place = tail.rfind(key)
    found = pattern.match(tail, place) if place >= 0 else None
    if found:
        return int(found[1])
    numbers = pattern.findall(tail) if place >= 0 else []
    return int(numbers[-1]) if numbers else 0
