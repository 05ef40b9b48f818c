"""Step 1: clients that send slowly, endlessly, oddly or nonsense."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.router_world import KEY, endpoint_row, request, until, world

AUTH = b"authorization: Bearer " + KEY.encode() + b"\r\n"
HEAD = b"POST /e/tiny/v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + AUTH
BODY = b'{"messages":[{"role":"user"}]}'


async def test_a_chunked_upload() -> None:
    async with world() as w:
        client = await w.client()
        client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        for at in range(0, len(BODY), 5):
            part = BODY[at : at + 5]
            client.send(b"%x\r\n%s\r\n" % (len(part), part))
            await asyncio.sleep(0)
        client.send(b"0\r\nx-trailer: y\r\n\r\n")
        assert (await client.answer()).status == 200
        assert json.loads(w.replica.requests[0].body)["messages"] == [{"role": "user"}]
        assert w.router.uploads.used == 0


async def test_every_byte_alone() -> None:
    async with world() as w:
        client = await w.client()
        for byte in request() + request():
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]


async def test_expect_100_continue() -> None:
    async with world() as w:
        client = await w.client()
        client.send(HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY))
        assert await client.head() == (100, {})
        client.send(BODY)
        assert (await client.answer()).status == 200


async def test_expect_100_continue_is_refused_before_the_body() -> None:
    async with world() as w:
        client = await w.client()
        client.send(
            HEAD.replace(KEY.encode(), b"wrong") + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY)
        )
        assert (await client.answer()).status == 401
        assert await client.closed() == b""


async def test_too_long_a_body_is_413_before_it_is_read() -> None:
    async with world(max_body=1000) as w:
        client = await w.client()
        client.send(HEAD + b"content-length: 1001\r\n\r\n")
        reply = await client.answer()
        assert (reply.status, reply.error["code"]) == (413, "request_too_large")
        assert reply.headers["connection"] == "close"


async def test_too_long_a_body_is_401_to_a_stranger() -> None:
    async with world(max_body=1000) as w:
        client = await w.client()
        client.send(HEAD.replace(KEY.encode(), b"wrong") + b"content-length: 100000\r\n\r\n")
        assert (await client.answer()).status == 401


async def test_too_long_a_chunked_body_is_413_as_soon_as_it_is() -> None:
    async with world(max_body=1000) as w:
        client = await w.client()
        client.send(HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"3e9\r\n" + b"x" * 1001)
        assert (await client.answer()).status == 413
        assert w.router.uploads.used == 0


async def test_too_many_bytes_coming_in_at_once() -> None:
    async with world(max_uploading=1000) as w:
        first, second = await w.client(), await w.client()
        first.send(HEAD + b"content-length: 900\r\n\r\n" + b"x" * 800)
        await until(lambda: w.router.uploads.used == 800)
        second.send(HEAD + b"content-length: 900\r\n\r\n" + b"x" * 800)
        reply = await second.answer()
        assert (reply.status, reply.error["code"]) == (503, "queue_full")
        first.leave()
        await until(lambda: w.router.uploads.used == 0)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", 400),
        (HEAD + b"content-length: -1\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"".join(b"x-%d: y\r\n" % n for n in range(200)) + b"\r\n", 431),
        (HEAD + b"x-long: " + b"y" * 100_000, 431),
        (b"GET /" + b"y" * 10_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
async def test_nonsense_is_told_and_the_connection_closed(raw: bytes, status: int) -> None:
    async with world() as w:
        client = await w.client()
        client.send(raw)
        reply = await client.answer()
        assert reply.status == status
        assert reply.error["message"]
        assert await client.closed() == b""


async def test_nonsense_waits_for_its_turn() -> None:
    async with world() as w:
        client = await w.client()
        client.send(request() + b"NONSENSE\r\n\r\n")
        assert [(await client.answer()).status for _ in range(2)] == [200, 400]
        assert await client.closed() == b""


async def test_a_slow_head_is_408() -> None:
    async with world(header_seconds=0.05) as w:
        client = await w.client()
        client.send(HEAD)
        reply = await client.answer()
        assert (reply.status, reply.error["code"]) == (408, "request_timeout")
        assert await client.closed() == b""


async def test_a_slow_body_is_408() -> None:
    async with world(header_seconds=0.05) as w:
        client = await w.client()
        client.send(HEAD + b"content-length: 100\r\n\r\n{")
        assert (await client.answer()).status == 408
        assert w.router.uploads.used == 0


async def test_a_long_answer_is_no_slow_request() -> None:
    async with world(header_seconds=0.05, keep_alive_seconds=0.05) as w:
        w.replica.pause = 0.06
        assert (await w.ask(stream=True)).body.endswith(b"[DONE]\n\n")


async def test_a_refusal_behind_a_long_answer_waits_for_it() -> None:
    async with world(header_seconds=0.03, keep_alive_seconds=0.03) as w:
        w.replica.pause = 0.05
        client = await w.client()
        client.send(request(stream=True) + b"NONSENSE\r\n\r\n")
        assert (await client.answer()).body.endswith(b"[DONE]\n\n")
        assert (await client.answer()).status == 400


async def test_half_a_request_behind_a_long_answer_is_408_after_it() -> None:
    async with world(header_seconds=0.03, keep_alive_seconds=0.03) as w:
        w.replica.pause = 0.05
        client = await w.client()
        client.send(request(stream=True) + HEAD)
        assert (await client.answer()).body.endswith(b"[DONE]\n\n")
        assert (await client.answer()).status == 408


async def test_who_says_nothing_is_let_go() -> None:
    async with world(header_seconds=0.05) as w:
        client = await w.client()
        assert await client.closed() == b""


async def test_an_idle_connection_is_let_go() -> None:
    async with world(keep_alive_seconds=0.05) as w:
        client = await w.client()
        client.post()
        assert (await client.answer()).status == 200
        assert await client.closed() == b""


async def test_who_offers_another_protocol_is_served_in_this_one() -> None:
    """As Java's client does on a plain connection: httptools then takes the body for the other protocol's."""
    async with world() as w:
        client = await w.client()
        offer = (
            "connection: Upgrade, HTTP2-Settings",
            "upgrade: h2c",
            "http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
        )
        client.send(request(headers=offer) + request())
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]


async def test_very_many_pipelined_requests_end_the_connection() -> None:
    async with world() as w:
        client = await w.client()
        client.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 100)
        raw = await client.closed()
        assert raw.count(b"HTTP/1.1 200") == 32


async def test_much_pipelined_behind_a_slow_answer_ends_the_connection_after_it() -> None:
    async with world() as w:
        w.show(endpoint_row())
        client = await w.client()
        client.post()
        await w.wait_held(1)
        for _ in range(30):
            client.send(request(bad_words=["y" * 128] * 32))
            await asyncio.sleep(0)
        await until(lambda: all(connection._deaf for connection in w.connections))
        w.show(endpoint_row(w.row()))
        reply = await client.answer()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert await client.closed() == b""


async def test_a_client_that_is_gone_leaves_the_hold() -> None:
    async with world() as w:
        w.show(endpoint_row())
        client = await w.client()
        client.post()
        await w.wait_held(1)
        client.leave()
        await w.wait_held(0)
        [end] = await w.ends()
        assert (end["finish"], end["status"], end["replica_id"], end["count_source"]) == (
            "client_disconnect",
            0,
            "",
            "none",
        )
        assert not w.replica.requests


async def test_a_crash_in_a_callback_strands_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from router.relay.relay import Relay

    def crash(*_: Any) -> None:
        raise RuntimeError("a bug")

    async with world() as w:
        monkeypatch.setattr(Relay, "start", crash)
        client = await w.client()
        client.post()
        assert await client.closed() == b""
        [end] = await w.ends()
        assert end["finish"] == "client_disconnect"
        assert w.table.revisions["r1"].demand == 0


async def test_a_crash_while_passing_on_strands_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from router.app import Call

    def crash(*_: Any) -> None:
        raise RuntimeError("a bug")

    async with world() as w:
        monkeypatch.setattr(Call, "complete", crash)
        client = await w.client()
        client.post()
        assert await client.closed() == b""
        [end] = await w.ends()
        assert end["finish"] == "upstream_error"
        assert w.table.revisions["r1"].demand == 0


async def test_drained_connections() -> None:
    """SIGTERM's steps: what runs is finished, what is held may still be served, what is left is told."""
    async with world() as w:
        w.show(endpoint_row())
        idle, served, left = await w.client(), await w.client(), await w.client()
        idle.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await idle.answer()).status == 200
        served.post()
        await w.wait_held(1)
        left.post()
        await w.wait_held(2)
        for connection in list(w.connections):
            connection.shutdown()
        assert await idle.closed() == b""
        w.show(endpoint_row(w.row(slots=1)))
        reply = await served.answer()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        for connection in list(w.connections):
            connection.drained()
        reply = await left.answer()
        assert reply.status in (200, 503)
        assert await left.closed() == b""
        await w.ends()
