"""Observe a completion as it passes through: its length and the times of its tokens."""

from __future__ import annotations

import re


class Lengths:
    """How answers of one kind tell how long they are.

    Inside a JSON text every quote is escaped, so what is looked for stands for keys only.

    Parameters
    ----------
    prompt, answer
        Keys of the usage block.
    texts
        Keys of an event's text: each that is there is a token.
    """

    __slots__ = ("answer", "prompt", "texts")

    def __init__(self, prompt: str, answer: str, texts: tuple[str, ...]) -> None:
        self.prompt, self.answer = _number_under(prompt), _number_under(answer)
        self.texts = tuple(f'"{key}":{space}"'.encode() for key in texts for space in ("", " "))


def _number_under(key: str) -> tuple[bytes, re.Pattern[bytes]]:
    name = f'"{key}"'.encode()
    return name, re.compile(name + rb"\s*:\s*(\d{1,9})")


# Completions and chats; responses, whose events have a text under "delta".
CHOICES = Lengths("prompt_tokens", "completion_tokens", ("text", "content", "reasoning_content", "reasoning"))
EVENTS = Lengths("input_tokens", "output_tokens", ("delta",))
_EVENT = b"data:"
_ROLE, _NOTHING_SAID = re.compile(rb'"role"\s*:'), re.compile(rb'"content"\s*:\s*""')
# What is kept of a stream, whose last events hold the usage block, and of a completion that comes whole [bytes]. Less
# would miss the block behind long events, and chunks would be counted instead; more is memory for each open request.
_TAIL_BYTES, _WHOLE_BYTES = 4096, 2**16
# Of a stream that is looked at together [bytes]: piece by piece would cost more than to pass it on; more is memory for
# each open request.
_TOGETHER_BYTES = 8192
# Pieces that are looked at together at most, for the same reasons.
MOST_PIECES = 32


class Completion:
    """A completion as it passes, none of it kept but its tail.

    Parameters
    ----------
    is_stream
        Whether tokens come as events.
    lengths
        How it tells its length.
    """

    __slots__ = ("_chunks", "_first_s", "_key", "_last", "_lengths", "_new_bytes", "_rest", "_tail", "is_stream",
                 "pieces", "pieces_s")  # fmt: skip

    def __init__(self, is_stream: bool, lengths: Lengths = CHOICES) -> None:
        self.is_stream, self._lengths = is_stream, lengths
        self._chunks = 0
        self._first_s = 0.0
        # Of the last events with a token: themselves, what had come of them before, the pieces and their moments. When
        # the last of them was whole is found out once, at the end.
        self._last: tuple[bytes, int, list[bytes], list[float]] = (b"", 0, [], [0.0])
        self._key = b""  # that the last token came under
        self._tail = self._rest = b""
        # Pieces that have not been looked at, and when they came [s].
        self.pieces: list[bytes] = []
        self.pieces_s: list[float] = []
        self._new_bytes = 0

    def note(self, data: bytes, moment_s: float) -> None:
        """A piece of it has come at a moment of the event loop's clock [s]."""
        self.pieces.append(data)
        self.pieces_s.append(moment_s)
        self._new_bytes += len(data)
        # Whether the first token is there shows piece by piece.
        if not self._chunks or self._new_bytes > _TOGETHER_BYTES:
            self.look()

    @property
    def has_begun(self) -> bool:
        """Whether the first token is known to be there."""
        return self._chunks > 0

    def look(self) -> None:
        """Look at what has come since the last time."""
        pieces, pieces_s = self.pieces, self.pieces_s
        if not pieces:
            return
        data = self._rest + b"".join(pieces)
        if self.is_stream:
            # Half an event is looked at as a whole when the rest has come.
            events, newline, rest = data.rpartition(b"\n")
            self._count(events + newline)
            self._tail = (self._tail + events + newline)[-_TAIL_BYTES:]
            self._rest = rest[-_WHOLE_BYTES:]
        else:
            self._last = (b"", 0, [], pieces_s[-1:])
            self._tail = (self._tail + data)[-_WHOLE_BYTES:]
        pieces.clear()
        pieces_s.clear()
        self._new_bytes = 0

    def _count(self, events: bytes) -> None:
        """Count the tokens in events that have just become whole."""
        tokens = events.count(self._key) if self._key else 0
        if tokens != events.count(_EVENT):  # some are under another key than the last, or hold none
            tokens = 0
            for key in self._lengths.texts:
                if found := events.count(key):
                    tokens += found
                    self._key = key
        if tokens and not self._chunks and _ROLE.search(events) and _NOTHING_SAID.search(events):
            tokens -= 1  # a chat's first event names the speaker
        if tokens:
            self._last = (events, len(self._rest), self.pieces[:], self.pieces_s[:])
            if not self._chunks:
                self._first_s = self._moment_of_last()
            self._chunks += tokens

    def _moment_of_last(self) -> float:
        """When the last event with a token was whole [s]."""
        events, at, pieces, moments_s = self._last
        if events:
            end = events.index(b"\n", max(events.rfind(key) for key in self._lengths.texts))
            for piece, moment_s in zip(pieces, moments_s, strict=True):
                at += len(piece)
                if end < at:
                    return moment_s
        return moments_s[-1]

    @property
    def chunks(self) -> int:
        """Events with text."""
        self.look()
        return self._chunks

    @property
    def first_s(self) -> float:
        """When the first token was there [s]."""
        return self._first_s

    @property
    def last_s(self) -> float:
        """When the last token was there [s]."""
        self.look()
        return self._moment_of_last()

    @property
    def rest(self) -> bytes:
        """An event of which the end has not come."""
        self.look()
        return self._rest

    @property
    def tail(self) -> bytes:
        """The end of it, where usage blocks are."""
        self.look()
        return self._tail

    @property
    def output_tokens(self) -> int:
        """Tokens by the usage block, else by chunks; 0 where neither says any."""
        self.look()
        return _last_number(self._lengths.answer, self._tail) or self._chunks

    @property
    def input_tokens(self) -> int:
        """Prompt tokens by the usage block; 0 where there is none."""
        self.look()
        return _last_number(self._lengths.prompt, self._tail)


def _last_number(key_and_pattern: tuple[bytes, re.Pattern[bytes]], tail: bytes) -> int:
    """The number under the last key of that name that has one; 0 where none has."""
    key, pattern = key_and_pattern
    place = tail.rfind(key)
    found = pattern.match(tail, place) if place >= 0 else None
    if found:
        return int(found[1])
    numbers = pattern.findall(tail) if place >= 0 else []
    return int(numbers[-1]) if numbers else 0
