"""A loopback server of files, faults included."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What is served: bytes by path; or a status, or a fault, in their place."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)  # announce more than they send
    moved: dict[str, str] = field(default_factory=dict)  # redirections
    silent: set[str] = field(default_factory=set)  # never answered
    asked: list[str] = field(default_factory=list)

    def put(self, path: str, content: str | bytes) -> None:
        """Serve a file."""
        self.files[path] = content.encode() if isinstance(content, str) else content


@contextmanager
def serving() -> Iterator[Site]:
    """A server that runs while its site is used."""
    site, done = Site(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            path = self.path.lstrip("/")
            if path in site.silent:
                done.wait()
                return
            if path in site.moved:
                self.send_response(302)
                self.send_header("Location", site.moved[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = site.files.get(path, b"")
            status = site.statuses.get(path, 200 if path in site.files else 404)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) + (100 if path in site.broken else 0)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        done.set()
        server.shutdown()
        server.server_close()
        thread.join()
