"""The first true line, as a user sees it: real vLLM, Postgres, TLS and safetensors, from zero and back to zero."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.integration.system import QUESTION, System, running, wait_until


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with running() as system:
        yield system


@pytest.fixture(scope="module")
def demo(system: System) -> str:
    return system.deploy("demo", "--idle-timeout", "3", "--slots", "16")


def body(question: str = QUESTION, **more: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": question}], "max_tokens": 100, "temperature": 0} | more


def test_a_call_wakes_the_endpoint_streams_is_billed_and_it_goes_back_to_zero(system: System, demo: str) -> None:
    assert system.replicas("demo") == []
    with openai.OpenAI(base_url=f"{system.api.url}/e/demo/v1", api_key=demo, http_client=_openai_http(system)) as client:
        raw = client.chat.completions.with_raw_response.create(**body(stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices)
        assert "Pilotlight" in text
        assert raw.headers["x-pilotlight-start"] == "cold"
        assert "load;dur=" in raw.headers["server-timing"]
        warm = client.chat.completions.with_raw_response.create(**body())
        assert warm.headers["x-pilotlight-start"] == "warm"
        assert warm.parse().choices[0].message.content == text
        usage = warm.parse().usage
    assert usage is not None
    replica = system.until_ready("demo")
    rows = {row["event_id"]: row for row in system.usage("demo", 2)}
    cold_row, warm_row = (system.request(answer.headers["x-request-id"]) for answer in (raw, warm))
    assert (warm_row["input_tokens"], warm_row["output_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert (cold_row["start"], cold_row["finish"], cold_row["count_source"]) == ("cold", "complete", "engine")
    assert float(cold_row["cost"]) > 0
    phases = {phase["name"]: phase["seconds"] for phase in cold_row["phases"]}
    assert {"hold", "spawn", "fetch", "load", "init", "first_token"} <= set(phases)
    assert sum(phases.values()) == pytest.approx(cold_row["first_byte_ms"] / 1000, rel=0.05, abs=0.02)
    assert system.engine_counters(replica) == (
        sum(row["input_tokens"] for row in rows.values()),
        sum(row["output_tokens"] for row in rows.values()),
    )
    system.until_zero("demo")


async def test_fifty_calls_at_zero_make_one_start_fifty_answers_and_fifty_rows(system: System, demo: str) -> None:
    await asyncio.to_thread(system.until_zero, "demo")
    before = await asyncio.to_thread(system.usage, "demo", 0)
    async with system.async_client(demo) as client:

        async def one(number: int) -> str:
            answer = await client.post("/e/demo/v1/chat/completions", json=body(stream=number % 2 == 0))
            assert answer.status_code == 200, answer.text
            return _text(answer.text) if number % 2 == 0 else answer.json()["choices"][0]["message"]["content"]

        texts = await asyncio.gather(*(one(number) for number in range(50)))
    assert len(set(texts)) == 1 and "Pilotlight" in texts[0]
    (replica,) = await asyncio.to_thread(system.replicas, "demo")
    counters = await asyncio.to_thread(system.engine_counters, replica)
    rows = await asyncio.to_thread(system.usage, "demo", len(before) + 50)
    rows = [row for row in rows if row["replica_id"] == replica["replica_id"]]
    assert len(rows) == 50
    assert counters == (sum(row["input_tokens"] for row in rows), sum(row["output_tokens"] for row in rows))
    assert all(row["count_source"] == "engine" for row in rows)


async def test_a_client_that_leaves_is_billed_for_exactly_what_the_engine_made(system: System, demo: str) -> None:
    long = {"model": "demo", "prompt": "x", "max_tokens": 900, "ignore_eos": True}
    async with system.async_client(demo) as client:
        first = await client.post("/e/demo/v1/chat/completions", json=body())
        assert first.status_code == 200
        await asyncio.to_thread(system.request, first.headers["x-request-id"])
        replica = await asyncio.to_thread(system.until_ready, "demo")
        before = await asyncio.to_thread(system.engine_counters, replica)
        seen = {row["event_id"] for row in await asyncio.to_thread(system.usage, "demo", 1)}
        async with client.stream("POST", "/e/demo/v1/completions", json=long | {"stream": True}) as answer:
            streamed = answer.headers["x-request-id"]
            async for _ in answer.aiter_lines():
                break
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/e/demo/v1/completions", json=long, timeout=0.5)
    rows = [row for row in await asyncio.to_thread(system.usage, "demo", len(seen) + 2) if row["event_id"] not in seen]
    assert len(rows) == 2 and streamed in {row["event_id"] for row in rows}
    assert {row["finish"] for row in rows} == {"client_disconnect"}
    assert {row["count_source"] for row in rows} == {"journal"}
    assert all(0 < row["output_tokens"] < 900 for row in rows)
    after = await asyncio.to_thread(system.engine_counters, replica)
    assert (after[0] - before[0], after[1] - before[1]) == (
        sum(row["input_tokens"] for row in rows),
        sum(row["output_tokens"] for row in rows),
    )


def _text(stream: str) -> str:
    pieces = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for piece in pieces for choice in piece["choices"])


def _openai_http(system: System) -> Any:
    import ssl

    import httpx2

    return httpx2.Client(verify=ssl.create_default_context(cafile=str(system.paths.ca_cert)), trust_env=False, timeout=60)


def test_bad_calls_get_openais_errors(system: System, demo: str) -> None:
    with system.client(demo) as client:
        for path, status in (("/e/none/v1/chat/completions", 404), ("/e/demo/v1/nothing", 404)):
            answer = client.post(path, json=body())
            assert answer.status_code == status, answer.text
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert client.get("/e/demo/v1/chat/completions").status_code == 405
        answer = client.post("/e/demo/v1/chat/completions", json={"model": "demo", "messages": "no"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")
        assert client.get("/e/demo/v1/models").json()["data"][0]["id"] == "demo"
    with system.client("pl_wrong") as client:
        assert client.post("/e/demo/v1/chat/completions", json=body()).status_code == 401


def test_a_start_that_cannot_succeed_fails_the_held_with_the_engines_reason(system: System, demo: str) -> None:
    key = system.deploy("broken", "--engine-arg", "max-model-len=999999999")
    with system.client(key) as client:
        answer = client.post("/e/broken/v1/chat/completions", json=body() | {"model": "broken"})
    assert answer.status_code == 503
    assert "max_model_len" in answer.json()["error"]["message"]
    assert float(answer.headers["retry-after"]) > 0
    wait_until(lambda: not system.replicas("broken"), 20, "no replica of the broken endpoint")


def test_every_cold_start_is_kept_with_its_phases_or_the_reason_it_failed(system: System, demo: str) -> None:
    def kept(name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = system.api.call("GET", "/cold-starts", params={"endpoint": name})["data"]
        return found

    for start in wait_until(lambda: kept("demo"), 5, "the cold starts of demo are stored"):
        assert (start["ok"], start["endpoint"]) == (True, "demo") and start["snapshot_bytes"] > 0
        assert sum(phase["seconds"] for phase in start["phases"]) == pytest.approx(start["seconds"], rel=0.05, abs=0.02), start
    failed = wait_until(lambda: kept("broken"), 5, "the failed start is stored")[-1]
    assert not failed["ok"] and "max_model_len" in failed["reason"]
    assert "failed: " in system.cli("starts") and "█" in system.cli("starts", "demo", "--limit", "1")


def test_a_key_counts_from_the_moment_it_is_shown_to_the_moment_it_is_revoked(system: System, demo: str) -> None:
    def answered(key: str) -> int:
        with system.client(key) as client:
            return client.get("/e/demo/v1/models").status_code

    for _ in range(5):
        made = system.api.call("POST", "/endpoints/demo/keys")
        assert made["everywhere"] and answered(made["key"]) == 200
        assert system.api.call("DELETE", f"/keys/{made['key_id']}")["everywhere"] and answered(made["key"]) == 401
    old = system.api.call("POST", "/endpoints/demo/keys")
    new = system.api.call("POST", f"/keys/{old['key_id']}/rotate", json={"grace_seconds": 1})
    assert (answered(old["key"]), answered(new["key"])) == (200, 200)
    wait_until(lambda: answered(old["key"]) == 401, 3, "the grace is over")
    assert answered(new["key"]) == 200
