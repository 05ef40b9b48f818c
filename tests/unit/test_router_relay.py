"""Steps 1, 11 and 12, end to end in one process: what a client gets of a replica's answer, and what is recorded."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest

from router.hold.pool import Pool
from router.hold.slot import BROKEN_SECONDS
from tests.fakes import SSE_HEAD, Die, FakeRequest, chunk, event, json_answer
from tests.router_world import KEY, endpoint_row, request, until, world


async def test_json_answer_with_our_headers_and_a_closed_record() -> None:
    async with world() as w:
        reply = await w.ask()
        assert reply.status == 200
        assert reply.json["choices"][0]["message"]["content"] == "w0 w1 w2 "
        assert reply.headers["x-pilotlight-start"] == "warm"
        assert float(reply.headers["x-pilotlight-hold-ms"]) == 0.0
        assert "x-pilotlight-usage" not in reply.headers
        [end] = await w.ends()
        assert end["event_id"] == reply.headers["x-request-id"] == w.replica.requests[0].request_id
        assert (end["input_tokens"], end["cached_tokens"], end["output_tokens"], end["count_source"]) == (
            5,
            2,
            3,
            "engine",
        )
        assert (end["finish"], end["status"], end["start"], end["replica_id"], end["revision_id"]) == (
            "complete",
            200,
            "warm",
            "p1",
            "r1",
        )


async def test_stream_is_passed_on_and_counted() -> None:
    async with world() as w:
        reply = await w.ask(stream=True)
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.body.endswith(b": pilotlight-usage 5;2;3\ndata: [DONE]\n\n")
        assert reply.body.count(b'"content": "w') == 3
        [end] = await w.ends()
        assert (end["output_tokens"], end["count_source"]) == (w.replica.emitted[end["event_id"]], "engine")


async def test_the_open_record_is_on_disk_before_the_first_byte() -> None:
    async with world() as w:
        synced: list[int] = []
        real = w.spool._sync

        def sync(descriptor: int) -> None:
            real(descriptor)
            synced.append(1)

        w.spool._sync = sync
        client = await w.client()
        client.post()
        await client.answer()
        assert synced


async def test_http_1_0_gets_no_chunks_and_a_close() -> None:
    async with world() as w:
        client = await w.client()
        client.post(stream=True, version="1.0")
        status, headers = await client.head()
        assert status == 200
        assert "transfer-encoding" not in headers
        assert headers["connection"] == "close"
        assert (await client.closed()).endswith(b"data: [DONE]\n\n")


async def test_connection_close_is_honoured() -> None:
    async with world() as w:
        client = await w.client()
        client.post(headers=("connection: close",))
        reply = await client.answer()
        assert reply.headers["connection"] == "close"
        assert await client.closed() == b""


async def test_death_within_a_stream_is_an_error_event_and_a_proper_end() -> None:
    """Even when the death cuts a chunk: what was not whole is not passed on."""
    first = chunk(event({"choices": [{"delta": {"content": "a"}}]}))
    for broken in (b"", first[:1], first[:4], first[:20], first[:-2], first[:-1]):
        async with world() as w:

            async def answer(_: FakeRequest, broken: bytes = broken) -> AsyncIterator[bytes]:
                yield SSE_HEAD + first
                yield broken
                await asyncio.sleep(0)
                raise Die

            w.replica.answer = answer
            client = await w.client()
            client.post(stream=True)
            reply = await client.answer()  # ends with a terminating chunk, or this would raise
            events = [json.loads(line[6:]) for line in reply.body.decode().split("\n\n") if line]
            assert [set(e) for e in events] == [{"choices"}, {"error"}]
            assert events[1]["error"]["code"] == "upstream_error"
            [end] = await w.ends()
            assert (end["finish"], end["status"], end["count_source"]) == ("upstream_error", 200, "relayed")
            client.post()  # and the connection lives on
            w.replica.answer = w.replica.talk
            assert (await client.answer()).status == 200


async def test_a_stream_whose_replica_had_to_go_says_so_in_its_last_event() -> None:
    async with world() as w:
        draining = asyncio.Event()

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            yield SSE_HEAD + chunk(event({"choices": [{"delta": {"content": "a"}}]}))
            await draining.wait()
            raise Die

        w.replica.answer = answer
        client = await w.client()
        client.post(stream=True)
        await w.replica.until(lambda: len(w.replica.requests) == 1)
        w.show(endpoint_row(w.row(draining=True)))
        draining.set()
        reply = await client.answer()
        events = [json.loads(line[6:]) for line in reply.body.decode().split("\n\n") if line]
        assert "was cut off" in events[-1]["error"]["message"] and events[-1]["error"]["code"] == "upstream_error"
        [end] = await w.ends()
        assert end["finish"] == "upstream_error"


async def test_death_within_json_breaks_the_connection() -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            yield json_answer(200, b'{"a": 1}')[:-3]
            await asyncio.sleep(0)
            raise Die

        w.replica.answer = answer
        client = await w.client()
        client.post()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.answer()
        [end] = await w.ends()
        assert end["finish"] == "upstream_error"


async def test_what_is_held_is_not_sent_after_a_dying_replica() -> None:
    """Its connections end one by one while it can still be reached: only what it had is lost, the rest waits for word
    of it.
    """
    async with world() as w:
        w.show(endpoint_row(w.row(slots=2)))
        ending: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        async def answer(request: FakeRequest) -> AsyncIterator[bytes]:
            if asyncio.get_running_loop().time() < await asyncio.shield(ending):
                raise Die
            async for piece in w.replica.talk(request):
                yield piece

        w.replica.answer = answer
        clients = [await w.client() for _ in range(6)]
        for client in clients:
            client.post()
        await w.replica.until(lambda: len(w.replica.requests) == 2)
        await w.wait_held(4)
        ending.set_result(asyncio.get_running_loop().time() + BROKEN_SECONDS / 2)
        assert [(await client.answer()).status for client in clients] == [503] * 2 + [200] * 4


async def test_death_before_a_byte_is_a_503() -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            raise Die
            yield b""

        w.replica.answer = answer
        reply = await w.ask()
        assert reply.status == 503
        assert reply.error["code"] == "upstream_error"
        assert int(reply.headers["retry-after"]) >= 1
        assert len(w.replica.requests) == 1, "sent on a fresh connection: must not be sent twice"
        [end] = await w.ends()
        assert (end["finish"], end["status"], end["count_source"]) == ("upstream_error", 503, "none")


async def test_a_stale_connection_is_retried_once_on_a_new_one() -> None:
    async with world() as w:
        client = await w.client()
        client.post()
        assert (await client.answer()).status == 200
        [upstream] = w.table.revisions["r1"].replicas["p1"].pool._idle

        async def dies_first(_: FakeRequest) -> AsyncIterator[bytes]:
            w.replica.answer = w.replica.talk
            raise Die
            yield b""

        w.replica.answer = dies_first
        client.post()
        assert (await client.answer()).status == 200
        assert len(w.replica.requests) == 3
        assert w.replica.connections == 2
        assert upstream.reused
        assert [end["finish"] for end in await w.ends()] == ["complete", "complete"]


async def test_a_refusal_goes_back_unnoticed() -> None:
    async with world() as w:
        w.replica.refusals = ["full", "full"]
        reply = await w.ask()
        assert reply.status == 200
        assert len(w.replica.requests) == 3
        assert float(reply.headers["x-pilotlight-hold-ms"]) > 0
        [end] = await w.ends()
        assert (end["finish"], end["hold_ms"] > 0) == ("complete", True)


async def test_the_refused_is_served_before_those_who_came_later() -> None:
    async with world() as w:
        w.show(endpoint_row(w.row(slots=1)))
        w.replica.refusals = ["full"]
        first, second = await w.client(), await w.client()
        first.post(user="first")
        await w.replica.until(lambda: len(w.replica.requests) == 1)
        second.post(user="second")
        await first.answer()
        await second.answer()
        assert [r.fields["user"] for r in w.replica.requests] == ["first", "first", "second"]


async def test_an_unreachable_replica_sends_the_request_back_to_the_hold() -> None:
    async with world() as w:
        w.show(endpoint_row(w.row(replica_id="gone", address=f"unix:{w.folder}/none.sock")))
        client = await w.client()
        client.post()
        await w.wait_held(1)
        w.show(endpoint_row(w.row(replica_id="gone", address=f"unix:{w.folder}/none.sock", draining=True), w.row()))
        assert (await client.answer()).status == 200


async def test_a_draining_replica_is_not_asked_again() -> None:
    async with world() as w:
        w.replica.refusals = ["draining"]
        client = await w.client()
        client.post()
        await w.wait_held(1)
        replica = w.table.revisions["r1"].replicas["p1"]
        assert replica.draining and replica.place is None and replica.retry is None, "nothing will ask it again"
        assert len(w.replica.requests) == 1
        w.show(endpoint_row(w.row(replica_id="p2")))
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_aborts_the_replicas_work(stream: bool) -> None:
    async with world() as w:
        begun = asyncio.Event()

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            if stream:
                yield SSE_HEAD + chunk(event({"role": 1})) + chunk(event({"choices": 1}))
            begun.set()
            await asyncio.Event().wait()

        w.replica.answer = answer
        client = await w.client()
        client.post(stream=stream)
        await begun.wait()
        if stream:
            await client.reader.readuntil(b'"choices"')
        client.leave()
        await w.replica.until(lambda: len(w.replica.aborted) == 1)
        [end] = await w.ends()
        assert end["finish"] == "client_disconnect"
        assert (end["status"], end["output_tokens"]) == ((200, 1) if stream else (0, 0))
        assert w.table.revisions["r1"].demand == 0


async def test_a_half_closed_client_counts_as_gone() -> None:
    async with world() as w:
        begun = asyncio.Event()

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            begun.set()
            await asyncio.Event().wait()
            yield b""

        w.replica.answer = answer
        client = await w.client()
        client.post()
        await begun.wait()
        client.writer.write_eof()
        await w.replica.until(lambda: len(w.replica.aborted) == 1)
        assert await client.closed() == b""


async def test_a_slow_client_pauses_the_replica() -> None:
    async with world() as w:
        sent = 0

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            nonlocal sent
            yield SSE_HEAD
            for _n in range(64):
                yield chunk(b"data: " + b"x" * (256 << 10) + b"\n\n")
                sent += 1
            yield b"0\r\n\r\n"

        w.replica.answer = answer
        client = await w.client()
        transport = client.writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        client.post(stream=True)
        await until(lambda: any(connection.flow.write_paused for connection in w.connections))
        before = -1
        while before != sent:  # the sockets' buffers fill, then nothing moves
            before = sent
            for _ in range(100):
                await asyncio.sleep(0)
        assert sent < 64
        transport.resume_reading()
        assert len((await client.answer()).body) == 64 * ((256 << 10) + 8)


async def test_an_upstream_error_keeps_its_status() -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            yield json_answer(400, b'{"error":{"message":"too long","type":"x","param":null,"code":400}}')

        w.replica.answer = answer
        reply = await w.ask()
        assert (reply.status, reply.error["message"]) == (400, "too long")
        [end] = await w.ends()
        assert (end["finish"], end["status"], end["count_source"]) == ("refused", 400, "none")


async def test_an_answer_without_a_length_is_an_error() -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            yield b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}"

        w.replica.answer = answer
        assert (await w.ask()).error["code"] == "upstream_error"
        [end] = await w.ends()
        assert end["finish"] == "upstream_error"


async def test_more_than_the_answer_reaches_nobody() -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            yield json_answer(200, b"{}") + b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad"

        w.replica.answer = answer
        client = await w.client()
        client.post()
        assert (await client.answer()).error["code"] == "upstream_error"
        w.replica.answer = w.replica.talk
        client.post()
        assert (await client.answer()).json["object"] == "chat.completion"


async def test_interim_answers_are_left_out() -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            yield b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n"
            await asyncio.sleep(0)
            yield b"\r\n" + json_answer(200, b"{}")

        w.replica.answer = answer
        assert (await w.ask()).json == {}


async def test_only_what_is_allowed_goes_to_the_replica() -> None:
    async with world() as w:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await w.ask(headers=(f"traceparent: {trace}", "cookie: a=b", "x-evil: 1", "connection: x-evil"))
        [seen] = w.replica.requests
        assert set(seen.headers) == {"host", "content-type", "content-length", "x-request-id", "traceparent"}
        assert seen.headers["traceparent"] == trace
        assert KEY not in repr(seen)
        assert seen.fields["model"] == "tiny"


async def test_pipelined_calls_are_answered_in_order() -> None:
    async with world() as w:
        client = await w.client()
        pages = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\n\r\n"
        client.send(
            request()
            + pages
            + request(stream=True)
            + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
            + request(key="pl_wrong")
        )
        kinds = [await client.answer() for _ in range(5)]
        assert [reply.status for reply in kinds] == [200, 200, 200, 200, 401]
        assert [reply.headers["content-type"].split(";")[0] for reply in kinds][:3] == ["application/json"] * 2 + [
            "text/event-stream"
        ]
        assert kinds[1].json["data"][0]["id"] == "tiny"
        assert len(await w.ends()) == 2


async def test_pipelined_in_small_parts() -> None:
    async with world() as w:
        client = await w.client()
        raw = request() + request(stream=True) + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        for at in range(0, len(raw), 7):
            client.send(raw[at : at + 7])
            await asyncio.sleep(0)
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 200]


async def test_pipelined_behind_one_that_never_ends_and_then_gone() -> None:
    async with world() as w:
        begun = asyncio.Event()

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            begun.set()
            await asyncio.Event().wait()
            yield b""

        w.replica.answer = answer
        client = await w.client()
        client.send(request() + request())
        await begun.wait()
        client.send(request())
        client.leave()
        await w.replica.until(lambda: len(w.replica.aborted) == 1)
        assert len(w.replica.requests) == 1
        assert len(await w.ends()) == 1


async def test_an_answer_that_says_nothing_for_hours_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer of the router ends it: none is set while it waits that would fire within a day."""
    async with world() as w:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            begun.set()
            await go_on.wait()
            yield json_answer(200, b'{"late":1}')

        w.replica.answer = answer
        client = await w.client()
        client.send(request())
        await begun.wait()
        loop = asyncio.get_running_loop()
        with monkeypatch.context() as a_day_later:
            now = loop.time
            a_day_later.setattr(loop, "time", lambda: now() + 86400.0)
            for _ in range(5):
                await asyncio.sleep(0)
        go_on.set()
        assert (await client.answer()).status == 200


async def test_a_machine_that_is_gone_is_found_by_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = await Pool(f"tcp:127.0.0.1:{listener.getsockname()[1]}").connect()
        connection = upstream.transport.get_extra_info("socket")
        asked = [
            connection.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        ]
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) and asked == [60, 15, 4]
        upstream.transport.abort()


@pytest.mark.parametrize("stream", [False, True])
async def test_only_what_is_allowed_comes_from_a_replicas_head(stream: bool) -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            foreign = "set-cookie: a=b\r\nserver: vllm\r\nx-request-id: theirs\r\naccess-control-allow-origin: *\r\nlocation: /x\r\nx-evil: 1\r\n"
            if not stream:
                yield json_answer(200, b"{}", foreign + "x-pilotlight-usage: 1;0;1\r\n")
                return
            yield (
                SSE_HEAD[:-2]
                + foreign.encode()
                + b"\r\n"
                + chunk(b": pilotlight-usage 1;0;1\ndata: [DONE]\n\n")
                + b"0\r\n\r\n"
            )

        w.replica.answer = answer
        reply = await w.ask(stream=stream)
        ours = {"x-request-id", "x-pilotlight-start", "x-pilotlight-hold-ms", "openai-processing-ms", "content-type"}
        ours |= {"cache-control", "x-accel-buffering", "transfer-encoding"} if stream else {"content-length"}
        assert set(reply.headers) - {"vary"} == ours
        assert reply.headers["x-request-id"] != "theirs"


@pytest.mark.parametrize(
    "kind", ["text/html", "application/javascript", "application/octet-stream", "image/svg+xml", ""]
)
async def test_what_is_neither_json_nor_events_is_not_passed_on(kind: str) -> None:
    async with world() as w:

        async def answer(_: FakeRequest) -> AsyncIterator[bytes]:
            yield f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 8\r\n\r\n<script>".encode()

        w.replica.answer = answer
        reply = await w.ask()
        assert (reply.status, reply.error["code"], reply.headers["content-type"]) == (
            503,
            "upstream_error",
            "application/json",
        )
        assert b"script" not in reply.body
