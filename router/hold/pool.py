"""Kept-alive HTTP/1.1 connections to one replica, and what comes back on them. Step 11, the replica's side.

An `Upstream` sends one request at a time and tells its `Receiver` of each segment of the answer, raw and parsed.

    connecting ──Pool.connect──→ idle ──send──→ waits for the answer ──on_message_complete──→ idle, or closed
                                  │                     │
                    bytes nobody asked for,      connection_lost, _break, abort
                    or connection_lost                  │
                                  └──→ gone ←───────────┘ (its receiver hears `lost`, unless it aborted)

The failures to survive: an answer split at any byte, a replica that dies at any byte, and bytes that nobody asked for.
The connection is then of no more use, and no byte of it reaches another request's client. Silence alone ends no answer,
for one that is not streamed may take hours. A replica that hangs is killed by its agent, and one whose machine is gone
is found by the kernel.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

import httptools
import structlog

from pilotlight.frames import split

CONNECT_SECONDS = 5.0
LONGEST_HEAD = 64 << 10  # bytes
MOST_KEPT = 64  # idle connections
TAIL_BYTES = 160  # of the body, kept to find the usage at its end

log = structlog.get_logger()


class Receiver(Protocol):
    """Who gets an answer. `lost` is the last call, or a `received` with `upstream.done`."""

    def received(self, upstream: Upstream, segment: bytes, head: bool) -> None:
        """A segment of the body has come; `head`: the head has, just before it."""

    def lost(self, upstream: Upstream, why: str, *, closed: bool) -> None:
        """There will be no (more of the) answer. `closed`: the replica closed the connection, else we did."""


class Pool:
    """The idle connections of one replica."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._idle: list[Upstream] = []
        self._closed = False

    def reuse(self) -> Upstream | None:
        """The connection used last, if one is idle."""
        return self._idle.pop() if self._idle else None

    async def connect(self) -> Upstream:
        """A new connection. Raises OSError, TimeoutError, AddressError."""
        loop = asyncio.get_running_loop()
        scheme, host, port = split(self.address)
        async with asyncio.timeout(CONNECT_SECONDS):
            if scheme == "unix":
                _, upstream = await loop.create_unix_connection(lambda: Upstream(self), host)
            else:
                _, upstream = await loop.create_connection(lambda: Upstream(self), host, port)
                keep_asking(upstream.transport.get_extra_info("socket"))
        return upstream

    def put(self, upstream: Upstream) -> None:
        if self._closed or len(self._idle) >= MOST_KEPT:
            upstream.transport.close()
        else:
            self._idle.append(upstream)

    def drop(self, upstream: Upstream) -> None:
        if upstream in self._idle:
            self._idle.remove(upstream)

    def close(self) -> None:
        """The replica is gone from the table: nothing is kept any more; what runs may finish."""
        self._closed = True
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.transport.close()


class Upstream(asyncio.Protocol):
    """One connection. The fields are of the answer under way, for the receiver to read."""

    __slots__ = (
        "_aligned", "_between", "_keep", "_parser", "_partial_head", "_paused", "_pool",
        "_receiver", "aligned", "chunked", "complete", "done", "events", "headers", "heard", "pieces", "reused", "status", "tail", "token",
        "transport", "usage",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._receiver: Receiver | None = None
        self._paused = self._keep = False
        self.reused = self.done = False
        self._parser = httptools.HttpResponseParser(self)

    def send(self, receiver: Receiver, request: bytes, token: bytes = b"data: {") -> None:
        """Begin an exchange. The answer, or its loss, goes to `receiver`. `token`: what an event of a token has, and no
        other.
        """
        self._receiver = receiver
        self._partial_head: bytes | None = b""
        self._between = self._aligned = True
        self.aligned = False  # whether this segment is whole chunks
        self.heard = False
        self.done = False
        self.chunked = False
        self.token, self.status = token, 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []  # of the body, not yet read; the first `complete` make whole chunks
        self.complete = self.events = 0
        self.tail = self.usage = b""
        self.transport.write(request)

    def read(self, *, partial: bool) -> list[bytes]:
        """The body since the last call, as far as it makes whole chunks, or all of it."""
        count = len(self.pieces) if partial or self.done else self.complete
        taken, self.pieces = self.pieces[:count], self.pieces[count:]
        self.complete = 0
        return taken

    def pause(self) -> None:
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def abort(self, receiver: Receiver) -> None:
        """It wants no more of the answer: the replica sees the connection close, and stops its work. After the answer:
        nothing.
        """
        if self._receiver is receiver:
            self._receiver = None
            self.transport.abort()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._lose("closed the connection" if error is None else f"broke the connection ({error})", closed=True)
        self._pool.drop(self)

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:
            self.transport.abort()
            return
        self.heard = True
        end = 0
        if self._partial_head is not None:
            data, end = _without_interim(self._partial_head + data)
            if end < 0:
                self._partial_head = data
                if len(data) > LONGEST_HEAD:
                    self._break("sent a head too long")
                return
            self._partial_head = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._break(f"sent what is not HTTP: {error.__context__ or error}")
            return
        self._received(data[end:] if end else data, end > 0)

    def _received(self, segment: bytes, head: bool) -> None:
        receiver = self._receiver
        assert receiver is not None
        began, self._aligned = self._aligned, self.done or (self._between and segment.endswith(b"\r\n")) or not segment
        self.aligned = began and self._aligned
        if self.done:
            self._receiver = None
            if self._keep:
                self.reused = True
                if self._paused:
                    self.resume()
                self._pool.put(self)  # before the receiver is told: what it wakes may use it
            else:
                self.transport.close()
        try:
            receiver.received(self, segment, head)
        except Exception:
            log.exception("an answer could not be passed on", action="relay", address=self._pool.address)
            self.transport.abort()
            receiver.lost(self, "answered, and the router failed to pass it on,", closed=False)

    # httptools' callbacks

    def on_message_begin(self) -> None:
        if self.done:
            raise ConnectionError("more than the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self.headers.append((name, value))
        if name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise ConnectionError("a body that is encoded otherwise than in chunks")
            self.chunked = True
        elif name == b"x-pilotlight-usage":
            self.usage = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._keep = self._parser.should_keep_alive()

    def on_chunk_header(self) -> None:
        self._between = False

    def on_chunk_complete(self) -> None:
        self._between = True
        self.complete = len(self.pieces)

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)
        self.events += body.count(self.token)
        self.tail = body if len(body) >= TAIL_BYTES else self.tail[-TAIL_BYTES:] + body

    def on_message_complete(self) -> None:
        self.done = True

    # Ends

    def _break(self, why: str) -> None:
        self.transport.abort()
        self._lose(why, closed=False)

    def _lose(self, why: str, *, closed: bool) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(self, why, closed=closed)


def keep_asking(connection: socket.socket) -> None:
    """Have the kernel find within two minutes that the other machine is gone, however long an answer is silent."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _without_interim(data: bytes) -> tuple[bytes, int]:
    """What came, without answers of the 1xx kind before the real one, and where that one's head ends, or -1."""
    while (found := data.find(b"\r\n\r\n")) >= 0:
        if not data.startswith(b"HTTP/1.1 1"):
            return data, found + 4
        data = data[found + 4 :]
    return data, -1
