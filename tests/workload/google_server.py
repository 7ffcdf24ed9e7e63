"""A small server of Google Cloud Storage's JSON API: what Arrow's client asks of the real one to read logs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 2  # files in one answer, so few that lists go on


@contextmanager
def google_server(files_by_bucket: Mapping[str, Mapping[str, bytes] | int]) -> Iterator[str]:
    """Serve files by bucket on the loopback address, and errors of buckets that have a status in place of files."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            split = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(split.query).items()}
            parts = [unquote(part) for part in split.path.split("/")]
            if "b" not in parts:  # XML API: /bucket/name
                parts = ["", "b", parts[1], "o", "/".join(parts[2:])]
                asked["alt"] = "media"
            at = parts.index("b")
            bucket, rest = parts[at + 1], parts[at + 2 :]
            files = files_by_bucket.get(bucket, 404)
            if isinstance(files, int):
                return self._answer(files, {"error": {"code": files, "message": "refused"}})
            if not rest:
                return self._answer(200, {"kind": "storage#bucket", "name": bucket})
            name = "/".join(rest[1:])
            if not name:
                names = sorted(one for one in files if one.startswith(asked.get("prefix", "")))
                first = int(asked.get("pageToken", 0))
                more = {"nextPageToken": f"{first + PAGE}"} if first + PAGE < len(names) else {}
                items = [_item(bucket, one, files[one]) for one in names[first : first + PAGE]]
                return self._answer(200, {"kind": "storage#objects", "items": items, **more})
            if name not in files:
                return self._answer(404, {"error": {"code": 404, "message": "none"}})
            if asked.get("alt") != "media":
                return self._answer(200, _item(bucket, name, files[name]))
            return self._send(200, files[name])

        def _answer(self, status: int, content: object) -> None:
            self._send(status, json.dumps(content).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", f"{len(body)}")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _item(bucket: str, name: str, body: bytes) -> dict[str, str]:
    return {
        "kind": "storage#object", "bucket": bucket, "name": name, "size": f"{len(body)}", "generation": "1",
        "updated": "2026-01-01T00:00:00Z", "timeCreated": "2026-01-01T00:00:00Z",
    }  # fmt: skip
