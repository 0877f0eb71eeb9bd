"""The API of a Kubernetes, at the wire: what lists, gets, watches and scales, and who may; nothing runs behind it.

After the published API (kubernetes.io/docs/reference/kubernetes-api): lists by label selector, `scale` as a
subresource that merge patches change, watches as one JSON event a line, failures as objects of kind Status.
"""

from __future__ import annotations

import base64
import json
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

GROUPS = {
    "deployments": "apps/v1",
    "horizontalpodautoscalers": "autoscaling/v2",
    "endpointslices": "discovery.k8s.io/v1",
    "pods": "v1",
    "secrets": "v1",
}
OPERATOR = {
    ("list", "deployments"),
    ("list", "pods"),
    ("list", "horizontalpodautoscalers"),
    ("patch", "deployments/scale"),
}
"""What the Role for operators of the chart grants."""
NAMESPACE = "data"
TOKEN = "an-operator"


class Api:
    """What is there, and what was asked, as (verb, resource)."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {resource: {} for resource in GROUPS}
        self.asked: list[tuple[str, str]] = []
        self.refused: set[tuple[str, str]] = set()
        """What the caller has no right to."""
        self.watchers: list[queue.SimpleQueue[dict[str, Any] | None]] = []
        self.events: list[dict[str, Any]] = []
        """Of endpoint slices; the resource version of a list is how many there were."""
        self._lock = threading.Lock()
        self.url = ""

    def put(self, resource: str, name: str, labels: Mapping[str, str] = {}, **content: Any) -> None:
        """Make or replace an object; watchers of endpoint slices are told."""
        metadata = {"name": name, "namespace": NAMESPACE, "labels": dict(labels), "resourceVersion": "1"}
        kind = "MODIFIED" if name in self.objects[resource] else "ADDED"
        self.objects[resource][name] = {"metadata": metadata, **content}
        self._tell(resource, kind, self.objects[resource][name])

    def remove(self, resource: str, name: str) -> None:
        """Delete an object."""
        self._tell(resource, "DELETED", self.objects[resource].pop(name))

    def secret(self, name: str, **values: str) -> None:
        """Make a secret."""
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self.put("secrets", name, data=data)

    def kubeconfig(self, folder: Path, token: str = TOKEN) -> Path:
        """A file that says how to call it."""
        path = folder / "kubeconfig"
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": NAMESPACE}}],
        }
        path.write_text(yaml.safe_dump(text))
        return path

    def _tell(self, resource: str, kind: str, what: dict[str, Any]) -> None:
        if resource == "endpointslices":
            with self._lock:
                self.events.append({"type": kind, "object": what})
                for watcher in self.watchers:
                    watcher.put(self.events[-1])

    @contextmanager
    def watching(self, since: int) -> Iterator[queue.SimpleQueue[dict[str, Any] | None]]:
        """What happened since a list, and what happens from now on; None is the end."""
        found: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        with self._lock:
            for event in self.events[since:]:
                found.put(event)
            self.watchers.append(found)
        yield found
        self.watchers.remove(found)

    def hang_up(self) -> None:
        """End all watches, as an API server does from time to time."""
        for watcher in list(self.watchers):
            watcher.put(None)


def _selected(what: Mapping[str, Any], selector: str) -> bool:
    wanted = dict(term.split("=", 1) for term in selector.split(",") if term)
    labels = what["metadata"]["labels"]
    return all(labels.get(name) == value for name, value in wanted.items())


class _Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """List, get or watch."""
        resource, name, rest, query = self._parsed()
        api = self.api
        if query.get("watch"):
            return self._watch(query) if self._may("watch", resource) else None
        verb = "get" if name else "list"
        if not self._may(verb, "/".join((resource, *rest))):
            return None
        if not name:
            items = [o for o in api.objects[resource].values() if _selected(o, query.get("labelSelector", ""))]
            return self._answer(200, {"metadata": {"resourceVersion": f"{len(api.events)}"}, "items": items})
        if name not in api.objects[resource]:
            return self._status(404, "NotFound", f'{resource} "{name}" not found')
        return self._answer(200, api.objects[resource][name])

    def do_PATCH(self) -> None:
        """Change a scale."""
        resource, name, rest, _ = self._parsed()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._may("patch", "/".join((resource, *rest))):
            return
        assert rest == ["scale"]
        wanted = body["spec"]["replicas"]
        self.api.objects[resource][name]["spec"]["replicas"] = wanted
        self._answer(200, {"metadata": {"name": name}, "spec": {"replicas": wanted}})

    def _parsed(self) -> tuple[str, str, list[str], dict[str, str]]:
        url = urlsplit(self.path)
        before, _, behind = url.path.partition(f"/namespaces/{NAMESPACE}/")
        resource, name, *rest = [*behind.split("/"), ""]
        if rest:
            rest.pop()
        assert before.removeprefix("/apis/").removeprefix("/api/") == GROUPS[resource], url.path
        return resource, name, rest, {key: values[0] for key, values in parse_qs(url.query).items()}

    def _may(self, verb: str, resource: str) -> bool:
        self.api.asked.append((verb, resource))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._status(401, "Unauthorized", "Unauthorized")
        elif (verb, resource) in self.api.refused:
            self._status(403, "Forbidden", f'{resource} is forbidden: User "me" cannot {verb} resource "{resource}"')
        else:
            return True
        return False

    def _watch(self, query: Mapping[str, str]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with self.api.watching(int(query["resourceVersion"])) as events:
            while (event := events.get()) is not None:
                if _selected(event["object"], query.get("labelSelector", "")):
                    line = json.dumps(event).encode() + b"\n"
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                    self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _status(self, code: int, reason: str, message: str) -> None:
        self._answer(code, {"kind": "Status", "code": code, "reason": reason, "message": message})

    def _answer(self, code: int, said: Mapping[str, Any]) -> None:
        text = json.dumps(said).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def running() -> Iterator[Api]:
    """One on loopback, until the block is left."""
    api = Api()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        api.hang_up()
        server.shutdown()
        server.server_close()
        thread.join()
