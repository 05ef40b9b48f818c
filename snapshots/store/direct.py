"""Parts of objects straight into memory: plain HTTP/1.1 in threads, over signed links. Step 9.

The general S3 client takes 3 s of CPU a GB to hand over a body. Here the kernel copies from the socket into the file's
own pages, 0.7 s a GB. It does only what always goes right. An answer that is not the part asked for, a connection that
breaks, a proxy on the way are all `None`. Then the general client is asked, which knows how to repeat, redirect and
explain. It must survive a peer that goes silent (a timeout), and a reader that is given up because its bytes trickle
(`stall.py`): `Reading.abort` wakes it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
import urllib.request
from urllib.parse import SplitResult, urlsplit

READ_TIMEOUT = 30.0  # s without a byte
PARTIAL_CONTENT = 206
SLICE = 1 << 18  # bytes, after each of which is told how far it is


class Reading:
    """One part being read; `abort` may be called from any thread."""

    def __init__(self, link: str, begin: int, into: memoryview) -> None:
        self.url = urlsplit(link)
        self.begin = begin
        self.into = into
        self.length = 0  # bytes that have come
        self.aborted = False
        self.connection: http.client.HTTPConnection | None = None

    def abort(self) -> None:
        """Break it: its thread returns at once, or when its connection is made."""
        self.aborted = True
        connection = self.connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):  # broken already
                connection.sock.shutdown(socket.SHUT_RDWR)


class Direct:
    """Kept-alive connections to the host of one bucket."""

    def __init__(self) -> None:
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def read(self, reading: Reading) -> int | None:
        """Fill the memory; how many bytes came, fewer where the object ends early; None where the general client must
        be asked.
        """
        if _has_proxy(reading.url):
            return None
        while not reading.aborted:
            with self._lock:
                used = self._idle.pop() if self._idle else None
            connection = reading.connection = used or _connection(reading.url)
            try:
                length = _read(connection, reading)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                connection.close()
                if used is None:
                    return None
                continue  # it was kept alive longer than the store likes
            except (OSError, http.client.HTTPException, ValueError):
                connection.close()
                return None
            if length is None:
                connection.close()
            elif connection.sock is not None:
                with self._lock:
                    self._idle.append(connection)
            return length
        return None

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()


def _read(connection: http.client.HTTPConnection, reading: Reading) -> int | None:
    if connection.sock is None:
        connection.connect()
    if reading.aborted:
        return None
    into, begin = reading.into, reading.begin
    wanted = {"Range": f"bytes={begin}-{begin + len(into) - 1}", "Accept-Encoding": "identity"}
    connection.request("GET", f"{reading.url.path}?{reading.url.query}", headers=wanted)
    response = connection.getresponse()
    promised = response.length
    if response.status != PARTIAL_CONTENT or promised is None or promised > len(into):
        return None
    reading.length = 0
    while reading.length < promised and (more := response.readinto(into[reading.length : reading.length + SLICE])):
        reading.length += more
    return promised if reading.length == promised else None


def _connection(url: SplitResult) -> http.client.HTTPConnection:
    host, port = url.hostname or "", url.port
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)
        return http.client.HTTPSConnection(host, port, timeout=READ_TIMEOUT, context=context)
    return http.client.HTTPConnection(host, port, timeout=READ_TIMEOUT)


def _has_proxy(url: SplitResult) -> bool:
    return url.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(url.hostname or "")
