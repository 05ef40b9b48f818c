"""The first true line, as a user sees it: real vLLM, Postgres, TLS and safetensors, from zero and back to zero."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from runtime.loader import bake
from snapshots.manifest import folder_name
from tests.integration.system import QUESTION, System, wait_until

AWAY_SECONDS = 4.0  # longer than a row waits where an activator answers
LONG: dict[str, Any] = {"model": "line", "prompt": "x", "max_tokens": 900, "ignore_eos": True}


@pytest.fixture(scope="module")
def demo(system: System) -> str:
    return system.deploy("line", "--idle-timeout", "600", "--slots", "16")


def body(question: str = QUESTION, **more: Any) -> dict[str, Any]:
    return {
        "model": "line",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 100,
        "temperature": 0,
    } | more


def test_a_call_wakes_the_endpoint_streams_is_billed_and_it_goes_back_to_zero(system: System, demo: str) -> None:
    assert system.replicas("line") == []
    with openai.OpenAI(
        base_url=f"{system.api.url}/e/line/v1", api_key=demo, http_client=_openai_http(system)
    ) as client:
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
    replica = system.until_ready("line")
    rows = {row["event_id"]: row for row in system.usage("line", 2)}
    cold_row, warm_row = (system.request(answer.headers["x-request-id"]) for answer in (raw, warm))
    assert (warm_row["input_tokens"], warm_row["output_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert (cold_row["start"], cold_row["finish"], cold_row["count_source"]) == ("cold", "complete", "engine")
    assert float(cold_row["cost"]) > 0
    phases = {phase["name"]: phase["seconds"] for phase in cold_row["phases"]}
    assert {"hold", "spawn", "fetch", "load", "init", "first_token"} <= set(phases)
    assert sum(phases.values()) == pytest.approx(cold_row["first_byte_ms"] / 1000, rel=0.05, abs=0.25)
    assert system.engine_counters(replica) == (
        sum(row["input_tokens"] for row in rows.values()),
        sum(row["output_tokens"] for row in rows.values()),
    )
    brief = system.deploy("brief", "--idle-timeout", "0.5")
    with system.client(brief) as client:
        assert client.post("/e/brief/v1/chat/completions", json=body() | {"model": "brief"}).status_code == 200
    system.until_zero("brief")


async def test_fifty_calls_at_zero_make_one_start_fifty_answers_and_fifty_rows(system: System, demo: str) -> None:
    await asyncio.to_thread(system.to_zero, "line")
    before = await asyncio.to_thread(system.usage, "line", 0)
    async with system.async_client(demo) as client:

        async def one(number: int) -> str:
            answer = await client.post("/e/line/v1/chat/completions", json=body(stream=number % 2 == 0))
            assert answer.status_code == 200, answer.text
            return _text(answer.text) if number % 2 == 0 else answer.json()["choices"][0]["message"]["content"]

        texts = await asyncio.gather(*(one(number) for number in range(50)))
    assert len(set(texts)) == 1 and "Pilotlight" in texts[0]
    (replica,) = await asyncio.to_thread(system.replicas, "line")
    counters = await asyncio.to_thread(system.engine_counters, replica)
    rows = await asyncio.to_thread(system.usage, "line", len(before) + 50)
    rows = [row for row in rows if row["replica_id"] == replica["replica_id"]]
    assert len(rows) == 50
    assert counters == (sum(row["input_tokens"] for row in rows), sum(row["output_tokens"] for row in rows))
    assert all(row["count_source"] == "engine" for row in rows)


async def test_a_client_that_leaves_is_billed_for_exactly_what_the_engine_made(system: System, demo: str) -> None:
    """Though the activator, through which the engine's journal comes, is away for longer than a whole answer's count is
    waited for.
    """
    async with system.async_client(demo) as client:
        first = await client.post("/e/line/v1/chat/completions", json=body())
        assert first.status_code == 200
        await asyncio.to_thread(system.request, first.headers["x-request-id"])
        replica = await asyncio.to_thread(system.until_ready, "line")
        before = await asyncio.to_thread(system.engine_counters, replica)
        seen = {row["event_id"] for row in await asyncio.to_thread(system.usage, "line", 1)}
        with stopped(system.pid_of("activator")):
            async with client.stream("POST", "/e/line/v1/completions", json=LONG | {"stream": True}) as answer:
                streamed = answer.headers["x-request-id"]
                async for _ in answer.aiter_lines():
                    break
            await system.leave(client, replica, "/e/line/v1/completions", LONG)
            await asyncio.sleep(AWAY_SECONDS)  # what is tested is that this time passes
            after = await asyncio.to_thread(system.engine_counters, replica)
    rows = [row for row in await asyncio.to_thread(system.usage, "line", len(seen) + 2) if row["event_id"] not in seen]
    assert len(rows) == 2 and streamed in {row["event_id"] for row in rows}
    assert {row["finish"] for row in rows} == {"client_disconnect"}
    assert {row["count_source"] for row in rows} == {"journal"}
    assert all(0 < row["output_tokens"] < 900 for row in rows)
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

    return httpx2.Client(
        verify=ssl.create_default_context(cafile=str(system.paths.ca_cert)), trust_env=False, timeout=300
    )


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """It does nothing meanwhile, and hears nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_client_that_leaves_frees_the_engine(system: System, demo: str) -> None:
    """At once, and not when the answer would have been whole; `tests/timed/test_within_a_second.py` holds it to a
    second.
    """
    async with system.async_client(demo) as client:
        assert (await client.post("/e/line/v1/chat/completions", json=body())).status_code == 200
        replica = await asyncio.to_thread(system.until_ready, "line")
        before = await asyncio.to_thread(system.engine_counters, replica)
        async with client.stream("POST", "/e/line/v1/completions", json=LONG | {"stream": True}) as answer:
            async for _ in answer.aiter_lines():
                break
        await asyncio.to_thread(wait_until, lambda: not system.until_ready("line")["in_flight"], 60, "its slot is free")
        after = await asyncio.to_thread(system.at_rest, replica)
    assert 0 < after[1] - before[1] < LONG["max_tokens"]
    assert (await asyncio.to_thread(system.until_ready, "line"))["replica_id"] == replica["replica_id"]


def test_a_prompt_that_is_too_long_is_refused_as_the_engine_says_it_and_costs_nothing(
    system: System, demo: str
) -> None:
    said = (
        {"messages": [{"role": "user", "content": "Why? " * 800}]},
        "maximum context length is 1024 tokens",
        "messages",
    )
    asked = (
        {"stream": True, "max_tokens": 1025},
        "maximum context length is 1024 tokens, and 'max_tokens' asks for 1025",
        "max_tokens",
    )
    with system.client(demo) as client:
        for more, says, param in (said, asked):
            answer = client.post("/e/line/v1/chat/completions", json=body() | more)
            assert answer.status_code == 400, answer.text
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert says in error["message"] and error["param"].startswith(param), error
            row = system.request(answer.headers["x-request-id"])
            assert (row["finish"], row["status"], row["input_tokens"], row["output_tokens"]) == ("refused", 400, 0, 0)
            assert float(row["cost"]) == 0


def test_an_answer_that_must_be_json_of_a_schema_is(system: System, demo: str) -> None:
    """The grammar has a tokenizer of its own, loaded with the first request that needs it. It lets any white space pass
    between tokens, of which this model would never have enough: the penalties put an end to that.
    """
    fields = {"answer": {"enum": ["yes", "no"]}, "sure": {"type": "boolean"}}
    schema = {"type": "object", "properties": fields, "required": ["answer", "sure"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}
    more = {"response_format": wanted, "max_tokens": 400, "frequency_penalty": 2, "presence_penalty": 2}
    with system.client(demo) as client:
        for stream in (False, True):
            answer = client.post("/e/line/v1/chat/completions", json=body(stream=stream) | more)
            assert answer.status_code == 200, answer.text
            said = json.loads(_text(answer.text) if stream else answer.json()["choices"][0]["message"]["content"])
            assert (
                set(said) == {"answer", "sure"} and said["answer"] in ("yes", "no") and isinstance(said["sure"], bool)
            )
        free = client.post("/e/line/v1/chat/completions", json=body())
        assert "Pilotlight" in free.json()["choices"][0]["message"]["content"], "others have no grammar"


def test_bad_calls_get_openais_errors(system: System, demo: str) -> None:
    with system.client(demo) as client:
        for path, status in (("/e/none/v1/chat/completions", 404), ("/e/line/v1/nothing", 404)):
            answer = client.post(path, json=body())
            assert answer.status_code == status, answer.text
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert client.get("/e/line/v1/chat/completions").status_code == 405
        answer = client.post("/e/line/v1/chat/completions", json={"model": "line", "messages": "no"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "messages")
        assert client.get("/e/line/v1/models").json()["data"][0]["id"] == "line"
    with system.client("pl_wrong") as client:
        assert client.post("/e/line/v1/chat/completions", json=body()).status_code == 401


def test_a_start_that_cannot_succeed_fails_the_held_and_its_operator_has_the_engines_reason(
    system: System, demo: str
) -> None:
    key = system.deploy("line-broken", "--engine-arg", "kv-cache-memory-bytes=4096")
    with system.client(key) as client:
        answer = client.post("/e/line-broken/v1/chat/completions", json=body() | {"model": "line-broken"})
    assert answer.status_code == 503
    assert "pilotlight ps" in answer.json()["error"]["message"] and "cache" in system.failure("line-broken").lower()
    assert float(answer.headers["retry-after"]) > 0
    wait_until(lambda: not system.replicas("line-broken"), 60, "no replica of the broken endpoint")


def test_every_cold_start_is_kept_with_its_phases_or_the_reason_it_failed(system: System, demo: str) -> None:
    def kept(name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = system.api.call("GET", "/cold-starts", params={"endpoint": name})["data"]
        return found

    for start in wait_until(lambda: kept("line"), 30, "the cold starts are stored"):
        assert (start["ok"], start["endpoint"]) == (True, "line") and start["snapshot_bytes"] > 0
        assert sum(phase["seconds"] for phase in start["phases"]) == pytest.approx(
            start["seconds"], rel=0.05, abs=0.25
        ), start
    failed = wait_until(lambda: kept("line-broken"), 30, "the failed start is stored")[-1]
    assert not failed["ok"] and "cache" in failed["reason"].lower()
    assert "failed: " in system.cli("starts") and "█" in system.cli("starts", "line", "--limit", "1")


def test_a_key_counts_from_the_moment_it_is_shown_to_the_moment_it_is_revoked(system: System, demo: str) -> None:
    def answered(key: str) -> int:
        with system.client(key) as client:
            return client.get("/e/line/v1/models").status_code

    for _ in range(5):
        made = system.api.call("POST", "/endpoints/line/keys")
        assert made["everywhere"] and answered(made["key"]) == 200
        assert system.api.call("DELETE", f"/keys/{made['key_id']}")["everywhere"] and answered(made["key"]) == 401
    old = system.api.call("POST", "/endpoints/line/keys")
    new = system.api.call("POST", f"/keys/{old['key_id']}/rotate", json={"grace_seconds": 1})
    assert (answered(old["key"]), answered(new["key"])) == (200, 200)
    wait_until(lambda: answered(old["key"]) == 401, 30, "the grace is over")
    assert answered(new["key"]) == 200


def test_a_snapshot_that_was_tampered_with_is_never_served(system: System, demo: str) -> None:
    """Other bytes on disk while nothing runs: in the weights as they were packed, then in the copy that replicas
    map.
    """
    path = "/e/line/v1/chat/completions"
    with system.client(demo) as client:
        right = client.post(path, json=body()).json()["choices"][0]["message"]["content"]
        system.to_zero("line")
        folder = folder_name(system.digest("line"))
        weights = system.paths.snapshots / folder / "model.safetensors"
        _flip(weights, weights.stat().st_size // 2, 1)
        refused = client.post(path, json=body(stream=True))
        assert refused.status_code == 503 and "retry-after" in refused.headers and "data:" not in refused.text
        message = refused.json()["error"]["message"]
        assert "'line' cannot start" in message and "pilotlight ps" in message, (
            "a caller is told where its operator reads the reason"
        )
        (revision,) = [
            revision for row in system.status()["endpoints"] if row["name"] == "line" for revision in row["revisions"]
        ]
        assert "model.safetensors does not have the content" in revision["failure"]
        assert not system.replicas("line"), "no engine was even begun"
        # as it was; and so it serves, when the pause after the failure is over
        _flip(weights, weights.stat().st_size // 2, 1)
        wait_until(lambda: client.post(path, json=body()).status_code == 200, 60, "it serves again")
        system.to_zero("line")
        (copy,) = (system.paths.baked / folder).glob("*.safetensors")
        _flip(copy, bake.read_layout(copy).pieces[0].begin, 1 << 20)
        served = client.post(path, json=body())
        assert served.status_code == 200 and served.json()["choices"][0]["message"]["content"] == right
    kinds = {event["kind"] for event in system.api.call("GET", "/endpoints/line/events")["data"]}
    assert "canary_mismatch" not in kinds, "nothing of it was given to an engine, not even for its canary"


def _flip(file: Path, begin: int, count: int) -> None:
    mode = file.stat().st_mode
    file.chmod(0o600)  # packed snapshots can only be read
    with file.open("r+b") as opened:
        opened.seek(begin)
        data = opened.read(count)
        opened.seek(begin)
        opened.write(bytes(byte ^ 0x41 for byte in data))
    file.chmod(mode)


def test_an_embedding_model_answers_is_billed_passes_its_canary_and_goes_to_zero(system: System, demo: str) -> None:
    """The demo model again: one snapshot, two models, which differ in what they do with the last layer."""
    key, given = (
        system.deploy("line-vectors", "--task", "embed", "--idle-timeout", "600"),
        ["a first text", "a second, other text"],
    )
    for start in ("cold", "warm", "cold"):  # the second cold one has a recorded canary to agree with
        with system.client(key) as client:
            answer = client.post("/e/line-vectors/v1/embeddings", json={"model": "line-vectors", "input": given})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-pilotlight-start"] == start
        vectors = [entry["embedding"] for entry in answer.json()["data"]]
        assert [len(vector) for vector in vectors] == [256, 256]
        assert [sum(value**2 for value in vector) for vector in vectors] == pytest.approx([1, 1], abs=0.01)
        assert sum(one * other for one, other in zip(*vectors, strict=True)) < 0.999, "two texts, two directions"
        row = system.request(answer.headers["x-request-id"])
        assert (row["input_tokens"], row["output_tokens"]) == (answer.json()["usage"]["prompt_tokens"], 0)
        assert row["count_source"] == "engine" and float(row["cost"]) > 0
        if start == "cold":
            assert "canary" in {phase["name"] for phase in row["phases"]}
        if start != "cold":
            system.to_zero("line-vectors")
