"""Step 1's other branch: models, probes, the admin relay, and OpenAI's shape on everything else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pilotlight.exposition import text
from tests.fakes import Admin, FakeRequest
from tests.router_world import ADMIN_KEY, KEY, OTHER_KEY, endpoint_row, get, world


async def test_models() -> None:
    async with world() as w:
        w.show(endpoint_row(name="other", endpoint_id="e2", revision_id="r2"))
        model = {"id": "tiny", "object": "model", "created": 1_700_000_000, "owned_by": "default"}
        for path in ("/v1/models", "/e/tiny/v1/models", "//v1//models"):
            assert (await get(w, path)).json == {"object": "list", "data": [model]}
        for path in ("/v1/models/tiny", "/e/tiny/v1/models/tiny"):
            assert (await get(w, path)).json == model
        assert {m["id"] for m in (await get(w, "/v1/models", key=ADMIN_KEY)).json["data"]} == {"tiny", "other"}


@pytest.mark.parametrize(
    ("path", "options", "status", "code"),
    [
        ("/v1/models", {"key": None}, 401, "invalid_api_key"),
        ("/e/tiny/v1/models", {"key": "wrong"}, 401, "invalid_api_key"),
        ("/e/tiny/v1/models", {"key": OTHER_KEY}, 403, "forbidden"),
        ("/e/none/v1/models", {}, 404, "model_not_found"),
        ("/v1/models/none", {}, 404, "model_not_found"),
        ("/v1/models/tiny", {"key": OTHER_KEY}, 404, "model_not_found"),
        ("/nothing", {}, 404, "not_found"),
        ("/", {}, 404, "not_found"),
        ("/v1/moderations", {"method": "POST"}, 404, "not_found"),
        ("/v1/embeddings", {}, 405, "method_not_allowed"),
        ("/v1/chat/completions", {}, 405, "method_not_allowed"),
        ("/e/tiny/v1/completions", {"method": "DELETE"}, 405, "method_not_allowed"),
        ("/v1/models", {"method": "POST"}, 405, "method_not_allowed"),
        ("/api/v1/endpoints", {}, 503, "starting"),
        ("/v1/responses/resp_1", {}, 404, "not_found"),
        ("/e/tiny/v1/responses/resp_1/cancel", {"method": "POST"}, 404, "not_found"),
        ("/e/tiny/health", {"key": None}, 401, "invalid_api_key"),
        ("/e/tiny/health", {"key": OTHER_KEY}, 403, "forbidden"),
        ("/e/none/health", {}, 404, "model_not_found"),
    ],
)
async def test_refusals(path: str, options: Any, status: int, code: str) -> None:
    async with world() as w:
        reply = await get(w, path, **options)
        assert (reply.status, reply.error["code"]) == (status, code)
        assert ("allow" in reply.headers) == (status == 405)
        assert len(reply.headers["x-request-id"]) == 32


@pytest.mark.parametrize("options", [{}, {"key": None, "headers": f"x-api-key: {KEY}\r\n"}])
async def test_health_is_asked_without_a_wake(options: Any) -> None:
    async with world(domain="models.test") as w:
        w.show(endpoint_row())  # at zero
        for path, host in (("/e/tiny/health", "x"), ("/health", "tiny.models.test")):
            assert (await get(w, path, host=host, **options)).status == 200
        assert w.changes == [] and w.table.revisions["r1"].demand == 0


async def test_every_page_has_an_id_of_its_own() -> None:
    async with world() as w:
        ids = {
            (await get(w, path, key=KEY)).headers["x-request-id"]
            for path in ("/healthz", "/readyz", "/v1/models", "/nothing")
        }
        assert len(ids) == 4


async def test_probes() -> None:
    async with world(show=False) as w:
        assert (await get(w, "/healthz", key=None)).status == 200
        assert (await get(w, "/readyz", key=None)).json == {"status": "waiting for endpoints"}
        early = await w.ask()
        assert (early.status, early.error["code"]) == (503, "starting")
        assert (await get(w, "/v1/models")).status == 503
        w.show(endpoint_row(w.row()))
        assert (await get(w, "/readyz", key=None)).status == 200
        w.router.draining = True
        assert (await get(w, "/readyz", key=None)).status == 503


async def test_a_bug_is_an_openai_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        monkeypatch.setattr(w.router.keys, "tenant", lambda _: 1 / 0)
        assert (await get(w, "/v1/models")).error["type"] == "server_error"


async def test_the_admin_relay() -> None:
    async with world() as w:
        admin = await Admin(f"unix:{w.folder}/admin.sock").start()
        client = await w.client()
        client.send(
            b"POST //api/v1/endpoints?dry=1%20x HTTP/1.1\r\nhost: pilot\r\ncontent-length: 2\r\nx-forwarded-for: 6.6.6.6\r\n"
            b"connection: x-secret\r\nx-secret: 1\r\nauthorization: Bearer k\r\n\r\n{}"
        )
        reply = await client.answer()
        assert (reply.status, reply.body, reply.headers["x-own"]) == (201, b"ok", "yes")
        [seen] = admin.requests
        assert seen.path == "/api/v1/endpoints?dry=1%20x"
        assert (seen.headers["host"], seen.headers["authorization"], seen.headers["x-forwarded-for"]) == (
            "pilot",
            "Bearer k",
            "127.0.0.1",
        )
        assert seen.body == b"{}"
        assert "x-secret" not in seen.headers
        await admin.stop()


async def test_the_admin_relay_keeps_a_body_s_length_whatever_the_client_calls_hop_by_hop() -> None:
    async with world() as w:
        admin = await Admin(f"unix:{w.folder}/admin.sock").start()
        client = await w.client()
        client.send(
            b"POST /api/v1/x HTTP/1.1\r\nhost: pilot\r\ncontent-length: 2\r\nx-secret: 1\r\n"
            b"connection: Content-Length, transfer-encoding , host, X-Secret\r\n\r\n{}"
        )
        assert (await client.answer()).status == 201
        [seen] = admin.requests
        assert (seen.headers["content-length"], seen.headers["host"], seen.body) == ("2", "pilot", b"{}")
        assert "x-secret" not in seen.headers
        await admin.stop()


async def test_what_the_admin_process_refuses_is_counted_like_what_we_refuse() -> None:
    async with world() as w:
        admin = Admin(f"unix:{w.folder}/admin.sock")
        statuses = iter((401, 404, 404, 200))

        async def refuse(_: FakeRequest) -> Any:
            yield b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\n{}" % next(statuses)

        admin.answer = refuse
        await admin.start()
        for status in (401, 404, 404, 200):
            client = await w.client()
            client.send(b"GET /api/v1/endpoints/none HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            assert (await client.answer()).status == status
        told = text(w.router.metrics.collect())
        assert 'pilotlight_router_requests_total{code="401",endpoint=""} 1.0' in told
        assert 'pilotlight_router_requests_total{code="404",endpoint=""} 2.0' in told
        assert 'code="200"' not in told, "what it serves is no endpoint's, and refused nobody"
        await admin.stop()


async def test_the_admin_relay_frames_a_body_of_unknown_length_anew() -> None:
    async with world() as w:
        seen: list[bytes] = []

        async def admin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"0\r\n\r\n"))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            writer.close()

        async with await asyncio.start_unix_server(admin, f"{w.folder}/admin.sock"):
            client = await w.client()
            client.send(
                b"PUT /api/v1/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
            )
            assert (await client.head())[0] == 204
        head, body = seen[0].split(b"\r\n\r\n", 1)
        assert b"transfer-encoding: chunked" in head and b"content-length" not in head
        assert body.replace(b"1\r\na\r\n2\r\nbc\r\n", b"3\r\nabc\r\n") == b"3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "status", "rest"),
    [
        (b"", 503, None),
        (b"HTTP/1.1 200 OK\r\n", 503, None),
        (b"nonsense\r\n\r\n", 503, None),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
            200,
            b"ab",
        ),  # then the connection breaks: never taken for whole
        (b"HTTP/1.1 413 Large\r\ncontent-length: 2\r\n\r\nno", 413, b"no"),
    ],
)
async def test_an_admin_process_that_dies_amid_its_answer(answer: bytes, status: int, rest: bytes | None) -> None:
    async with world() as w:

        async def admin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")  # and reads no body
            writer.write(answer)
            writer.close()

        async with await asyncio.start_unix_server(admin, f"{w.folder}/admin.sock"):
            client = await w.client()
            client.send(b"POST /api/v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            if rest is None:
                assert (await client.answer()).error["type"] == "server_error"
            else:
                head, headers = await client.head()
                assert head == status
                if len(rest) < int(headers["content-length"]):
                    assert await client.closed() == rest
                else:
                    assert await client.reader.readexactly(2) == rest


async def test_a_head_of_the_admin_relay_has_no_body() -> None:
    async with world() as w:
        admin = Admin(f"unix:{w.folder}/admin.sock")

        async def head_only(_: FakeRequest) -> Any:
            yield b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"
            await asyncio.Event().wait()

        admin.answer = head_only
        await admin.start()
        client = await w.client()
        client.send(b"HEAD /api/v1/status HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        status, headers = await client.head()
        assert (status, headers["content-length"]) == (200, "7")
        await admin.until(lambda: len(admin.aborted) == 1)
        await admin.stop()


async def test_who_leaves_the_admin_relay_ends_it_there_too() -> None:
    async with world() as w:
        admin = Admin(f"unix:{w.folder}/admin.sock")

        async def endless(_: FakeRequest) -> Any:
            yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"
            await asyncio.Event().wait()

        admin.answer = endless
        await admin.start()
        client = await w.client()
        client.send(b"GET /api/v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        assert (await client.head())[0] == 200
        await client.reader.readuntil(b"x\r\n")
        client.leave()
        await admin.until(lambda: len(admin.aborted) == 1)
        await admin.stop()
