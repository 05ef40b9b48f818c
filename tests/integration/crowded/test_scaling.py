"""Scaling with the real engine: more replicas under load without touching what runs, memory as measured, and back to
zero.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from runtime.reap import session_members
from tests.integration.crowded.conftest import FRACTION
from tests.integration.system import QUESTION, System, wait_until

LONG = 900  # tokens: they last longer than the start of a second replica
STREAMS = 4
MORE = 6
MIB = 1 << 20


async def stream(client: httpx.AsyncClient, name: str, *, tokens: int, begun: asyncio.Event) -> dict[str, Any]:
    """One streamed answer to its end: how many content chunks, how it finished, and whether the last word came."""
    body = {
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    chunks, finish, done = 0, None, False
    async with client.stream("POST", f"/e/{name}/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                chunks += bool(choice["delta"].get("content"))
                finish = choice.get("finish_reason") or finish
                if chunks:
                    begun.set()
    return {"chunks": chunks, "finish": finish, "done": done, "request_id": answer.headers["x-request-id"]}


async def test_a_second_replica_under_load_breaks_no_stream(system: System) -> None:
    key = await asyncio.to_thread(system.deploy, "grow", "--max-replicas", "2", "--slots", "2", "--idle-timeout", "3")
    begun = [asyncio.Event() for _ in range(STREAMS + MORE)]
    async with system.async_client(key) as client:
        calls = [asyncio.ensure_future(stream(client, "grow", tokens=LONG, begun=begun[n])) for n in range(2)]
        await asyncio.gather(*(event.wait() for event in begun[:2]))
        (first,) = system.replicas("grow")
        assert first["state"] == "ready", "two fit into one"
        calls += [asyncio.ensure_future(stream(client, "grow", tokens=LONG, begun=begun[n])) for n in range(2, STREAMS)]
        calls += [
            asyncio.ensure_future(stream(client, "grow", tokens=20, begun=begun[n]))
            for n in range(STREAMS, STREAMS + MORE)
        ]
        await asyncio.to_thread(
            wait_until,
            lambda: [r["state"] for r in system.replicas("grow")] == ["ready", "ready"],
            60,
            "a second one is ready",
        )
        answers = await asyncio.gather(*calls)
    assert [answer["finish"] for answer in answers] == ["length"] * (STREAMS + MORE)
    assert all(answer["done"] for answer in answers)
    rows = [system.request(answer["request_id"]) for answer in answers]
    assert len({row["replica_id"] for row in rows}) == 2, "both were used"
    assert [row["output_tokens"] for row in rows] == [LONG] * STREAMS + [20] * MORE
    assert rows[0]["replica_id"] == rows[1]["replica_id"] == first["replica_id"]
    await asyncio.to_thread(system.until_zero, "grow")


def test_what_a_replica_takes_is_measured_by_private_pages_and_remembered(system: System) -> None:
    key = system.deploy("weigh", "--slots", "4", "--idle-timeout", "600")
    with system.client(key) as client:
        body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 8}
        assert client.post("/e/weigh/v1/chat/completions", json=body).status_code == 200

    def weighed() -> dict[str, Any] | None:
        return next((replica for replica in system.replicas("weigh") if replica["private_bytes"]), None)

    replica = wait_until(weighed, 60, "its memory is measured")
    processes = session_members(replica["pid"])
    resident = sum(_resident(pid) for pid in processes)
    assert len(processes) == 2 and 10 * MIB < replica["private_bytes"] < resident
    assert replica["kv_cache_bytes"] >= 32 * MIB
    assert (
        replica["private_bytes"]
        < replica["needs_bytes"]
        <= replica["private_bytes"] + replica["kv_cache_bytes"] + 8 * MIB
    )
    (node,) = system.status()["nodes"]
    assert node["budget_bytes"] == int(node["memory_bytes"] * FRACTION)
    assert node["standby_bytes"] > 0 and node["committed_bytes"] >= node["standby_bytes"] + replica["needs_bytes"]
    system.to_zero("weigh")
    (node,) = system.status()["nodes"]
    (endpoint,) = [e for e in system.status()["endpoints"] if e["name"] == "weigh"]
    assert node["committed_bytes"] == node["standby_bytes"]
    assert endpoint["revisions"][0]["needs_bytes"] >= replica["needs_bytes"] - MIB


def test_a_start_that_does_not_fit_evicts_the_longest_idle_or_is_refused_with_the_reason(system: System) -> None:
    key = system.deploy("idle", "--slots", "4", "--idle-timeout", "600")
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 8}
    with system.client(key) as client:
        assert client.post("/e/idle/v1/chat/completions", json=body).status_code == 200
    wait_until(lambda: [r for r in system.replicas("idle") if r["private_bytes"]], 60, "its memory is measured")
    (node,) = system.status()["nodes"]
    left = node["budget_bytes"] - node["committed_bytes"]
    before = evictions(system)
    key = _deploy_with_cache(system, "large", left + 50 * MIB)
    with system.client(key) as client:
        answer = client.post("/e/large/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert [replica["state"] for replica in system.replicas("large")] == ["ready"]
    assert system.replicas("idle") == []
    assert evictions(system) == before + 1
    key = _deploy_with_cache(system, "larger", node["budget_bytes"])
    with system.client(key) as client:
        answer = client.post("/e/larger/v1/chat/completions", json=body)
    assert answer.status_code == 503 and "retry-after" in answer.headers
    why = system.failure("larger")
    assert "a replica needs" in why and "at most" in why and "lower kv_cache_memory_bytes" in why
    assert len(system.replicas("large")) == 1, "nothing goes where it would not help"


def evictions(system: System) -> int:
    return (system.paths.logs / "activator.log").read_text().count('"action": "evict"')


def _deploy_with_cache(system: System, name: str, nbytes: int) -> str:
    """The demo model with a KV cache of so many bytes; returns a key that already works."""
    (digest,) = {revision["digest"] for endpoint in system.status()["endpoints"] for revision in endpoint["revisions"]}
    deployed = {
        "digest": digest,
        "slots": 4,
        "idle_timeout_seconds": 600,
        "engine_args": {"kv_cache_memory_bytes": nbytes},
    }
    system.api.call("PUT", f"/endpoints/{name}", json=deployed)
    key: str = system.key(name)
    with system.client(key) as client:
        wait_until(lambda: client.get(f"/e/{name}/v1/models").is_success, 60, "the key works")
    return key


def _resident(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) << 10
