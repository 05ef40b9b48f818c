"""An object store over loopback HTTP, as fast as the kernel: the part of S3 a pull needs, from a folder of snapshots,
read only.

    python -m loadtests.bench.object_store FOLDER BYTES_A_SECOND PORT

It is a process of its own and sends files with `sendfile`, so that the fetching is measured, not the serving. Its pace
holds for all connections together; 0: as fast as it goes. Signatures are not looked at; there is one bucket, `models`.
"""

from __future__ import annotations

import http.server
import os
import re
import sys
import threading
import time
from pathlib import Path

BUCKET = "models"
PIECE = 1 << 20  # bytes sent at once
MISSING = b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>'


class Store(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, bytes_a_second: float, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.folder, self._pace = folder, bytes_a_second
        self._lock, self._free_at = threading.Lock(), 0.0  # when the line is free again

    def wait_for_the_line(self, size: int) -> None:
        """Return when `size` bytes may be sent."""
        if self._pace:
            with self._lock:
                begin = max(self._free_at, time.monotonic())
                self._free_at = begin + size / self._pace
            time.sleep(max(0.0, begin - time.monotonic()))


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
        while begin < end:
            piece = min(PIECE, end - begin)
            self.server.wait_for_the_line(piece)
            begin += os.sendfile(self.connection.fileno(), descriptor, begin, piece)

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    Store(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])).serve_forever()
