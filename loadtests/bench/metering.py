"""Usage rows beside vLLM's own counters: three wakes, streaming and not, one call in ten given up by its client, either
way.

Each replica is compared over its whole life: its counters before it was stopped, and the sums of the rows that name it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from loadtests.bench.installation import Bench, running
from loadtests.bench.line import engine_counters

DEMO_MODEL = Path(__file__).parents[2] / "snapshots" / "demo" / "model"
WAKES, CALLS, AT_ONCE = 3, 100, 20
IDLE_SECONDS = 4.0  # time to look at the counters of what has just served, on a busy machine too
PATH = "/v1/completions"


class Call(NamedTuple):
    """What one client does."""

    stream: bool
    leaves: bool  # a stream after its first chunk, else when it has waited long enough
    tokens: int


class Wake(NamedTuple):
    """One life of a replica."""

    replica_id: str
    prompt: int  # tokens, as vLLM counted them
    generation: int


def plan(dice: random.Random, calls: int = CALLS) -> list[Call]:
    """Half of them streams; of either kind exactly one in ten leaves, in a long answer."""
    kinds = [(stream, number % 10 == 0) for stream in (True, False) for number in range(calls // 2)]
    dice.shuffle(kinds)
    return [
        Call(stream=stream, leaves=leaves, tokens=900 if leaves else dice.randint(1, 40)) for stream, leaves in kinds
    ]


async def wake(
    client: httpx.AsyncClient, endpoint: str, calls: list[Call], replicas: Callable[[], Awaitable[list[dict[str, Any]]]]
) -> Wake:
    """Make the calls at an endpoint at zero, and watch the counters until its replica is gone. Raises RuntimeError."""
    turn = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(_call(client, endpoint, call, number, turn) for number, call in enumerate(calls)))
    replica, *others = await replicas()
    if others:
        raise RuntimeError(f"one replica was to take all calls, and there are {1 + len(others)}")
    counters = await asyncio.to_thread(engine_counters, replica["address"])
    while await replicas():
        with contextlib.suppress(httpx.TransportError, KeyError):  # it is ending: what was last seen counts
            counters = await asyncio.to_thread(engine_counters, replica["address"])
        await asyncio.sleep(0.05)
    return Wake(replica["replica_id"], *counters)


async def _call(client: httpx.AsyncClient, endpoint: str, call: Call, number: int, turn: asyncio.Semaphore) -> None:
    body = {
        "model": endpoint,
        "prompt": "x" * (1 + number % 50),
        "max_tokens": call.tokens,
        "ignore_eos": True,
        "stream": call.stream,
    }
    async with turn:
        if not call.stream:
            try:
                answer = await client.post(f"/e/{endpoint}{PATH}", json=body, timeout=1.0 if call.leaves else 120)
                _check(answer.status_code)
            except httpx.ReadTimeout:
                if not call.leaves:
                    raise
            return
        async with client.stream("POST", f"/e/{endpoint}{PATH}", json=body) as answer:
            _check(answer.status_code)
            async for line in answer.aiter_lines():
                if call.leaves and line.startswith("data: {"):
                    return


def _check(status: int) -> None:
    if status != 200:
        raise RuntimeError(f"HTTP {status}")


async def measure() -> dict[str, Any]:
    dice, rows, wakes = random.Random(7), list[dict[str, Any]](), list[Wake]()
    async with running() as bench:
        key = await bench.deploy("bench", DEMO_MODEL, idle_timeout_seconds=IDLE_SECONDS, slots=16)
        context, headers = ssl.create_default_context(cafile=bench.api.ca_file), {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            base_url=bench.api.url, verify=context, headers=headers, timeout=120, trust_env=False
        ) as client:
            for _ in range(WAKES):
                wakes.append(await wake(client, "bench", plan(dice), lambda: bench.replicas("bench")))
        rows = await _settled(bench, WAKES * CALLS)
    left = [row for row in rows if row["finish"] == "client_disconnect"]
    per_wake = [[row for row in rows if row["replica_id"] == life.replica_id] for life in wakes]
    return {
        "wakes × calls": f"{WAKES} × {CALLS}",
        "usage rows": len({row["event_id"] for row in rows}),
        "left by their clients: streams / not": f"{sum(row['streamed'] for row in left)} / {sum(not row['streamed'] for row in left)}",
        "input tokens, rows / vLLM, per wake": ", ".join(
            f"{sum(row['input_tokens'] for row in found)} / {life.prompt}"
            for found, life in zip(per_wake, wakes, strict=True)
        ),
        "output tokens, rows / vLLM, per wake": ", ".join(
            f"{sum(row['output_tokens'] for row in found)} / {life.generation}"
            for found, life in zip(per_wake, wakes, strict=True)
        ),
    }


async def _settled(bench: Bench, rows: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        while True:
            found: list[dict[str, Any]] = (await bench.call("GET", "/usage", params={"limit": 1000}))["rows"]
            if len(found) >= rows:
                return found
            await asyncio.sleep(0.1)
