"""Step 11, byte by byte: however TCP cuts a replica's answer, and wherever the replica dies, the client gets something
whole.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from router.errors import RouterError, UpstreamError
from router.hold.pool import Pool, Upstream
from router.relay.answer import Answer
from router.relay.engine_words import error_of
from router.relay.relay import Relay
from router.spool.record import Tokens
from tests.fakes import SSE_HEAD, chunk, event, json_answer

EVENTS = [event({"choices": [{"delta": {"content": word}}]}) for word in ("", "a", "b", "data: [DONE]")]
LAST = b": pilotlight-usage 5;2;2\ndata: [DONE]\n\n"
STREAM = SSE_HEAD + b"".join(map(chunk, EVENTS)) + chunk(LAST) + b"0\r\n\r\n"
LENGTH = json_answer(200, b'{"a": 1}', "x-pilotlight-usage: 5;2;2\r\n")


class Wire:
    """Both ends' transport, and the client's sink."""

    def __init__(self, *, chunked: bool) -> None:
        self.chunked, self.keep_alive = chunked, chunked
        self.out = b""
        self.finished = self.was_cut = self.aborted = False

    def write(self, data: bytes) -> None:
        assert not self.finished
        self.out += data

    def finish(self) -> None:
        assert not self.finished
        self.finished = True

    def cut(self) -> None:
        self.was_cut = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return False


class Request:
    def write(self, data: bytes) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...

    def is_closing(self) -> bool:
        return False


class Outcome:
    """The relay's handler."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.news: list[Any] = []

    def response_headers(self) -> bytes:
        self.news.append("head")
        return b"x-request-id: id\r\n"

    def first_byte(self) -> None:
        self.news.append("first byte")

    def timing_comment(self) -> bytes:
        return b": pilotlight timing\n"

    def undelivered(self, mark: str) -> None:
        self.news.append(mark)

    def engine_refused(self, status: int, body: bytes) -> None:
        self.failed(error_of(status, body, request_id="id"))

    def failed(self, error: RouterError) -> None:
        self.news.append(error.code)
        self.answer.fail(error, request_id=b"id")

    def complete(self, status: int, tokens: Tokens | None, last: bytes) -> None:
        self.news.append(tokens)
        self.answer.write(last)
        self.answer.finish()
        self.news.append("ended")


class Durable:
    synced = 1

    def flush(self) -> None: ...


class Rig:
    """One exchange, fed by hand."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, chunked: bool = True, committed: bool = False) -> None:
        self.wire = Wire(chunked=chunked)
        answer = Answer(self.wire, Durable())  # type: ignore[arg-type]
        if committed:
            answer.commit(())
        self.before = len(self.wire.out)
        self.outcome = Outcome(answer)
        pool = Pool("unix:/none")
        self.upstream = Upstream(pool)
        self.upstream.connection_made(Request())  # type: ignore[arg-type]
        pool.put(self.upstream)
        Relay(request=b"x", pool=pool, answer=answer, handler=self.outcome).start()

    def feed(self, *parts: bytes) -> Rig:
        for part in parts:
            if part:
                self.upstream.data_received(part)
        return self

    def die(self) -> Rig:
        self.upstream.connection_lost(None)
        return self

    @property
    def body(self) -> bytes:
        """What the client reads; an assertion fails if it could not."""
        head, _, body = self.wire.out.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" not in head:
            return body
        whole = b""
        while True:
            size, _, body = body.partition(b"\r\n")
            count = int(size, 16)
            data, body = body[:count], body[count:]
            assert len(data) == count
            assert body.startswith(b"\r\n")
            body = body[2:]
            if count == 0:
                assert body == b""
                return whole
            whole += data


@pytest.fixture
def loop() -> Any:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("committed", [True, False])
def test_a_stream_cut_at_every_byte(loop: Any, chunked: bool, committed: bool) -> None:
    told = b": pilotlight timing\n" if committed else b""
    for cut in range(1, len(STREAM)):
        rig = Rig(loop, chunked=chunked, committed=committed).feed(STREAM[:cut], STREAM[cut:])
        assert rig.body == told + b"".join(EVENTS) + LAST, cut
        assert rig.wire.finished
        assert rig.outcome.news == ["head", "first byte", Tokens(5, 2, 2, "engine"), "ended"]


def test_a_stream_cut_everywhere(loop: Any) -> None:
    for size in (1, 2, 3, 7, 50):
        rig = Rig(loop).feed(*(STREAM[at : at + size] for at in range(0, len(STREAM), size)))
        assert rig.body == b"".join(EVENTS) + LAST
        assert rig.outcome.news[-2:] == [Tokens(5, 2, 2, "engine"), "ended"]


def test_whole_segments_pass_untouched(loop: Any) -> None:
    rig = Rig(loop).feed(
        SSE_HEAD + chunk(EVENTS[0]), chunk(EVENTS[1]) + chunk(EVENTS[2]), STREAM[-(len(chunk(LAST)) + 5) :]
    )
    assert rig.wire.out.endswith(chunk(EVENTS[0]) + chunk(EVENTS[1]) + chunk(EVENTS[2]) + chunk(LAST) + b"0\r\n\r\n")


@pytest.mark.parametrize("size", [b"+4", b" 4", b"0x4", b"4_", b"-4", b"", b"g"])
def test_what_is_no_chunk_is_not_passed_on(loop: Any, size: bytes) -> None:
    rig = Rig(loop).feed(SSE_HEAD + chunk(EVENTS[0]), size + b"\r\nabcd\r\n")
    assert b"abcd" not in rig.wire.out
    assert rig.outcome.news == ["head", "first byte", UpstreamError.code]


def test_json_cut_at_every_byte(loop: Any) -> None:
    for cut in range(1, len(LENGTH)):
        rig = Rig(loop).feed(LENGTH[:cut], LENGTH[cut:])
        assert rig.wire.out.endswith(b'\r\n\r\n{"a": 1}')
        assert b"content-length: 8\r\n" in rig.wire.out
        assert rig.outcome.news == ["head", "first byte", Tokens(5, 2, 2, "engine"), "ended"]


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_death_at_every_byte_of_a_stream(loop: Any, chunked: bool, committed: bool) -> None:
    head = len(SSE_HEAD)
    for at in range(1, len(STREAM)):
        rig = Rig(loop, chunked=chunked, committed=committed).feed(STREAM[:at]).die()
        assert rig.wire.finished
        if b"data: [DONE]\n\n" in STREAM[:at]:  # nothing is missing that the client would miss
            assert rig.body.endswith(b"".join(EVENTS) + LAST)
            assert rig.outcome.news[-2:] == [Tokens(5, 2, 2, "engine"), "ended"]
            continue
        assert rig.outcome.news[-1] == "upstream_error"
        if at < head and not committed:
            assert rig.wire.out.startswith(b"HTTP/1.1 503")
            continue
        body = rig.body.removeprefix(b": pilotlight timing\n")
        *passed, error = [part for part in body.split(b"\n\n") if part and not part.startswith(b": ")]
        assert b"".join(part + b"\n\n" for part in passed) in b"".join(EVENTS)
        assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "upstream_error"


@pytest.mark.parametrize("committed", [True, False])
def test_death_at_every_byte_of_json(loop: Any, committed: bool) -> None:
    head = LENGTH.index(b"\r\n\r\n") + 4
    for at in range(1, len(LENGTH)):
        rig = Rig(loop, committed=committed).feed(LENGTH[:at]).die()
        assert rig.outcome.news[-1] == "upstream_error"
        if at < head or committed:
            assert rig.wire.finished
        else:
            assert rig.wire.was_cut


def test_a_refusal_is_swallowed_wherever_it_is_cut(loop: Any) -> None:
    raw = json_answer(503, b'{"error":{}}', "x-pilotlight-refused: draining\r\n")
    for cut in range(1, len(raw)):
        rig = Rig(loop).feed(raw[:cut], raw[cut:])
        assert (rig.outcome.news, rig.wire.out) == (["draining"], b"")


def test_after_our_own_head_an_error_is_an_event(loop: Any) -> None:
    raw = json_answer(400, b'{"error":{"message":"too long"}}')
    for cut in range(1, len(raw)):
        rig = Rig(loop, committed=True).feed(raw[:cut], raw[cut:])
        assert json.loads(rig.body.removeprefix(b"data: "))["error"]["message"] == "too long"
        assert rig.wire.finished


def test_text_that_looks_like_usage_is_not(loop: Any) -> None:
    forged = event({"choices": [{"delta": {"content": ": pilotlight-usage 0;0;0"}}]})
    rig = Rig(loop).feed(SSE_HEAD + chunk(forged) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    assert rig.outcome.news[-2] is None
