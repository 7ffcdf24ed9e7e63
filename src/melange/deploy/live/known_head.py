"""Cache of heads that repeat on a connection: if only the length differs, a head is not parsed again.

A client that keeps its connection sends the same fields with each request, and a replica with each response. Every byte
is compared; only the digits of Content-Length may differ.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

T = TypeVar("T")

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?(?=[0-9])")


class KnownHead(Generic[T]):
    """A head that was parsed, and the result.

    Parameters
    ----------
    before, after
        Bytes before the digits of the length, and from after them to the empty line that ends the head.
    meaning
        The result of parsing, without the length.
    """

    __slots__ = ("_bytes", "_form", "meaning")

    def __init__(self, before: bytes, after: bytes, meaning: T) -> None:
        self._form = b"%b%%d%b" % (before.replace(b"%", b"%%"), after.replace(b"%", b"%%"))
        self._bytes, self.meaning = len(before) + len(after), meaning

    def body_of(self, data: bytes) -> bytes | None:
        """The body if the bytes are exactly one message with this head; otherwise None.

        A few lengths that have a digit more than their bytes and digits together seem to have go through the parser.
        """
        size = len(data) - self._bytes  # of the digits and the body
        size -= len(str(size))
        if size < 0:
            return None
        head = self._form % size
        return data[len(head) :] if len(head) + size == len(data) and data.startswith(head) else None


def known_head(data: bytes, meaning: T) -> KnownHead[T] | None:
    r"""The head at the beginning of the bytes, which must contain a length; None if it has no simple form.

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
