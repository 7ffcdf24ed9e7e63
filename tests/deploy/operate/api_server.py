"""A small Kubernetes API server over HTTP on loopback: Deployments with scale, pods, ConfigMaps, routes and Leases.

Pods follow the replicas that their Deployment asks for: they start, are ready when told so, and go when they are too
many. Writes with an old resource version are refused with 409, as by the real one.
"""

from __future__ import annotations

import itertools
import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments"
PODS = "/api/v1/namespaces/{}/pods"
MAPS = "/api/v1/namespaces/{}/configmaps"
ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
_LISTS = {DEPLOYMENTS: "DeploymentList", PODS: "PodList"}


class ApiServer:
    """Objects by path, and what was done to them."""

    def __init__(self, namespace: str = "default") -> None:
        self.namespace = namespace
        self.objects: dict[str, dict[str, Any]] = {}
        self.writes: list[tuple[str, str, Any]] = []
        self.refuses: set[str] = set()  # paths that are answered with 403
        self._version, self._pod = itertools.count(1), itertools.count(1)
        self._lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def add(self, kind: str, content: dict[str, Any]) -> dict[str, Any]:
        """An object as a user applies it."""
        with self._lock:
            path = f"{kind.format(self.namespace)}/{content['metadata']['name']}"
            content["metadata"] = {"creationTimestamp": _now(), **content["metadata"]}
            self._store(path, content)
            return content

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object as it is now."""
        return self.objects[f"{kind.format(self.namespace)}/{name}"]

    def make_ready(self) -> None:
        """Let pods that start become ready."""
        with self._lock:
            for one in self._pods():
                if one["status"]["phase"] == "Pending":
                    one["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}

    def finish_going(self) -> None:
        """Let pods that go be gone."""
        with self._lock:
            for path, one in list(self.objects.items()):
                if one["metadata"].get("deletionTimestamp"):
                    del self.objects[path]

    def break_pods(self, reason: str) -> None:
        """Let pods that start fail."""
        with self._lock:
            for one in self._pods():
                if one["status"]["phase"] == "Pending":
                    waiting = {"name": "e", "image": "i", "imageID": "", "ready": False, "restartCount": 3,
                               "state": {"waiting": {"reason": reason}}}  # fmt: skip
                    one["status"] = {"phase": "Pending", "containerStatuses": [waiting]}

    def _pods(self) -> list[dict[str, Any]]:
        place = PODS.format(self.namespace)
        return [one for path, one in self.objects.items() if path.startswith(f"{place}/")]

    def reconcile(self) -> None:
        """What the Deployment controller does."""
        for path, one in list(self.objects.items()):
            if not path.startswith(DEPLOYMENTS.format(self.namespace)):
                continue
            name, wanted = one["metadata"]["name"], one["spec"].get("replicas", 1)
            own = [
                pod
                for pod in self._pods()
                if pod["metadata"]["generateName"] == f"{name}-" and not pod["metadata"].get("deletionTimestamp")
            ]
            for _ in range(wanted - len(own)):
                self.add(
                    PODS,
                    {
                        "apiVersion": "v1", "kind": "Pod",
                        "metadata": {
                            "name": f"{name}-{next(self._pod)}",
                            "generateName": f"{name}-",
                            "labels": one["spec"]["template"]["metadata"]["labels"],
                        },
                        "spec": {"containers": [{"name": "e", "image": "i"}]},
                        "status": {"phase": "Pending"},
                    },
                )  # fmt: skip
            own.sort(key=lambda pod: pod["status"]["phase"] == "Running")
            for pod in own[: max(0, len(own) - wanted)]:
                pod["metadata"] |= {"deletionTimestamp": _now(), "deletionGracePeriodSeconds": 0}

    def _store(self, path: str, content: dict[str, Any]) -> None:
        content["metadata"]["resourceVersion"] = str(next(self._version))
        content["metadata"]["namespace"] = self.namespace
        self.objects[path] = content
        self.reconcile()

    def answer(self, method: str, path: str, query: str, body: Any) -> tuple[int, Any]:
        """A status and an object."""
        with self._lock:
            if path in self.refuses:
                return 403, _status(403, "Forbidden")
            if method == "GET":
                return self._read(path, query)
            self.writes.append((method, path, body))
            return self._write(method, path, body)

    def _read(self, path: str, query: str) -> tuple[int, Any]:
        for kind, name in _LISTS.items():
            if path.startswith(kind.partition("{}")[0]) and path.endswith(kind.partition("{}")[2]):
                wanted = dict(pair.split("=") for pair in _selector(query) if pair)
                found = [
                    one
                    for where, one in self.objects.items()
                    if where.startswith(f"{path}/") and wanted.items() <= one["metadata"].get("labels", {}).items()
                ]
                return 200, {"kind": name, "apiVersion": "v1", "metadata": {}, "items": found}
        return (200, self.objects[path]) if path in self.objects else (404, _status(404, "NotFound"))

    def _write(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "POST":
            place = f"{path}/{body['metadata']['name']}"
            if place in self.objects:
                return 409, _status(409, "AlreadyExists")
            self._store(place, body)
            return 201, body
        is_scale = path.endswith("/scale")
        place = path.removesuffix("/scale")
        if place not in self.objects:
            return 404, _status(404, "NotFound")
        one = self.objects[place]
        given = (body.get("metadata") or {}).get("resourceVersion")
        if given is not None and given != one["metadata"]["resourceVersion"]:
            return 409, _status(409, "Conflict")
        if is_scale:
            one["spec"]["replicas"] = body["spec"]["replicas"]
        elif method == "PUT":
            one = {**body, "metadata": {**one["metadata"], **body["metadata"]}}
        else:
            _merge(one, body)
        self._store(place, one)
        if is_scale:
            return 200, {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": one["metadata"],
                         "spec": {"replicas": one["spec"]["replicas"]}}  # fmt: skip
        return 200, one


class _Handler(BaseHTTPRequestHandler):
    server_of: ApiServer
    protocol_version = "HTTP/1.1"

    def _do(self) -> None:
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        status, content = self.server_of.answer(self.command, path, query, body)
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = _do  # noqa: N815 # names that the library asks for

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _selector(query: str) -> list[str]:
    from urllib.parse import parse_qs

    return parse_qs(query).get("labelSelector", [""])[0].split(",")


def _merge(old: dict[str, Any], new: dict[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            _merge(old[key], value)
        else:
            old[key] = value


def _status(code: int, reason: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
