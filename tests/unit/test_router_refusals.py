"""Step 2: whoever shows no good key, too often, is told to wait; nobody with a good key ever is."""

from __future__ import annotations

import asyncio

import pytest

from router.admission.rates import SAVED_SECONDS
from router.admission.strangers import MOST_STRANGE
from router.edge.exchange import MOST_DISCARDED
from tests.router_world import ADMIN_KEY, KEY, World, endpoint_row, request, until, world

pytestmark = pytest.mark.asyncio

SLOW = 0.5  # refused requests a second: nothing comes back while a test runs
AT_ONCE = int(SLOW * SAVED_SECONDS)
PAGE = b"GET /nope HTTP/1.1\r\nhost: x\r\n\r\n"
STRANGE = {  # what a stranger is refused for
    "a wrong key": (request(key="wrong"), 401),
    "no key": (request(key=None), 401),
    "an admin's key for a call": (request(key=ADMIN_KEY), 403),
    "a wrong key and a long body": (request(key="wrong", body=b"x" * (MOST_DISCARDED + 1)), 401),
    "no such page": (PAGE, 404),
    "a page without a key": (b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", 401),
    "a wrong method": (b"DELETE /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    "no HTTP": (b"hello\r\n\r\n", 400),
    "two hosts": (b"GET /healthz HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
    "too long a URL": (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
    "too long a form": (b"POST /api/v1/keys HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n", 401),
}  # fmt: skip


async def status(w: World, data: bytes) -> int:
    client = await w.client()
    client.send(data)
    reply = await client.answer()
    assert reply.status < 429 or int(reply.headers["retry-after"]) >= 1
    client.leave()
    return reply.status


@pytest.mark.parametrize("kind", STRANGE)
async def test_a_stranger_that_comes_again_and_again_is_told_to_wait_and_good_callers_are_served(kind: str) -> None:
    data, expected = STRANGE[kind]
    async with world(refusals_per_second=SLOW) as w:
        assert [await status(w, data) for _ in range(AT_ONCE + 2)] == [expected] * AT_ONCE + [429] * 2
        for _ in range(3 * AT_ONCE):
            assert (await w.ask()).status == 200
        models = await w.client()
        models.send(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\n\r\n")
        assert (await models.answer()).status == 200
        for probe in (b"healthz", b"readyz", b"openapi.json"):
            assert await status(w, b"GET /" + probe + b" HTTP/1.1\r\nhost: x\r\n\r\n") in (200, 503)


async def test_what_a_good_key_is_refused_for_counts_for_nobody() -> None:
    async with world(refusals_per_second=SLOW) as w:
        for _ in range(3 * AT_ONCE):
            assert (await w.ask(url="/e/nope/v1/chat/completions")).status == 404
            assert (await w.ask(body=b"{")).status == 400
            assert (await w.ask(body=b"x" * (1 << 20) + b"x")).status == 413
        page = b"GET /nope HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\n\r\n"
        assert [await status(w, page) for _ in range(3 * AT_ONCE)] == [404] * 3 * AT_ONCE
        assert await status(w, request(key="wrong")) == 401


async def test_a_refusal_that_is_our_fault_counts_for_nobody() -> None:
    async with world(refusals_per_second=SLOW) as w:
        w.router.keys._tenants = None
        assert [await status(w, request(key="wrong")) for _ in range(3 * AT_ONCE)] == [503] * 3 * AT_ONCE


async def test_the_limit_ends_the_connection_and_a_good_key_on_another_is_served_at_once() -> None:
    async with world(refusals_per_second=SLOW) as w:
        client = await w.client()
        for _ in range(AT_ONCE):
            client.post(key="wrong")
            assert (await client.answer()).status == 401
        client.post(key="wrong")
        reply = await client.answer()
        assert (reply.status, reply.headers["connection"], reply.error["code"]) == (429, "close", "rate_limit_exceeded")
        assert reply.error["type"] == "rate_limit_error" and "Authorization" in reply.error["message"]
        assert await client.closed() == b""
        assert (await w.ask()).status == 200


async def test_strangers_behind_a_trusted_proxy_are_told_apart() -> None:
    async with world(refusals_per_second=SLOW, trusted_proxies=("127.0.0.1",)) as w:

        def call(caller: str) -> bytes:
            return request(key="wrong", headers=(f"x-forwarded-for: {caller}",))

        assert [await status(w, call("1.2.3.4")) for _ in range(AT_ONCE + 1)] == [401] * AT_ONCE + [429]
        assert await status(w, call("1.2.3.5")) == 401
        assert await status(w, call("2001:db8::1")) == 401
        assert (await w.ask(headers=("x-forwarded-for: 1.2.3.4",))).status == 200


async def test_who_is_believed_no_proxy_chooses_no_address() -> None:
    async with world(refusals_per_second=SLOW) as w:
        found = [
            await status(w, request(key="wrong", headers=(f"x-forwarded-for: 1.2.3.{n}",))) for n in range(AT_ONCE + 1)
        ]
        assert found == [401] * AT_ONCE + [429]


async def test_pages_without_a_key_end_their_connection_too() -> None:
    async with world() as w:
        client = await w.client()
        client.send(PAGE * 30)
        heads = (await client.closed()).count(b"HTTP/1.1 404 ")
        assert heads == MOST_STRANGE
        await until(lambda: not w.connections)


async def test_a_body_in_tiny_chunks_arrives_as_it_was_sent() -> None:
    body = b'{"messages":[{"role":"user","content":"' + b"hello " * 3000 + b'"}]}'
    head = request(headers=("transfer-encoding: chunked",), body=b"").replace(b"content-length: 0\r\n", b"")
    chunks = b"".join(b"2\r\n%s\r\n" % body[at : at + 2] for at in range(0, len(body) - 1, 2))
    chunks += b"1\r\n%s\r\n" % body[-1:] if len(body) % 2 else b""
    async with world() as w:
        w.show(endpoint_row(w.row()))
        client = await w.client()
        client.send(head + chunks[:20_001])
        await asyncio.sleep(0)
        client.send(chunks[20_001:] + b"0\r\n\r\n" + request())
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        assert b"hello " * 3000 in w.replica.requests[0].body
