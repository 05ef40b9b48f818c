"""Every bad request an endpoint may meet, through a real router process: the status, OpenAI's shape, and that it is
counted.

One router serves all of it; what wakes nothing is told from the demand it sends. Behind it are the fakes.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from activator.wire import Demand, EndpointRow, ReplicaRow
from pilotlight.keys import ensure_pepper, hash_key, mint
from router.ledger.wire import KeyRow, Policy
from tests.integration.router_site import Site, stopped
from tests.router_world import endpoint_row

pytestmark = pytest.mark.asyncio(loop_scope="module")

LARGEST = 64 << 10  # bytes of a body
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
ENDPOINTS = ("tiny", "vectors", "full", "late", "broken", "foreign")  # `tiny` runs, the others are at zero


class Bad(Site):
    """A router in front of one endpoint of each kind, with a key for each."""

    http_client: httpx.AsyncClient

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.keys = {name: mint() for name in ENDPOINTS}
        pepper = ensure_pepper(self.paths)
        self.ledger.policy = Policy(
            version=1,
            keys=tuple(
                KeyRow(
                    hash=hash_key(pepper, key).hex(),
                    key_id=name,
                    org_id="default",
                    endpoint_id=f"e-{name}",
                    scope="inference",
                )
                for name, key in self.keys.items()
            ),
        )
        self.activator.endpoints = {name: self.row(name) for name in ENDPOINTS}

    def row(self, name: str) -> EndpointRow:
        special: dict[str, dict[str, Any]] = {
            "vectors": {"task": "embed"},
            "full": {"max_held": 1},
            "late": {"hold_seconds": 0.2, "expected_seconds": 500.0, "starting": True},
            "broken": {"failure": "too little memory", "retry_after_seconds": 9.0},
        }
        more = special.get(name, {})
        replicas = (ReplicaRow(replica_id="p", address=self.replica.address, slots=8),) if name == "tiny" else ()
        row = endpoint_row(*replicas, name=name, endpoint_id=f"e-{name}", revision_id=f"r-{name}", **more)
        return row.model_copy(update={"org_id": "another"}) if name == "foreign" else row

    async def counted(self) -> dict[int, int]:
        """Requests by status, over all endpoints."""
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text
        counts: dict[int, int] = {}
        for code, count in re.findall(
            r'^pilotlight_router_requests_total\{code="(\d+)",.*\} (\S+)$', text, re.MULTILINE
        ):
            counts[int(code)] = counts.get(int(code), 0) + int(float(count))
        return counts

    async def demanded(self, since: int) -> set[str]:
        """The revisions the router has asked for since the activator had heard so much, its next word included."""
        now = len(self.activator.heard)
        await self.activator.until(lambda: any(isinstance(frame, Demand) for frame in self.activator.heard[now:]))
        return {
            revision
            for frame in self.activator.heard[since:]
            if isinstance(frame, Demand)
            for revision in frame.requests
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bad() -> AsyncIterator[Bad]:
    with tempfile.TemporaryDirectory(prefix="pl") as name:
        made = Bad(Path(name))
        for fake in (made.replica, made.activator, made.ledger):
            await fake.start()
        process = await made.start(PILOTLIGHT_ROUTER__MAX_BODY_BYTES=str(LARGEST))
        try:
            await made.ready()
            async with made.http() as made.http_client:
                yield made
        finally:
            await stopped(process)
            for fake in (made.replica, made.activator, made.ledger):
                await fake.stop()


@dataclass(frozen=True)
class Case:
    """A bad request, and what is said to it."""

    what: str
    status: int
    code: str
    path: str = "/e/tiny/v1/chat/completions"
    param: str | None = None
    says: str = ""
    method: str = "POST"
    key: str | None = "tiny"  # of that endpoint; or the text itself
    body: Any = field(default_factory=lambda: CHAT)
    headers: dict[str, str] = field(default_factory=dict)
    at_zero: str = ""  # the endpoint it must not wake
    held_before: str = ""  # the endpoint that has a request waiting already


CASES = (
    Case("unknown endpoint", 404, "model_not_found", "/e/none/v1/chat/completions", "model", "GET /v1/models"),
    Case("unknown endpoint by model", 404, "model_not_found", "/v1/chat/completions", "model", "none", body={**CHAT, "model": "none"}),
    Case("another org's endpoint", 404, "model_not_found", "/e/foreign/v1/chat/completions", "model", key="foreign"),
    Case("a model that is not this endpoint's", 404, "model_not_found", param="model", says="gpt-4", body={**CHAT, "model": "gpt-4"}),
    Case("no key", 401, "invalid_api_key", says="pilotlight keys create", key=None),
    Case("a key nobody has", 401, "invalid_api_key", key=mint()),
    Case("no key at all", 401, "invalid_api_key", key="sk-something"),
    Case("no key, unknown endpoint", 401, "invalid_api_key", "/e/none/v1/chat/completions", key=None),
    Case("no key, models", 401, "invalid_api_key", "/v1/models", method="GET", key=None, body=None),
    Case("another endpoint's key", 403, "forbidden", says="tiny", key="late"),
    Case("another endpoint's key, models", 403, "forbidden", "/e/tiny/v1/models", method="GET", key="late", body=None),
    Case("not JSON", 400, "invalid_value", says="JSON", body=b"hello"),
    Case("half JSON", 400, "invalid_value", says="JSON", body=b'{"messages": ['),
    Case("no UTF-8", 400, "invalid_value", says="JSON", body=b'{"messages": "\xff"}'),
    Case("nothing", 400, "invalid_value", says="JSON", body=b""),
    Case("no object", 400, "invalid_value", says="object", body=[1]),
    Case("no messages", 400, "invalid_value", param="messages", body={}),
    Case("messages of a wrong shape", 400, "invalid_value", param="messages", body={"messages": "hi"}),
    Case("a message of a wrong shape", 400, "invalid_value", param="messages", body={"messages": ["hi"]}),
    Case("no prompt", 400, "invalid_value", "/e/tiny/v1/completions", "prompt", body={"max_tokens": 1}),
    Case("a prompt of a wrong shape", 400, "invalid_value", "/e/tiny/v1/completions", "prompt", body={"prompt": {}}),
    Case("no input", 400, "invalid_value", "/e/vectors/v1/embeddings", "input", key="vectors", at_zero="vectors", body={"user": "x"}),
    Case("an input of a wrong shape", 400, "invalid_value", "/e/vectors/v1/embeddings", "input", key="vectors", body={"input": [[]]}),
    Case("too many inputs", 400, "invalid_value", "/e/vectors/v1/embeddings", "input", "2048", key="vectors", body={"input": ["a"] * 2049}),
    Case("stream of a wrong shape", 400, "invalid_value", param="stream", body={**CHAT, "stream": 1}),
    Case("model of a wrong shape", 400, "invalid_value", param="model", body={**CHAT, "model": 1}),
    Case("n of a wrong shape", 400, "invalid_value", param="n", body={**CHAT, "n": "2"}),
    Case("n too large", 400, "invalid_value", param="n", body={**CHAT, "n": 1000}),
    Case("max_tokens of a wrong shape", 400, "invalid_value", param="max_tokens", body={**CHAT, "max_tokens": 1.5}),
    Case("a field of ours", 400, "invalid_value", param="priority", body={**CHAT, "priority": 1}),
    Case("no model, no endpoint", 400, "invalid_value", "/v1/chat/completions", "model"),
    Case("too large", 413, "request_too_large", says="max_body_bytes", body=b" " * (LARGEST + 1)),
    Case("too large, of no known length", 413, "request_too_large", body=[b" " * LARGEST] * 2, headers={"transfer-encoding": "chunked"}),
    Case("too large for the admin API", 413, "request_too_large", "/api/v1/endpoints", body=b" " * (LARGEST + 1)),
    Case("unknown route", 404, "not_found", "/e/tiny/v1/moderations", says="/v1/embeddings"),
    Case("unknown path", 404, "not_found", "/", method="GET", body=None),
    Case("wrong method", 405, "method_not_allowed", says="POST", method="GET", body=None),
    Case("wrong method for models", 405, "method_not_allowed", "/v1/models", says="GET", method="DELETE", body=None),
    Case("chat at an embedding model", 400, "invalid_value", "/e/vectors/v1/chat/completions", says="embed", key="vectors", at_zero="vectors"),
    Case(
        "embeddings of a chat model", 400, "invalid_value", "/e/late/v1/embeddings", says="generate", key="late", body={"input": "a"}, at_zero="late"
    ),
    Case("queue full", 503, "queue_full", "/e/full/v1/chat/completions", says="max_held", key="full", held_before="full"),
    Case("deadline", 503, "hold_timeout", "/e/late/v1/chat/completions", says="still starting", key="late"),
    Case("a start that cannot succeed", 503, "start_failed", "/e/broken/v1/chat/completions", says="pilotlight ps", key="broken", at_zero="broken"),
)  # fmt: skip


def request(bad: Bad, case: Case) -> httpx.Request:
    body = case.body
    if isinstance(body, list) and body and isinstance(body[0], bytes):

        async def pieces() -> AsyncIterator[bytes]:
            for piece in case.body:
                yield piece

        content: Any = pieces()
    else:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **case.headers}
    if case.key is not None:
        headers["authorization"] = f"Bearer {bad.keys.get(case.key, case.key)}"
    return bad.http_client.build_request(case.method, case.path, content=content, headers=headers)


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
async def test_bad_input(bad: Bad, case: Case) -> None:
    waiting: asyncio.Future[httpx.Response] | None = None
    if case.held_before:
        first = Case("first", 0, "", case.path, key=case.key)
        waiting = asyncio.ensure_future(bad.http_client.send(request(bad, first)))
        await bad.activator.until(lambda: f"r-{case.held_before}" in bad.activator.demand)
    before, heard = await bad.counted(), len(bad.activator.heard)
    reply = await bad.http_client.send(request(bad, case))
    assert reply.status_code == case.status
    assert reply.headers["content-type"].startswith("application/json")
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (case.code, case.param)
    assert error["type"] == ("server_error" if case.status >= 500 else "invalid_request_error")
    assert case.says in error["message"]
    assert ("retry-after" in reply.headers) == (case.status == 503)
    assert ("allow" in reply.headers) == (case.status == 405)
    if case.status == 503:
        least, most = {"late": (300, 500), "broken": (9, 9)}.get(case.key or "", (1, 1))  # a start: what is left of it
        assert least <= int(reply.headers["retry-after"]) <= most
    after = await bad.counted()
    assert after[case.status] == before.get(case.status, 0) + 1
    assert sum(after.values()) == sum(before.values()) + 1
    if case.at_zero:
        assert f"r-{case.at_zero}" not in await bad.demanded(heard)
    if waiting is not None:
        waiting.cancel()
        async with asyncio.timeout(60):
            while sum((await bad.counted()).values()) == sum(after.values()):
                await asyncio.sleep(0.02)  # until it is counted, too: the next case counts anew


async def test_the_same_connection_goes_on(bad: Bad) -> None:
    """What was refused leaves a router that serves."""
    reply = await bad.http_client.send(request(bad, Case("good", 200, "")))
    assert reply.status_code == 200


async def test_a_missing_and_a_wrong_key_take_the_same_time(bad: Bad) -> None:
    """Roughly: the unit test says that they do the same work; this, that nothing else on the way tells them apart."""
    cases = [
        Case("missing", 401, "", key=None),
        Case("wrong", 401, "", key=mint()),
        Case("no key of ours", 401, "", key="x" * 33),
    ]
    seconds: list[list[float]] = [[] for _ in cases]
    for _ in range(40):
        for case, taken in zip(cases, seconds, strict=True):
            asked = request(bad, case)
            began = time.perf_counter()
            assert (await bad.http_client.send(asked)).status_code == 401
            taken.append(time.perf_counter() - began)
    shortest = [min(taken) for taken in seconds]  # whatever else the machine does makes some longer, and none shorter
    assert max(shortest) < 2 * min(shortest)
