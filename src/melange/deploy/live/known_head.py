"""Heads that come again on a connection: all but the length is as it was, and need not be parsed again.

A client that keeps its connection sends the same fields with each request, and a replica the same with each answer.
What is compared is every byte; only the digits of Content-Length may be others.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

T = TypeVar("T")

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?(?=[0-9])")
# Digits of a length that are read; a body of more takes the way of the parser.
_MOST_DIGITS = 9


class KnownHead(Generic[T]):
    """A head that a parser has read, and what it was read as.

    Parameters
    ----------
    before, after
        Its bytes up to the digits of the length, and from behind them to the empty line that ends it.
    meaning
        What it was read as, without the length.
    """

    __slots__ = ("_after", "_before", "meaning")

    def __init__(self, before: bytes, after: bytes, meaning: T) -> None:
        self._before, self._after, self.meaning = before, after, meaning

    def body_of(self, data: bytes) -> bytes | None:
        """The body of a message that is all of some bytes and has this head; None where they are anything else."""
        before = self._before
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r", start, start + _MOST_DIGITS + 1)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(self._after, end):
            return None
        start = end + len(self._after)
        return data[start:] if len(data) - start == int(digits) else None


def known_head(data: bytes, meaning: T) -> KnownHead[T] | None:
    r"""The head at the beginning of some bytes, which has a length; None where it cannot be told so.

    >>> head = known_head(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nHost: a\r\n\r\n{}", "ours")
    >>> head.body_of(b"POST / HTTP/1.1\r\nContent-Length: 4\r\nHost: a\r\n\r\nnull")
    b'null'
    >>> head.body_of(b"POST / HTTP/1.1\r\nContent-Length: 4\r\nHost: b\r\n\r\nnull") is None
    True
    """
    end = data.find(b"\r\n\r\n")
    found = _LENGTH.search(data, 0, end) if end >= 0 else None
    if found is None:
        return None
    digits = found.end()
    return KnownHead(data[:digits], data[data.index(b"\r", digits) : end + 4], meaning)
