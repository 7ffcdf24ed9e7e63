"""A replica that answers with bytes as they are written down, and keeps connections open."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Self

WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class ScriptedReplica:
    """Calls a function with each request, and the number of requests before it on the connection; b"" closes it."""

    def __init__(self, answer: Callable[[bytes, int], bytes], tls: ssl.SSLContext | None = None) -> None:
        self.answer, self.tls = answer, tls
        self.requests: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"{'https://localhost' if tls else 'http://127.0.0.1'}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        count = 0
        try:
            if self.tls is not None:
                client = self.tls.wrap_socket(client, server_side=True)
            with client:
                while request := read_request(client):
                    if request.startswith(b"GET /health"):
                        client.sendall(WELL)
                        continue
                    self.requests.append(request)
                    answer = self.answer(request, count)
                    count += 1
                    if not answer:
                        return
                    client.sendall(answer)
                    if b"Connection: close" in answer:
                        return
        except OSError:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()


def read_request(client: socket.socket) -> bytes:
    """One request; nothing where the connection has ended."""
    data = b""
    while True:
        piece = client.recv(65536)
        if not piece:
            return b""
        data += piece
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and len(body) >= (int(length[1]) if length else 0):
            return data
