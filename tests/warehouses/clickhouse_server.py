"""ClickHouse's engine as a library (chDB) behind its HTTP interface: Debian has a server of 2018 only.

    python clickhouse_server.py PORT USER PASSWORD FOLDER TABLES

TABLES is a SQL text that makes the tables, run before the first request.
"""

from __future__ import annotations

import base64
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from urllib.parse import parse_qs, urlsplit


def main(port: str, user: str, password: str, folder: str, tables: str) -> None:
    """Serve on the loopback address until ended."""
    from chdb.session import Session  # only where it is installed: pytest imports every file for its examples

    session, lock = Session(folder), Lock()
    for statement in filter(str.strip, tables.split(";")):
        session.query(statement)
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.headers.get("authorization") != wanted:
                told = f"Code: 516. {user}: Authentication failed for {self.headers.get('authorization')}"
                return self._answer(403, told.encode(), {"X-ClickHouse-Exception-Code": "516"})
            asked = parse_qs(urlsplit(self.path).query)
            text = body.decode() or asked["query"][0]
            try:
                with lock:
                    found = session.query(text, asked.get("default_format", ["TabSeparated"])[0]).bytes()
            except Exception as error:  # whatever the engine says
                return self._answer(500, str(error).encode(), {"X-ClickHouse-Exception-Code": "62"})
            return self._answer(200, found, {})

        do_GET = do_POST  # noqa: N815

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
