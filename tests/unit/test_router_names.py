"""Which endpoint a call means: by path, by host, by `model`; and embeddings, the second task."""

from __future__ import annotations

from typing import Any

import pytest

from pilotlight import tls
from pilotlight.addresses import of_this_machine
from pilotlight.settings import RouterSettings
from router.admission.request import named_by_host
from tests.router_world import OTHER_KEY, World, endpoint_row, get, world


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"tiny.llm.test", "tiny"),
        (b"tiny.llm.test:8443", "tiny"),
        (b"TINY.LLM.Test.", "tiny"),
        (b"llm.test", None),
        (b".llm.test", None),
        (b"a.tiny.llm.test", None),
        (b"tinyllm.test", None),
        (b"tiny.llm.test.evil.test", None),
        (b"[::1]:8443", None),
        (b"\xff\xfe", None),
        (b"", None),
    ],
)
def test_hosts(host: bytes, name: str | None) -> None:
    assert named_by_host(host, "llm.test") == name
    assert named_by_host(host, "") is None


def test_the_certificate_is_good_for_them() -> None:
    assert tls.names(RouterSettings(domain="llm.test")) == ["127.0.0.1", "llm.test", "*.llm.test"]
    assert tls.names(RouterSettings(host="0.0.0.0", names=("llm.example.org", "203.0.113.7"))) == [
        *of_this_machine(),
        "llm.example.org",
        "203.0.113.7",
    ]


def two(w: World) -> None:
    w.show(
        endpoint_row(w.row()), endpoint_row(w.row(replica_id="p2"), name="other", endpoint_id="e2", revision_id="r2")
    )


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"url": "/v1/chat/completions", "host": "tiny.llm.test:8443"}, 200),
        ({"url": "/v1/completions", "host": "tiny.llm.test", "prompt": "a", "model": "tiny"}, 200),
        ({"url": "/v1/chat/completions", "host": "tiny.llm.test", "model": "other"}, 404),  # the host has spoken
        ({"url": "/v1/chat/completions", "host": "none.llm.test"}, 404),
        ({"url": "/v1/chat/completions", "host": "other.llm.test"}, 403),
        ({"url": "/v1/chat/completions", "host": "other.llm.test", "key": OTHER_KEY}, 200),
        ({"url": "/e/tiny/v1/chat/completions", "host": "other.llm.test"}, 200),  # a name in the path is the nearer one
        ({"url": "/v1/chat/completions", "host": "llm.test", "model": "tiny"}, 200),
        ({"url": "/v1/chat/completions", "model": "tiny"}, 200),
        ({"url": "/v1/chat/completions"}, 400),
    ],
)
async def test_which_endpoint_is_meant(options: dict[str, Any], status: int) -> None:
    async with world(domain="LLM.test.") as w:
        two(w)
        assert (await w.ask(**options)).status == status
        assert len(w.replica.requests) == (status == 200)


async def test_models_of_a_host() -> None:
    async with world(domain="llm.test") as w:
        two(w)
        for path, status in (
            ("/v1/models", 200),
            ("//v1//models/tiny", 200),
            ("/v1/models/other", 404),
            ("/v1/none", 404),
        ):
            client = await w.client()
            assert (await get(w, path, client=client, host="tiny.llm.test")).status == status
        assert (await get(w, "/v1/models", host="other.llm.test")).status == 403


async def test_embeddings_are_relayed_and_metered() -> None:
    async with world() as w:
        w.show(endpoint_row(w.row(), task="embed"))
        for given in ("hi", ["a", "b"], [1, 2], [[1], [2, 3]]):
            reply = await w.ask(url="/e/tiny/v1/embeddings", input=given, messages=None)
            assert (reply.status, reply.json["data"][0]["embedding"]) == (200, [0.5, -0.5])
            assert "x-pilotlight-usage" not in reply.headers
        assert {(seen.path, seen.fields["model"]) for seen in w.replica.requests} == {("/v1/embeddings", "tiny")}
        for end in await w.ends():
            assert (end["input_tokens"], end["output_tokens"], end["count_source"], end["finish"]) == (
                5,
                0,
                "engine",
                "complete",
            )


@pytest.mark.parametrize(
    ("task", "url"),
    [
        ("generate", "/e/tiny/v1/embeddings"),
        ("embed", "/e/tiny/v1/chat/completions"),
        ("embed", "/e/tiny/v1/completions"),
    ],
)
async def test_a_route_of_another_task_wakes_nothing(task: Any, url: str) -> None:
    async with world() as w:
        w.show(endpoint_row(task=task))
        w.changes.clear()
        field = "input" if "embed" in url else "messages" if "chat" in url else "prompt"
        reply = await w.ask(url=url, **{field: [{"role": "user"}] if field == "messages" else "a"})
        assert (reply.status, reply.error["code"]) == (400, "invalid_value")
        assert task in reply.error["message"]
        assert (w.changes, w.replica.requests) == ([], [])
