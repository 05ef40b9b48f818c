"""What one client is told, in order: nothing before its open record is durable, one head, one end. Steps 11 and 12.

The sink is whatever carries bytes to the client; this module knows neither uvicorn nor ASGI. Two failures to survive.
An error comes late. Before the head it is a proper status, in a stream an event the SDKs raise from. In any other body
the connection breaks, so that half an answer is never taken for a whole one. A disk does not answer: what waits for the
open record is bounded, for whoever sends it is told to pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from router import errors
from router.spool.spool import Spool
from runtime.forms import Form

LAST_CHUNK = b"0\r\n\r\n"
JSON = b"content-type: application/json\r\n"
EVENTS = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
# The last two are for what stands between us and the client of a stream.
MOST_KEPT = 256 << 10  # bytes of one answer that wait for its open record; then no more is read from the replica


class Sink(Protocol):
    """The way to one client, for one answer."""

    chunked: bool  # it can read chunks: HTTP/1.1
    keep_alive: bool

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None:
        """All is written."""

    def cut(self) -> None:
        """It cannot be completed: break the connection."""


class Answer:
    """`status` is 0 until a head was given; `committed`: our own head went out while the request was held.

    `hold_back` is told True when too much waits for the disk, and False when it is on its way.
    """

    __slots__ = (
        "_durable",
        "_finished",
        "_form",
        "_hold_back",
        "_kept",
        "_kept_bytes",
        "_number",
        "_spool",
        "committed",
        "sink",
        "status",
        "streaming",
    )

    def __init__(
        self,
        sink: Sink,
        spool: Spool,
        hold_back: Callable[[bool], None] | None = None,
        form: Form = "openai",
        number: int = 0,
    ) -> None:
        """`number`: the open record's in the spool. Every byte waits until that is durable."""
        self.sink = sink
        self._spool = spool
        self._hold_back = hold_back or _nobody
        self._form = form
        self._number = number
        self._durable = False
        self.status = 0
        self.committed = False
        self.streaming = False
        self._finished = False
        self._kept: list[bytes] = []
        self._kept_bytes = 0

    def head(self, status: int, *lines: bytes, streaming: bool) -> bytes:
        """The bytes of the head with these lines. They count as given: write them with what follows."""
        self.status, self.streaming = status, streaming
        return b"".join(
            (STATUS_LINE[status], *lines, b"\r\n" if self.sink.keep_alive else b"connection: close\r\n\r\n")
        )

    def commit(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Give our own head of a stream."""
        framing = b"transfer-encoding: chunked\r\n" if self.sink.chunked else b""
        self.write(self.head(200, lines_of(fields), EVENTS, framing, streaming=True))
        self.committed = True

    def framed(self, body: bytes, *, last: bool = False) -> bytes:
        """`body` as this client must have it where the length was not told: as a chunk, or bare for HTTP/1.0."""
        if not self.sink.chunked:
            return body
        chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
        return chunk + LAST_CHUNK if last else chunk

    def write(self, data: bytes) -> None:
        if self._durable or self._spool.synced >= self._number:
            self._durable = True
            self._spool.flush()  # `data` may hold the last byte: the end record is written before it
            self.sink.write(data)
        else:
            if not self._kept:
                self._spool.when_synced(self._number, self._release)
            self._kept.append(data)
            before, self._kept_bytes = self._kept_bytes, self._kept_bytes + len(data)
            if before <= MOST_KEPT < self._kept_bytes:
                self._hold_back(True)

    def finish(self) -> None:
        """All of it is written."""
        if self._kept:
            self._finished = True
        else:
            self.sink.finish()

    def fail(self, error: errors.RouterError, *, request_id: bytes) -> None:
        """Tell the client that there is no (whole) answer.

        1. No head yet: a whole answer, with the error's status.
        2. A stream: an event, then a proper end.
        3. Half a body: the connection breaks.
        """
        if self.status == 0:  # 1
            self.status = error.status
            self.write(errors.answer(error, request_id=request_id, keep_alive=self.sink.keep_alive, form=self._form))
            self.finish()
        elif self.streaming:  # 2
            self.write(self.framed(errors.event(error, self._form), last=True))
            self.finish()
        else:  # 3
            self._spool.flush()
            self.sink.cut()

    def let_go(self) -> None:
        """Its call is closed, which `hold_back` refers to, and that to this: what is kept still goes out."""
        self._hold_back = _nobody

    def _release(self) -> None:
        """The open record is durable."""
        self._durable = True
        kept, self._kept = self._kept, []
        self.sink.write(b"".join(kept))
        if self._kept_bytes > MOST_KEPT:
            self._hold_back(False)
        self._kept_bytes = 0
        if self._finished:
            self.sink.finish()


def lines_of(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Fields as lines of a head."""
    return b"".join([b"%s: %s\r\n" % field for field in fields])


def _nobody(full: bool) -> None:
    """Nothing is sent any more that could be held back."""
