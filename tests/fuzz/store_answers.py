"""What an object store answers to a request for a part of an object, where `snapshots/store/direct.py` reads it by
itself: the part, whole, or None.
"""

from __future__ import annotations

import http.client
import io
from typing import Any, cast

from snapshots.store.direct import Direct, Reading

HEAD = b"HTTP/1.1 206 Partial Content\r\n"
PART = 64
SEEDS = (
    HEAD + b"content-length: 4\r\ncontent-range: bytes 0-3/4\r\n\r\nabcd",
    HEAD + b"content-length: 64\r\n\r\n" + bytes(64),
    HEAD + b"content-length: 99\r\n\r\n" + bytes(99),
    HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    HEAD + b"content-length: -4\r\n\r\nabcd",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + HEAD + b"connection: close\r\ncontent-length: 4\r\n\r\nab",
    b"HTTP/1.0 302 Found\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n",
)


class _Socket:
    """One that has all of an answer, and takes whatever is sent."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *args: object) -> io.BytesIO:
        return io.BytesIO(self._data)

    def sendall(self, data: object) -> None:
        return

    def close(self) -> None:
        return


def target(data: bytes) -> None:
    connection = http.client.HTTPConnection("store.example")
    connection.sock = cast(Any, _Socket(data))
    direct = Direct()
    direct._idle.append(connection)  # kept alive from a part before
    into = bytearray(b"\xaa" * PART)
    found = direct.read(Reading("http://store.example/bucket/part?x=y", 0, memoryview(into)))
    if found is not None:
        assert 0 <= found <= PART and into[found:] == b"\xaa" * (PART - found), found
