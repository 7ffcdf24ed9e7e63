"""What is passed on without the parser is what the parser would have passed on."""

from __future__ import annotations

import random
import re

import pytest

from melange.deploy.live.answers import UnservedError
from melange.deploy.live.completion import Completion
from melange.deploy.live.known_head import known_head
from melange.deploy.live.link import Link
from melange.deploy.live.receive import Receiver, Request

BODIES = (b"", b"{}", b'{"prompt": "a"}', b"POST / HTTP/1.1\r\n\r\n")
FIELDS = (
    b"", b"X-Id: 1\r\n", b"X-Id: 2\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"X : 1\r\n",
    b" x\r\n", b"Expect: 100-continue\r\n", b"Content-Encoding: gzip\r\n", b"Content-Length: 2\r\n",
    b"Upgrade: h2c\r\n",
)  # fmt: skip


def message(draw: random.Random, head: list[bytes]) -> bytes:
    """A request, mostly a good one, with a length that may be wrong or written in another way; often the last head."""
    body = draw.choice(BODIES)
    length = draw.choice((b"%d" % len(body),) * 9 + (b"0%d" % len(body), b"%d" % (len(body) + 1), b"+1", b"1_0", b""))
    name = draw.choice((b"Content-Length: ", b"content-length:", b"CONTENT-LENGTH: "))
    first = draw.choice((b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n",) * 9 + (b"POST /a HTTP/1.0\r\n",))
    before, after = draw.choice(FIELDS[:3] * 9 + FIELDS), draw.choice((b"",) * 9 + FIELDS)
    if not head or draw.random() < 0.3:
        head[:] = [first + before + name, b"\r\n" + after + b"\r\n"]
    return head[0] + length + head[1] + body


def outcomes(receiver: Receiver) -> list[object]:
    """What has become of what was fed."""
    found: list[object] = []
    while receiver.ready:
        one = receiver.ready.popleft()
        if isinstance(one, Request):
            found.append((one.method, one.target, one.fields.passed_on(), one.body, one.keeps_alive, one.expects))
        else:
            found.append(one.answer.status)
    return found


def test_requests_on_a_kept_connection_are_those_on_connections_of_their_own() -> None:
    """Over random messages, of which many have a head that came before: the same request, or the same refusal."""
    draw, again = random.Random(8), 0
    for _ in range(800):
        kept, head = Receiver(lambda _: None, 64), list[bytes]()
        while True:
            data, alone = message(draw, head), Receiver(lambda _: None, 64)
            again += kept._known is not None and kept._known.body_of(data) is not None
            kept.feed(data)
            alone.feed(data)
            found = outcomes(kept)
            assert found == outcomes(alone), data
            assert (kept.stage, kept.is_deaf) == (alone.stage, alone.is_deaf)
            if kept.is_deaf or kept.stage or not found:
                break
    assert again > 100


def test_a_key_is_asked_for_each_time() -> None:
    """A head that was let in before is refused when its key no longer counts."""
    is_open = [True]

    def admit(request: Request) -> None:
        from melange.deploy.live.answers import error

        if not is_open[0]:
            raise UnservedError(error(401, "no"), "unauthorized")

    receiver = Receiver(admit, 64)
    data = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    for wanted in (True, True, False):
        is_open[0] = wanted
        receiver.feed(data)
        found = outcomes(receiver)
        assert (found == [401]) is not wanted
    assert receiver.is_deaf


class Transport:
    """Takes all that is written."""

    def __init__(self) -> None:
        self.is_over = False

    def write(self, data: bytes) -> None:
        """Nothing becomes of it."""

    def abort(self) -> None:
        """It has gone."""
        self.is_over = True

    def is_closing(self) -> bool:
        """Whether it has gone."""
        return self.is_over

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0


class Taker:
    """Joins what it gets, with or without chunks as they came."""

    def __init__(self, relays: bool) -> None:
        self.relays, self.content, self.end, self.relayed = relays, b"", "", 0

    def answered(self, link: Link, piece: bytes, is_last: bool) -> None:
        """A piece."""
        self.content += piece
        if is_last:
            self.end = f"whole {link.status}"
        elif self.relays and link.is_chunked:
            link.relay = self._relayed

    def _relayed(self, chunks: bytes) -> None:
        self.relayed += 1
        assert not self.content or self.content.endswith(b"\n")
        while chunks:
            size, _, rest = chunks.partition(b"\r\n")
            assert re.fullmatch(rb"[0-9a-fA-F]+", size)
            assert rest[int(size, 16) :].startswith(b"\r\n")
            content, chunks = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
            assert content.endswith(b"\n")
            self.content += content

    def broken(self, link: Link, why: str) -> None:
        """It is not whole."""
        self.end = "broken"


def chunk(draw: random.Random) -> bytes:
    """A chunk, mostly one as servers write them."""
    content = draw.choice((b"data: 1\n\n", b"\r\n", b"5\r\nabcde\r\n", b"\n", b"0\r\n\r\n", b"x" * 300))
    size = b"%x" % len(content)
    line = draw.choice(
        (size,) * 30 + (size.upper(), b"0" + size, size + b";a=b", b"0x" + size, size + b" ", b"", b"zz")
    )
    return line + draw.choice((b"\r\n",) * 30 + (b"\n",)) + content + draw.choice((b"\r\n",) * 60 + (b"\n", b""))


@pytest.mark.parametrize("is_cut", [False, True])
def test_streams_are_the_same_with_and_without_the_parser(is_cut: bool) -> None:
    """Over random chunks, sound and broken, in pieces as they were made or cut anywhere."""
    draw, relayed, kinds = random.Random(3 + is_cut), 0, set()
    for _ in range(1500):
        chunks = [chunk(draw) for _ in range(draw.randrange(1, 9))] + [b"0\r\n\r\n"]
        pieces = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *chunks]
        if is_cut:
            whole, pieces = pieces, []
            for piece in whole:
                at = 0
                while at < len(piece):
                    size = draw.choice((1, 2, 7, 40, 400, 400, 400))
                    pieces.append(piece[at : at + size])
                    at += size
            for place in reversed(range(1, len(pieces))):
                if draw.random() < 0.3:
                    pieces[place - 1 : place + 1] = [b"".join(pieces[place - 1 : place + 1])]
        takers = Taker(relays=True), Taker(relays=False)
        for taker in takers:
            link = Link(lambda _: None)
            link.connection_made(Transport())  # type: ignore[arg-type] # as much of one as it needs
            link.ask(taker, b"", b"")
            for piece in pieces:
                link.data_received(piece)
                if taker.end:
                    break
        assert takers[0].end == takers[1].end, pieces
        # Of an answer that breaks, less may have been taken by whole pieces than byte by byte.
        if takers[0].end == "broken":
            assert takers[1].content.startswith(takers[0].content) or takers[0].content.startswith(takers[1].content)
        else:
            assert takers[0].content == takers[1].content, pieces
        relayed += takers[0].relayed
        kinds.add(takers[0].end)
    assert relayed > 500
    assert kinds >= {"whole 200", "broken"}


class Counter(Taker):
    """Counts tokens as an exchange does: whole chunks of whole lines as they came, all else by its content."""

    def __init__(self, relays: bool) -> None:
        super().__init__(relays)
        self.completion, self.now_s = Completion(is_stream=True), 0.0

    def answered(self, link: Link, piece: bytes, is_last: bool) -> None:
        """A piece."""
        super().answered(link, piece, is_last)
        self.completion.note(piece, self.now_s)

    def _relayed(self, chunks: bytes) -> None:
        super()._relayed(chunks)
        self.completion.pieces.append(chunks)
        self.completion.pieces_s.append(self.now_s)


def test_tokens_are_counted_the_same_with_and_without_the_parser() -> None:
    """Of random events in random chunks, of which some end within a line: the same numbers, times and usage."""
    draw, relayed = random.Random(5), 0
    kinds = ("text", "content", "reasoning_content")
    for _ in range(400):
        key = draw.choice(kinds)
        chunks = []
        for _ in range(draw.randrange(1, 90)):
            key = draw.choice(kinds) if draw.random() < 0.05 else key
            chunks.append(b'data: {"%b": "\\r\\n%b"}\n\n' % (key.encode(), b"w" * draw.randrange(30)))
        if draw.random() < 0.5:
            chunks.append(b'data: {"usage": {"prompt_tokens": 7, "completion_tokens": %d}}\n\n' % draw.randrange(1, 99))
        chunks.append(b"data: [DONE]\n\n")
        for place in reversed(range(len(chunks))):
            if draw.random() < 0.1:  # a chunk that ends within a line, and one that begins there
                at = draw.randrange(1, len(chunks[place]))
                chunks[place : place + 1] = [chunks[place][:at], chunks[place][at:]]
        pieces = [b"%x\r\n%b\r\n" % (len(one), one) for one in chunks]
        for place in reversed(range(1, len(pieces))):
            if draw.random() < 0.1:
                pieces[place - 1 : place + 1] = [pieces[place - 1] + pieces[place]]
        found = []
        for relays in (True, False):
            taker, link = Counter(relays), Link(lambda _: None)
            link.connection_made(Transport())  # type: ignore[arg-type]
            link.ask(taker, b"", b"")
            for piece in (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *pieces, b"0\r\n\r\n"):
                taker.now_s += 1.0
                link.data_received(piece)
            done = taker.completion
            found.append((taker.end, done.chunks, done.first_s, done.last_s, done.output_tokens, done.input_tokens))
            relayed += taker.relayed
        assert found[0] == found[1], pieces
        assert found[0][0] == "whole 200"
    assert relayed > 5000


def test_a_length_of_any_number_of_digits_is_known() -> None:
    """Unless its own digits are not the shortest, or a digit more than those of the bytes after the head."""
    first = b"POST /%41 HTTP/1.1\r\nContent-Length: "
    head = known_head(first + b"3\r\nX: 100%d\r\n\r\n{ }", "ours")
    assert head is not None
    known = 0
    for size in (*range(1200), 12_345, 123_456, 2**24):
        body = b"x" * size
        for digits in (b"%d" % size, b"0%d" % size, b"%d" % (size + 1), b"-%d" % size, b"", b"+%d" % size):
            found = head.body_of(first + digits + b"\r\nX: 100%d\r\n\r\n" + body)
            assert found in ({None, body} if digits == b"%d" % size else {None})
            known += found is not None
    assert known > 1195


def test_answers_on_a_kept_link_are_those_on_links_of_their_own() -> None:
    """Heads that come again, with other lengths, other fields, more than was asked for, or less."""
    heads = (
        b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\nX: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\nX: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: %b\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: %b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\nContent-Length: 2\r\n\r\n",
    )
    draw, again = random.Random(4), 0
    for _ in range(400):
        kept = Link(lambda _: None)
        kept.connection_made(Transport())  # type: ignore[arg-type]
        while True:
            body = draw.choice((b"{}", b'{"a": 1}', b""))
            size = draw.choice((b"%d" % len(body),) * 20 + (b"%d" % (len(body) + 2), b"+2", b"0%d" % len(body)))
            data = draw.choice(heads[:2] * 4 + heads) % size + body + draw.choice((b"",) * 20 + (b"HTTP/1.1 200 OK",))
            again += kept._known is not None and kept._known.body_of(data) is not None
            found = []
            alone = Link(lambda _: None)
            alone.connection_made(Transport())  # type: ignore[arg-type]
            for link in (kept, alone):
                taker = Taker(relays=False)
                link.ask(taker, b"", b"")
                link.data_received(data)
                lines = link.fields.passed_on() if taker.end.startswith("whole") else b""
                found.append((taker.end, taker.content, lines, link.transport.is_closing()))
            assert found[0] == found[1], data
            if kept.transport.is_closing() or not found[0][0]:
                break
    assert again > 300
