"""Kill -9 of each process at bad moments: the caller gets an answer or a clear error, the next call works, nothing
stays behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from pilotlight.sealed import is_intact
from runtime.node.last_counts import Snapshot
from tests.integration.system import QUESTION, System, wait_until

LONG: dict[str, Any] = {"model": "demo", "prompt": "x", "max_tokens": 900, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def demo(system: System) -> str:
    return system.deploy("demo", "--idle-timeout", "600", "--slots", "16")


def ask(system: System, key: str) -> httpx.Response:
    body = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 60, "temperature": 0}
    with system.client(key) as client:
        return client.post("/e/demo/v1/chat/completions", json=body)


def works(system: System, key: str) -> None:
    answer = ask(system, key)
    assert answer.status_code == 200, answer.text
    assert "Pilotlight" in answer.json()["choices"][0]["message"]["content"]


def nothing_left_of(system: System, replica: dict[str, Any]) -> None:
    folder = Path(replica["address"].removeprefix("unix:")).parent
    wait_until(lambda: not folder.exists(), 30, "the dead replica's folder is removed")
    wait_until(lambda: not _session(replica["pid"]), 30, "the dead replica's session is empty")


def deaths_of(system: System, replica: dict[str, Any]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = system.api.call("GET", "/endpoints/demo/events")["data"]
    return [event for event in events if event["replica_id"] == replica["replica_id"] and event["kind"] == "died"]


def _session(leader: int) -> list[int]:
    from runtime.reap import session_members

    return session_members(leader)


async def test_the_replicas_api_process_mid_stream(system: System, demo: str) -> None:
    await asyncio.to_thread(works, system, demo)
    replica = await asyncio.to_thread(system.until_ready, "demo")
    async with (
        system.async_client(demo) as client,
        client.stream("POST", "/e/demo/v1/completions", json=LONG) as answer,
    ):
        request_id = answer.headers["x-request-id"]
        lines = []
        async for line in answer.aiter_lines():
            lines.append(line)
            if len(lines) == 3:
                os.kill(replica["pid"], signal.SIGKILL)
    last = [line for line in lines if line.startswith("data: ")][-1]
    assert "error" in json.loads(last[6:]), last
    await asyncio.to_thread(works, system, demo)
    nothing_left_of(system, replica)
    row = await asyncio.to_thread(system.request, request_id)
    assert row["finish"] == "upstream_error"


def kept_counts(system: System) -> list[dict[str, int]]:
    """What the agent's last two lines say that each request in work has, in tokens of its answer."""
    file = system.paths.journal / "counts.log"
    lines = file.read_bytes().splitlines()[-2:] if file.exists() else []
    told = [Snapshot.model_validate_json(line, extra="ignore") for line in lines if is_intact(line)]
    return [
        {count.request_id: count.output_tokens for replica in said.replicas for count in replica.counts}
        for said in told
    ]


async def test_calls_cut_mid_stream_by_their_replicas_death_are_billed_to_the_last_durable_count(
    system: System, demo: str
) -> None:
    """The engine is stopped while it answers eight: what was delivered by then is what was counted, and once that is on
    disk the replica is killed. Each pays for exactly what it got, and its row says how that is known.
    """
    with system.client(demo) as asking:
        short = await asyncio.to_thread(
            asking.post, "/e/demo/v1/completions", json=LONG | {"stream": False, "max_tokens": 1}
        )
    replica = await asyncio.to_thread(system.until_ready, "demo")
    core = next(pid for pid in _session(replica["pid"]) if pid != replica["pid"])
    delivered, all_answered = dict[str, int](), asyncio.Event()

    async def call(client: httpx.AsyncClient) -> None:
        async with client.stream("POST", "/e/demo/v1/completions", json=LONG | {"return_token_ids": True}) as answer:
            request_id = answer.headers["x-request-id"]
            async for line in answer.aiter_lines():
                if line.startswith('data: {"id"') and (choices := json.loads(line[6:])["choices"]):
                    delivered[request_id] = delivered.get(request_id, 0) + len(choices[0]["token_ids"] or ())
                    if len(delivered) == 8:
                        all_answered.set()

    async with system.async_client(demo) as client, asyncio.TaskGroup() as calls:
        for _ in range(8):
            calls.create_task(call(client))
        await all_answered.wait()
        os.kill(core, signal.SIGSTOP)
        await asyncio.to_thread(
            wait_until, lambda: kept_counts(system) == [delivered] * 2, 90, "what was delivered is on disk"
        )
        with contextlib.suppress(ProcessLookupError):  # its agent kills what is stopped, too, after a while
            os.kill(replica["pid"], signal.SIGKILL)
    rows = [await asyncio.to_thread(system.request, request_id) for request_id in delivered]
    assert [(row["finish"], row["count_source"], row["corrections"]) for row in rows] == [
        ("upstream_error", "last_count", [])
    ] * 8
    assert {row["event_id"]: row["output_tokens"] for row in rows} == delivered
    assert {row["input_tokens"] for row in rows} == {short.json()["usage"]["prompt_tokens"]}
    assert all(0 < tokens < LONG["max_tokens"] for tokens in delivered.values())


async def test_the_replicas_api_process_under_load(system: System, demo: str) -> None:
    await asyncio.to_thread(works, system, demo)
    replica = await asyncio.to_thread(system.until_ready, "demo")

    async with system.async_client(demo) as client:
        body = {"model": "demo", "prompt": "x", "max_tokens": 100, "ignore_eos": True}
        calls = [asyncio.ensure_future(client.post("/e/demo/v1/completions", json=body)) for _ in range(40)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        os.kill(replica["pid"], signal.SIGKILL)
        answers = await asyncio.gather(*calls)
    for answer in answers:
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 503:
            assert answer.json()["error"]["message"] and "retry-after" in answer.headers
    # its slots: what was held was served by the next replica
    assert sum(answer.status_code == 503 for answer in answers) <= 16
    nothing_left_of(system, replica)
    await asyncio.to_thread(works, system, demo)


def test_the_engine_core(system: System, demo: str) -> None:
    works(system, demo)
    replica = system.until_ready("demo")
    core = next(pid for pid in _session(replica["pid"]) if pid != replica["pid"])
    os.kill(core, signal.SIGKILL)
    death = wait_until(lambda: deaths_of(system, replica), 30, "the death is noticed")[0]
    assert "hung" not in death["text"], "and not only missed, when it said nothing for some time"
    wait_until(
        lambda: replica["replica_id"] not in {other["replica_id"] for other in system.replicas("demo")},
        30,
        "it is gone",
    )
    nothing_left_of(system, replica)
    works(system, demo)


def test_the_standby_while_a_replica_lives(system: System, demo: str) -> None:
    works(system, demo)
    replica = system.until_ready("demo")
    standby = system.pid_of("runtime.fork.standby")
    os.kill(standby, signal.SIGKILL)
    works(system, demo)
    assert system.until_ready("demo")["replica_id"] == replica["replica_id"]
    system.to_zero("demo")
    nothing_left_of(system, replica)
    works(system, demo)  # held until the next standby is rehearsed
    assert system.pid_of("runtime.fork.standby") != standby


async def test_the_standby_with_an_order_in_hand(system: System, demo: str) -> None:
    """It is stopped before the order comes, so that it dies with it, and not a moment after the fork."""
    await asyncio.to_thread(system.to_zero, "demo")
    wait_until(lambda: [node["standbys_ready"] for node in system.status()["nodes"]] == [1], 120, "a standby is ready")
    standby, log = system.pid_of("runtime.fork.standby"), system.paths.logs / "agent.log"
    before = len(log.read_text())

    def told(action: str) -> list[str]:
        return [line for line in log.read_text()[before:].splitlines() if f'"action": "{action}"' in line]

    os.kill(standby, signal.SIGSTOP)
    call = asyncio.ensure_future(asyncio.to_thread(ask, system, demo))
    await asyncio.to_thread(wait_until, lambda: told("fork_ordered") or call.done(), 60, "the order is in its socket")
    with contextlib.suppress(ProcessLookupError):  # on a slow machine its agent has found it hung, and done the same
        os.kill(standby, signal.SIGKILL)
    answer = await call
    assert answer.status_code == 200 or (answer.status_code == 503 and int(answer.headers["retry-after"]) > 0), (
        answer.text
    )
    assert len(told("fork_again")) == 1 and len(told("fork_ordered")) == 2, "the next standby got the same order"
    await asyncio.to_thread(works, system, demo)
    await asyncio.to_thread(system.to_zero, "demo")
    await asyncio.to_thread(works, system, demo)
    assert await asyncio.to_thread(system.pid_of, "runtime.fork.standby") != standby


def test_the_activator_keeps_what_runs(system: System, demo: str) -> None:
    works(system, demo)
    replica = system.until_ready("demo")
    activator = system.pid_of("activator")
    os.kill(activator, signal.SIGKILL)
    works(system, demo)
    wait_until(
        lambda: system.pid_of("activator") != activator and system.status()["nodes"], 90, "the activator is back"
    )
    assert system.until_ready("demo")["pid"] == replica["pid"]
    works(system, demo)
    system.to_zero("demo")
    works(system, demo)


async def test_the_activator_while_a_call_is_held(system: System, demo: str) -> None:
    await asyncio.to_thread(system.to_zero, "demo")
    call = asyncio.ensure_future(asyncio.to_thread(ask, system, demo))
    await asyncio.to_thread(wait_until, lambda: system.replicas("demo") or call.done(), 60, "a start")
    os.kill(system.pid_of("activator"), signal.SIGKILL)
    answer = await call
    assert answer.status_code == 200, answer.text
    await asyncio.to_thread(works, system, demo)


async def test_the_router_mid_stream(system: System, demo: str) -> None:
    await asyncio.to_thread(works, system, demo)
    request_id, router = "", await asyncio.to_thread(system.pid_of, "router")
    with pytest.raises(httpx.HTTPError):
        async with (
            system.async_client(demo) as client,
            client.stream("POST", "/e/demo/v1/completions", json=LONG) as answer,
        ):
            request_id = answer.headers["x-request-id"]
            lines = answer.aiter_lines()
            await anext(lines)
            os.kill(router, signal.SIGKILL)
            async for _ in lines:
                continue

    def back() -> bool:
        try:
            return ask(system, demo).status_code == 200
        except httpx.HTTPError:
            return False

    await asyncio.to_thread(wait_until, back, 90, "the router is back")
    row = await asyncio.to_thread(system.request, request_id)
    assert (row["finish"], row["count_source"]) == ("router_lost", "journal")
    assert row["output_tokens"] > 0


def test_postgres(system: System, demo: str) -> None:
    def postmaster() -> int:
        file = system.paths.postgres / "data" / "postmaster.pid"
        return int((file.read_text().split() or ["0"])[0]) if file.exists() else 0

    works(system, demo)
    asked = [ask(system, demo)]
    killed = postmaster()
    os.kill(killed, signal.SIGKILL)
    asked += [ask(system, demo) for _ in range(4)]  # warm: none needs it
    assert [(answer.status_code, answer.headers["x-pilotlight-start"]) for answer in asked] == [(200, "warm")] * 5
    wait_until(lambda: postmaster() not in (0, killed) and system.status()["nodes"], 90, "Postgres is back")
    asked.append(ask(system, demo))
    for answer in asked:
        row = system.request(answer.headers["x-request-id"])
        assert (row["finish"], row["output_tokens"]) == ("complete", answer.json()["usage"]["completion_tokens"])
    settled = [row["event_id"] for row in system.usage("demo", len(asked))]
    assert [settled.count(answer.headers["x-request-id"]) for answer in asked] == [1] * len(asked)
    assert system.up.poll() is None
    system.to_zero("demo")
    works(system, demo)  # and it wakes again
