"""A store that speaks as much S3 as a pull needs, over real HTTP, from a folder of snapshots; and does wrong as it is
told.

In front of what is asked for stand `Faults`: answers that trickle, break off or lie. It counts what it sends, so that a
test can tell what was fetched twice.
"""

from __future__ import annotations

import http.server
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PIECE = 64 << 10  # bytes written at once
TRICKLE = 4 * PIECE  # bytes/s
MISSING = b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>'


@dataclass
class Faults:
    bytes_a_second: float = 0  # of each answer; 0: as fast as it goes
    slow_from: int = 0  # only answers that begin here or later in their file are that slow
    resets: int = 0  # answers still to be broken off, each in the middle of its body
    # (file, begin) → answers still to trickle, to their end
    trickles: Counter[tuple[str, int]] = field(default_factory=Counter)
    lies: Counter[tuple[str, int]] = field(default_factory=Counter)  # (file, begin) → answers still to be wrong
    stopped: threading.Event = field(default_factory=threading.Event)  # set: nothing waits any more


class Store(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.faults, self.lock = folder, Faults(), threading.Lock()
        self.sent = 0  # bytes of bodies
        self.asked: Counter[tuple[str, int]] = Counter()  # (file, begin) → how often

    @property
    def environ(self) -> dict[str, str]:
        """What whoever is to use it needs in its environment; the bucket is `models`."""
        aws = {
            "AWS_ACCESS_KEY_ID": "t",
            "AWS_SECRET_ACCESS_KEY": "t",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return aws | {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_address[1]}",
            "PILOTLIGHT_SNAPSHOTS__ORIGIN": "s3://models",
        }

    def forget(self) -> None:
        """As it was at the start: no faults, nothing counted."""
        self.faults.stopped.set()
        self.faults, self.sent = Faults(), 0
        self.asked.clear()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Store

    def do_GET(self) -> None:
        store, faults = self.server, self.server.faults
        path = self.path.partition("?")[0].removeprefix("/models/")
        file = store.folder / path
        if not file.is_file():
            self._answer(404, MISSING)
            return
        content = file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        begin = int(asked[1]) if asked else 0
        content = content[begin : int(asked[2]) + 1] if asked else content
        with store.lock:
            store.asked[file.name, begin] += 1
            if faults.lies[file.name, begin] > 0:
                faults.lies[file.name, begin] -= 1
                content = bytes([content[0] ^ 1]) + content[1:]
            resets = faults.resets > 0 and len(content) > PIECE
            faults.resets -= resets
            trickles = faults.trickles[file.name, begin] > 0
            faults.trickles[file.name, begin] -= trickles
        rate = TRICKLE if trickles else faults.bytes_a_second if begin >= faults.slow_from else 0
        self._answer(206 if asked else 200, content, rate, stop_at=len(content) // 2 if resets else None)

    def _answer(self, status: int, content: bytes, bytes_a_second: float = 0, stop_at: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for at in range(0, len(content), PIECE):
            if stop_at is not None and at >= stop_at:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            piece = content[at : at + PIECE]
            try:
                self.wfile.write(piece)
            except OSError:
                self.close_connection = True
                return
            with self.server.lock:
                self.server.sent += len(piece)
            if bytes_a_second:
                self.server.faults.stopped.wait(len(piece) / bytes_a_second)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[Store]:
    """The store of the snapshots in `folder` (`snapshots/store/disk.py`), until the end."""
    with Store(folder) as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        try:
            yield store
        finally:
            store.faults.stopped.set()
            store.shutdown()
