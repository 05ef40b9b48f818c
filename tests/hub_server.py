"""A hub for tests: a server on loopback that speaks as much of the Hugging Face Hub's API as huggingface_hub asks for,
and can fail on purpose.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LFS = (".safetensors", "tokenizer.json", ".bin", ".gguf")  # ends of files that a hub keeps by their SHA-256


@dataclass
class Hub:
    """`files`: path → content of `repo` at `commit`. What is asked is kept in `asked`; the rest are ways to fail."""

    repo: str
    files: dict[str, bytes]
    commit: str = "c0ffee" + "0" * 34
    licence: str = "apache-2.0"
    url: str = ""
    token: str = ""  # who does not have it is refused
    gated: bool = False
    cut: dict[str, int] = field(default_factory=dict)  # path → bytes after which its first download breaks
    instead: dict[str, bytes] = field(default_factory=dict)  # path → what comes in its place
    status: int = 0  # every answer
    body: bytes | None = None  # of every answer of the API
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range

    def downloads(self) -> list[str]:
        return [
            path.split(f"/resolve/{self.commit}/")[1]
            for method, path, _ in self.asked
            if method == "GET" and "/resolve/" in path
        ]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.hub, self.path.split("?")[0]
        hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if hub.status:
            self._send(hub.status, b"no")
        elif hub.gated:
            self._send(403, b"no", {"X-Error-Code": "GatedRepo"})
        elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._send(401, b"no", {"X-Error-Code": "RepoNotFound"})
        elif path.startswith(f"/api/models/{hub.repo}"):
            self._api(path.removeprefix(f"/api/models/{hub.repo}"))
        elif found := re.fullmatch(f"/{hub.repo}/resolve/([^/]+)/(.+)", path):
            self._file(found[1], found[2])
        else:
            self._send(404, b"no", {"X-Error-Code": "RepoNotFound"})

    def _api(self, rest: str) -> None:
        hub = self.hub
        revision = rest.rpartition("/")[2]
        if rest and revision not in ("main", hub.commit):
            self._send(404, b"no", {"X-Error-Code": "RevisionNotFound"})
        elif hub.body is not None:
            self._send(200, hub.body, {"Content-Type": "application/json"})
        elif rest.startswith("/tree/"):
            self._json([_entry(path, content) for path, content in hub.files.items()])
        else:
            card = {"license": hub.licence}
            self._json(
                {"id": hub.repo, "sha": hub.commit, "tags": [], "cardData": card, "siblings": [], "private": False}
            )

    def _file(self, revision: str, path: str) -> None:
        hub = self.hub
        if revision not in ("main", hub.commit) or path not in hub.files:
            self._send(404, b"no", {"X-Error-Code": "EntryNotFound"})
            return
        content = hub.instead.get(path, hub.files[path])
        head = {"ETag": f'"{_etag(path, hub.files[path])}"', "X-Repo-Commit": hub.commit, "Accept-Ranges": "bytes"}
        begin = int(found[1]) if (found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        if begin:
            head["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        cut = hub.cut.pop(path, None) if self.command == "GET" else None
        self._send(206 if begin else 200, content[begin:], head, cut)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True


def _etag(path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if path.endswith(LFS) else git_hash(content)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
    if path.endswith(LFS):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry
