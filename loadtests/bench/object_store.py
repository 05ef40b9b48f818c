"""An object store over loopback HTTP, as fast as the kernel: the part of S3 a pull needs, from a folder of snapshots, read only.

    python -m loadtests.bench.object_store FOLDER PORT

It is a process of its own, and sends files with `sendfile`, so that what is measured is who fetches, not who serves. Signatures
are not looked at; there is one bucket, `models`.
"""

from __future__ import annotations

import http.server
import os
import re
import sys
from pathlib import Path

BUCKET = "models"
MISSING = b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>'


class Store(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.folder = folder


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Store

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].removeprefix(f"/{BUCKET}/")
        try:
            descriptor = os.open(self.server.folder / name, os.O_RDONLY)
        except OSError:
            self._head(404, len(MISSING))
            self.wfile.write(MISSING)
            return
        try:
            self._send(descriptor)
        finally:
            os.close(descriptor)

    def _send(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        begin, end = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
        self._head(206 if asked else 200, end - begin)
        self.wfile.flush()
        while begin < end and (sent := os.sendfile(self.connection.fileno(), descriptor, begin, end - begin)):
            begin += sent

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    Store(Path(sys.argv[1]), int(sys.argv[2])).serve_forever()
