"""What a replica answers: fed to a relay in segments of any size, for a client of HTTP/1.1 or 1.0.

Whatever it is, its request ends exactly once, and what the client got is whole HTTP unless its connection was cut.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools

from router.errors import RouterError
from router.hold.pool import Pool, Upstream
from router.relay.answer import Answer
from router.relay.relay import Relay
from router.spool.record import Tokens
from runtime.forms import Form
from tests.fuzz.wires import Wire, segments, turn

HEAD = b"HTTP/1.1 200 OK\r\n"
SEEDS = (
    b'\x00\x00' + HEAD + b'content-type: application/json\r\ncontent-length: 2\r\nx-pilotlight-usage: 1;0;2\r\n\r\n{}',
    b"\x01\x50" + HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: {}\n\n\r\n"
    b"2c\r\n: pilotlight-usage 5;2;3\n\ndata: [DONE]\n\n\r\n0\r\n\r\n",
    b"\x02\x00HTTP/1.1 503 X\r\nx-pilotlight-refused: full\r\ncontent-length: 0\r\n\r\n",
    b"\x00\x00HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\r\n" + b'{"error":{"message":"no"}}\n',
    b"\x04\x7f" + HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:\r\n",
    b"\x02\x00" + HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: gzip, chunked\r\n\r\n5\r\ndata:\r\n",
    b"\x00\x00" + HEAD + b"content-type: text/event-stream\r\ncontent-length: 27\r\n\r\ndata: {}\n\n",
    b"\x00\x00HTTP/1.0 100 Continue\r\n\r\n",
    b"\x00\x00" + HEAD + b"connection: close\r\n\r\nwithout a length",
)  # fmt: skip
FORMS: tuple[Form, ...] = ("openai", "responses", "messages")

_loop = asyncio.new_event_loop()


class Sink:
    """A client that reads all."""

    def __init__(self, *, chunked: bool) -> None:
        self.chunked, self.keep_alive = chunked, chunked
        self.out = bytearray()
        self.finished = self.is_cut = False

    def write(self, data: bytes) -> None:
        if self.finished:
            raise AssertionError("written to after its end")
        self.out += data

    def finish(self) -> None:
        if self.finished:
            raise AssertionError("finished twice")
        self.finished = True

    def cut(self) -> None:
        self.is_cut = True


class Disk:
    """A spool that is always durable."""

    synced = 1

    def flush(self) -> None:
        return


class Ends:
    """What the relay's owner hears."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.times = 0

    def response_headers(self) -> bytes:
        return b"x-request-id: 0\r\n"

    def first_byte(self) -> None:
        return

    def timing_comment(self) -> bytes:
        return b": timing\n\n"

    def undelivered(self, mark: str) -> None:
        self.times += 1

    def engine_refused(self, status: int, body: bytes) -> None:
        self.times += 1

    def failed(self, error: RouterError) -> None:
        self.times += 1
        self.answer.fail(error, request_id=b"0")

    def complete(self, status: int, tokens: Tokens | None, last: bytes) -> None:
        self.times += 1
        self.answer.write(last)
        self.answer.finish()


def target(data: bytes) -> None:
    """The first byte chooses the client and the API, the second the segments."""
    if len(data) < 2:
        return
    sink = Sink(chunked=data[0] % 2 == 0)
    answer = Answer(sink, cast(Any, Disk()))
    if data[0] & 4:
        answer.commit(())
    ends, pool = Ends(answer), Pool("unix:/nonexistent/s")
    upstream, wire = Upstream(pool), Wire()
    upstream.connection_made(wire)
    pool.put(upstream)
    relay = Relay(
        request=b"POST / HTTP/1.1\r\n\r\n",
        pool=pool,
        answer=answer,
        handler=cast(Any, ends),
        form=FORMS[data[0] // 8 % 3],
    )
    asyncio.set_event_loop(_loop)
    relay.start()
    for piece in segments(data[1:]):
        if wire.closing:
            break
        upstream.data_received(piece)
    upstream.connection_lost(None)
    turn(_loop)
    if ends.times != 1:
        raise AssertionError(f"its owner heard {ends.times} ends")
    _check(sink)


class Whole:
    begun = False

    def on_message_begin(self) -> None:
        self.begun = True

    def on_message_complete(self) -> None:
        self.begun = False


def _check(sink: Sink) -> None:
    if sink.is_cut or not sink.finished:
        return
    if any(sink.out.startswith(b"HTTP/1.1 %d" % status) for status in (204, 304)):
        return
    whole = Whole()
    httptools.HttpResponseParser(whole).feed_data(bytes(sink.out))
    if whole.begun and sink.chunked:
        raise AssertionError("its answer is not whole")
