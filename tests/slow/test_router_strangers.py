"""Step 1: every connection has a deadline and a bound in every state, whoever leaves, stops, floods or does not read.

All bad clients of a kind are there at once, beside a good one; what counts is that nothing of theirs is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from router.admission.strangers import MOST_STRANGE
from router.edge.asgi_turn import AsgiTurn
from router.edge.exchange import ClientLimits, Exchange
from router.edge.patience import BODY_STEP, LINGER_SECONDS, Patience
from router.edge.protocol import RouterProtocol
from tests.router_world import KEY, World, endpoint_row, raw, request, tell, until, world

AUTH = b"authorization: Bearer " + KEY.encode() + b"\r\n"
CALL = b"POST /e/tiny/v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
COLD = CALL.replace(b"tiny", b"cold")
SHORT: dict[str, Any] = {"header_seconds": 0.1, "keep_alive_seconds": 0.1, "upload_seconds": 0.2, "unread_seconds": 0.2}

STATES = {  # what was sent so far; where nothing is due from the client, no deadline of its counts
    "nothing": b"",
    "blank lines": b"\r\n" * 20,
    "half a head": CALL,
    "a page": b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
    "a page and half a head": b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /",
    "a page without its short body": b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n",
    "a page with much of its long body": b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\n\r\n" + b"x" * 300_000,
    "a page with an endless body": b"GET /nope HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"2\r\nab\r\n" * 50_000,
    "a page that was to ask first": b"PUT /healthz HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n",
    "a stranger's form": b"POST /api/v1/keys HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n" + b"x" * 800,
    "a stranger's long form": b"POST /api/v1/keys HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n" + b"x" * 300_000,
    "an admin's endless form": b"POST /api/v1/keys HTTP/1.1\r\nhost: x\r\n" + AUTH + b"transfer-encoding: chunked\r\n\r\n" + b"2\r\nab\r\n" * 50_000,
    "part of a body": CALL + AUTH + b"content-length: 900000\r\n\r\n" + b"x" * 300_000,
    "no body": CALL + AUTH + b"content-length: 9\r\n\r\n",
    "a body that was asked for": CALL + AUTH + b"expect: 100-continue\r\ncontent-length: 9\r\n\r\n",
    "part of a chunk": CALL + AUTH + b"transfer-encoding: chunked\r\n\r\nffff\r\nabc",
    "part of a trailer": CALL + AUTH + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"x-t: y\r\n" * 2000,
    "a refused call without its body": CALL + b"content-length: 900\r\n\r\n" + b"x" * 800,
    "a refused call with much of its body": CALL + b"content-length: 900000\r\n\r\n" + b"x" * 300_000,
    "nonsense": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "another protocol": b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x05hello",
    "an answered call": request(),
    "an answered call and part of a body": request() + CALL + AUTH + b"content-length: 900\r\n\r\n" + b"x" * 800,
}  # fmt: skip
HELD = {  # these wait for a replica, which takes no deadline of the client's
    "held": request(url="/e/cold/v1/chat/completions"),
    "held, and much behind it": request(url="/e/cold/v1/chat/completions") + b"GET / HTTP/1.1\r\n" * 20_000,
    "held, and part of a body behind it": request(url="/e/cold/v1/chat/completions") + CALL + AUTH + b"content-length: 90000\r\n\r\nx",
    "held, and a page's body behind it": request(url="/e/cold/v1/chat/completions") + b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 90000\r\n\r\nx",
}  # fmt: skip


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.close()


def descriptors(w: World) -> int:
    """This process's, but for both ends of idle connections to the replica, which are kept on purpose."""
    [replica] = w.table.revisions["r1"].replicas.values()
    return len(os.listdir("/proc/self/fd")) - 2 * len(replica.pool._idle)


async def served(w: World) -> None:
    """A good client is, beside them; its time is as short as theirs, so a machine that gives this process no turn may
    cut it: it comes again.
    """
    async with asyncio.timeout(10.0):
        while True:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                reply = await w.ask()
                assert reply.status == 200
                return w.clients.pop().leave()
            w.clients.pop().leave()


@pytest.mark.parametrize("end", [socket.socket.close, reset, None], ids=["leaves", "resets", "stays"])
async def test_nothing_is_left_of_any_bad_client(
    end: Callable[[socket.socket], None] | None, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(gc.enable)
    async with world(**SHORT) as w:
        w.show(endpoint_row(w.row()), endpoint_row(name="cold", endpoint_id="e1", revision_id="r2"))
        assert (await w.ask()).status == 200
        w.clients.pop().leave()
        await until(lambda: not w.connections)
        before = descriptors(w)
        gc.collect()
        gc.disable()
        them = {name: raw(w) for name in (STATES if end is None else {**STATES, **HELD})}
        await asyncio.gather(*(tell(client, {**STATES, **HELD}[name]) for name, client in them.items()))
        await served(w)
        for client in them.values():
            if end is not None:
                end(client)
        await until(lambda: not w.connections, seconds=10.0)
        assert (w.router.uploads.used, w.hold.held_bytes) == (0, 0)
        assert not any(endpoint.held for endpoint in w.table.endpoints.values())
        for client in them.values():
            client.close()
        await until(lambda: descriptors(w) <= before)
        left = [each for each in gc.get_objects() if isinstance(each, RouterProtocol | Exchange | AsgiTurn)]
        assert not left, "nobody looks for cycles for a long time, and each would keep what TLS has read for it"
        assert len(w.replica.requests) <= 4, "nothing is sent for those who have left"


@pytest.mark.parametrize(
    "flood",
    [b"GET /nope HTTP/1.1\r\nhost: x\r\n\r\n", request(key=None, body=b"{}"), request(body=b"{}")],
    ids=["pages", "strangers", "calls"],
)
async def test_who_asks_and_asks_and_reads_nothing_fills_no_memory(flood: bytes) -> None:
    async with world(unread_seconds=0.3) as w:
        client = raw(w, buffer=4096)
        sending = asyncio.ensure_future(tell(client, flood * 100_000))
        await until(lambda: w.connections)
        [connection] = w.connections
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        most = 0

        def gone() -> bool:
            nonlocal most
            most = max(most, connection.transport.get_write_buffer_size() + len(connection._stash))
            return not w.connections

        await until(gone)
        assert most < 256 << 10
        await sending
        client.close()


async def test_guessing_keys_costs_a_connection_now_and_then() -> None:
    async with world() as w:
        client = await w.client()
        client.send(request(key="wrong", body=b"{}") * 100)
        raw_answers = await client.closed()
        assert raw_answers.count(b"HTTP/1.1 401") == MOST_STRANGE
        assert raw_answers.count(b"connection: close") == 1


async def test_a_burst_of_one_client_lets_others_have_their_turn() -> None:
    async with world() as w:
        burst, other = await w.client(), await w.client()
        await until(lambda: len(w.connections) == 2)
        order: list[str] = []

        def refused(status: int) -> None:
            order.append(str(status))

        w.router.metrics.refused = refused  # type: ignore[method-assign]
        burst.send(request(body=b"{") * 30)
        other.send(request(url="/e/none/v1/chat/completions"))
        assert (await other.answer()).status == 404
        assert order.index("404") < 30 and order.count("400") <= 30
        assert [(await burst.answer()).status for _ in range(30)] == [400] * 30


async def test_who_does_not_read_a_short_answer_is_cut_too() -> None:
    """Less waits than would pause anybody."""
    async with world(**SHORT) as w:
        client = raw(w, buffer=4096)
        await until(lambda: w.connections)
        [connection] = w.connections
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await tell(client, b"GET /nope HTTP/1.1\r\nhost: x\r\n\r\n" * 60)
        await until(lambda: connection.transport.get_write_buffer_size() > 0 or not w.connections)
        await until(lambda: not w.connections)
        client.close()


async def test_a_page_that_was_answered_before_its_body_takes_the_next_request() -> None:
    async with world() as w:
        client = await w.client()
        client.send(b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")
        assert (await client.answer()).status == 405
        client.send(b"0123456789" + request())
        assert (await client.answer()).status == 200


async def test_a_long_body_of_a_page_is_answered_and_the_connection_ends() -> None:
    async with world() as w:
        client = await w.client()
        client.send(b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000)
        reply = await client.answer()
        assert (reply.status, reply.headers["connection"]) == (405, "close")
        assert await client.closed() == b""


async def test_nonsense_in_a_pages_body_does_not_end_the_call_before_it() -> None:
    async with world() as w:
        w.show(endpoint_row())
        client = await w.client()
        client.send(request() + b"POST /api/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        await w.wait_held(1)
        w.show(endpoint_row(w.row()))
        assert [(await client.answer()).status for _ in range(2)] == [200, 400]


@pytest.mark.parametrize(
    "target",
    [
        b"http://h/e/tiny/v1/chat/completions",
        b"HTTPS://h:443//e/tiny/v1/chat/completions?x=y",
        b"/e/tiny/v1/chat/completions#x",
    ],
)
async def test_a_whole_url_means_its_path(target: bytes) -> None:
    async with world() as w:
        client = await w.client()
        client.send(request().replace(b"/e/tiny/v1/chat/completions", target))
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    ("raw_request", "word"),
    [
        (b"GET http://host:99999/ HTTP/1.1\r\nhost: x\r\n\r\n", "host"),
        (b"GET http://a@b@c/ HTTP/1.1\r\nhost: x\r\n\r\n", "host"),
        (b"GET http://h:80:90/ HTTP/1.1\r\nhost: x\r\n\r\n", "host"),
        (b"GET ftp://h/ HTTP/1.1\r\nhost: x\r\n\r\n", "slash"),
        (b"GET * HTTP/1.1\r\nhost: x\r\n\r\n", "slash"),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n", "url"),
        (b"GET / HTTP/1.1\r\n\r\n", "Host"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", "Host"),
        (b"GET / HTTP/1.0\r\nhost: a\r\nHost: b\r\n\r\n", "Host"),
        (b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", "Host"),
        (b"GET / HTTP/1.1\r\nhost: u@h\r\n\r\n", "Host"),
        (b"GET / HTTP/1.1\r\nhost: h:70000\r\n\r\n", "Host"),
        (request().replace(b"authorization", b"authorization: Bearer x\r\nauthorization"), "Authorization"),
    ],
)  # fmt: skip
async def test_a_head_that_two_readers_take_two_ways_is_400(raw_request: bytes, word: str) -> None:
    async with world() as w:
        client = await w.client()
        client.send(raw_request)
        reply = await client.answer()
        assert reply.status == 400
        assert word in reply.error["message"]
        assert await client.closed() == b""


async def test_http_1_0_needs_no_host() -> None:
    async with world() as w:
        client = await w.client()
        client.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await client.answer()).status == 200


LIMITS = ClientLimits(
    max_body=8 << 20, header_seconds=10.0, keep_alive_seconds=75.0, upload_seconds=120.0, unread_seconds=60.0
)


async def test_a_byte_now_and_then_gives_no_further_time() -> None:
    patience = Patience(LIMITS, now=0.0)
    assert patience.until == 10.0
    patience.rest(1.0, 1, False, 0)
    for now in range(2, 9):
        patience.rest(float(now), 1, False, 0)
    assert patience.until == 11.0
    patience.rest(8.0, 1, True, 0)
    assert patience.until == 18.0
    patience.rest(9.0, 1, True, BODY_STEP)
    assert patience.until == 18.0, "not more than a step"
    for step in range(20):
        patience.rest(10.0 + 9 * step, 1, True, BODY_STEP + (BODY_STEP + 1) * (step + 1))
    assert patience.until == 121.0, "whatever comes, all of it has its time"
    patience.answered(200.0, complete=True)
    assert patience.until == 275.0
    patience.answered(200.0, complete=False)
    assert patience.until == 210.0
    patience.linger(300.0)
    assert patience.until == 300.0 + LINGER_SECONDS
    patience.rest(400.0, 2, False, 0)
    assert patience.until == 410.0, "the next request has its own"


async def test_after_a_refusal_nothing_that_follows_is_answered() -> None:
    async with world() as w:
        client = await w.client()
        client.send(b"GET / HTTP/1.1\r\n\r\nCONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await client.closed()).count(b"x-request-id") == 1
