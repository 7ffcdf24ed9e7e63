"""Chunks of a stream in the form in which servers write them: they are forwarded without the parser."""

from __future__ import annotations

# Largest content of a plain chunk [bytes]. A chunk with one token has a few hundred bytes; larger chunks go through the
# parser.
_MOST_BYTES = 2047
# First lines and the sizes that they mean, in lower case (%x) and upper case (%X).
_SIZES = {text: size for size in range(1, _MOST_BYTES + 1) for text in (b"%x" % size, b"%X" % size)}
_END = b"\n\r\n"  # a chunk of whole lines ends with a line end of its own


def _first_lines() -> list[tuple[bytes, ...]]:
    """The first lines that a plain chunk may have, by the length of the whole chunk."""
    longest = max(len(text) + size + 4 for text, size in _SIZES.items())
    lines: list[tuple[bytes, ...]] = [()] * (longest + 1)
    for text, size in _SIZES.items():
        lines[len(text) + size + 4] += (text + b"\r\n",)
    return lines


_FIRST_LINES = _first_lines()
_LENGTHS = len(_FIRST_LINES)


def are_lines(data: bytes) -> bool:
    r"""Whether the bytes are whole, plain chunks of whole lines, without the last chunk of a body.

    >>> are_lines(b"4\r\nabc\n\r\n3\r\nde\n\r\n"), are_lines(b"4\r\nabc\n\r\n2\r\nde\r\n"), are_lines(b"0\r\n\r\n")
    (True, False, False)
    """
    length = len(data)
    if length < _LENGTHS and data.startswith(_FIRST_LINES[length]):  # one chunk, as it seems
        return data.endswith(_END)
    at = 0
    while at < length:
        end = data.find(b"\r\n", at, at + 6)
        size = _SIZES.get(data[at:end])
        if size is None:
            return False
        at = end + size + 4
        if data[at - 3 : at] != _END:
            return False
    return True
