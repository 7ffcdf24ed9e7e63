"""Heads of replicas' answers that are framed as HTTP/1.1 asks for, and no others.

The client library reads what it can make sense of: lines that end in a bare line feed, fields that go on in the next
line. What is a field to one reader is none to another, so that through a proxy that passes such heads on a replica says
different things to those behind it (RFC 9112, sections 2.2 and 5.2).
"""

from __future__ import annotations

import asyncio
import functools
import re
from typing import Any

from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import TCPConnector
from aiohttp.http_exceptions import BadHttpMessage

_END = b"\r\n\r\n"
# A line feed or a carriage return by itself, a line that goes on the one before, a byte that ends texts elsewhere.
_UNFIT = re.compile(rb"(?<!\r)\n|\r(?!\n)|\r\n[ \t]|\x00")
# Bytes of a head; the client library refuses lines of 8,190.
_MOST_BYTES = 1 << 16


class _Handler(ResponseHandler):
    """The client library's reader of one connection, behind a look at each head."""

    _head: bytes | None = None

    def set_response_params(self, **settings: Any) -> None:
        """An answer is waited for."""
        self._head = b""
        super().set_response_params(**settings)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._head is not None and data:
            self._head += data
            # A CR at the very end may be followed by its LF.
            head, end, _ = self._head.partition(_END)
            if _UNFIT.search(head if end else head.removesuffix(b"\r")) or len(head) > _MOST_BYTES:
                if self.transport is not None:
                    self.transport.close()
                self.set_exception(BadHttpMessage("a response head that is not valid HTTP"))
                return
            if end:
                self._head = None
        super().data_received(data)


def connector(**settings: Any) -> TCPConnector:
    """Connections to replicas, whose answers are looked at."""
    made = TCPConnector(**settings)
    # There is no public way to give it a reader of its own.
    made._factory = functools.partial(_Handler, loop=asyncio.get_running_loop())  # type: ignore[assignment] # a subclass
    return made
