"""Fifty simultaneous calls to an endpoint at zero: starts, answers, rows, and tokens beside vLLM's own counters."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import time
from pathlib import Path
from typing import Any

import httpx

from loadtests.bench.installation import Bench, running
from pilotlight.cli.api import ApiError
from pilotlight.cli.bench.coldstart import QUESTION

CALLS = 50


async def measure(model: Path) -> dict[str, Any]:
    async with running() as bench:
        key = await bench.deploy("bench", model, idle_timeout_seconds=5, slots=16)
        context = ssl.create_default_context(cafile=bench.api.ca_file)
        limits = httpx.Limits(max_connections=CALLS)
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            base_url=bench.api.url, verify=context, limits=limits, headers=headers, timeout=120
        ) as client:
            begin = time.monotonic()
            answers = await asyncio.gather(*(_ask(client, stream=number % 2 == 0) for number in range(CALLS)))
            took = time.monotonic() - begin
        (replica,) = await bench.replicas("bench")
        counters = await asyncio.to_thread(engine_counters, replica["address"])
        rows = [await bench.row(answer.headers["x-request-id"]) for answer in answers]
    return {
        "calls": CALLS,
        "answered 200": sum(answer.status_code == 200 for answer in answers),
        "different answers": len({_text(answer) for answer in answers}),
        "replica starts": len({row["replica_id"] for row in rows}),
        "usage rows": len({row["event_id"] for row in rows}),
        "input tokens, rows / vLLM": f"{sum(row['input_tokens'] for row in rows)} / {counters[0]}",
        "output tokens, rows / vLLM": f"{sum(row['output_tokens'] for row in rows)} / {counters[1]}",
        "seconds until the last answer": round(took, 3),
    }


async def _ask(client: httpx.AsyncClient, *, stream: bool) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 100, "temperature": 0, "stream": stream}
    return await client.post("/e/bench/v1/chat/completions", json=body)


def _text(answer: httpx.Response) -> str:
    return "".join(re.findall(r'"content":"((?:[^"\\]|\\.)*)"', answer.text))


def engine_counters(address: str) -> tuple[int, int]:
    """(prompt, generation) tokens as vLLM's own counters have them, over the replica's socket."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=address.removeprefix("unix:"))) as client:
        text = client.get("http://replica/metrics").text
    found = {
        name: float(value)
        for name, value in re.findall(r"^vllm:(prompt|generation)_tokens_total\{[^}]*\} (\S+)", text, re.M)
    }
    return int(found["prompt"]), int(found["generation"])


async def recovery(model: Path) -> dict[str, Any]:
    """Seconds from kill -9 of one process until a call is answered again. Each twice, from a warm endpoint; the slower
    counts.
    """
    found: dict[str, Any] = {}
    async with running() as bench:
        key = await bench.deploy("bench", model, idle_timeout_seconds=30, slots=16)
        await bench.first_token("bench", key, QUESTION)
        for name in ("the replica's API process", "the engine core", "activator", "router", "router.ledger"):
            found[f"kill -9 of {name}: answered again after, s"] = round(
                max([await _kill(bench, key, name) for _ in range(2)]), 3
            )
    return found


async def _kill(bench: Bench, key: str, name: str) -> float:
    (replica,) = await bench.replicas("bench")
    if name in ("the replica's API process", "the engine core"):
        pid = replica["pid"] if name == "the replica's API process" else _child(replica["pid"])
    else:
        child = next(child for child in bench.installation.children if child.module == name)
        pid = child.pid
    begin = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while True:
            try:
                await bench.first_token("bench", key, QUESTION)
                took = time.monotonic() - begin
                break
            except (httpx.HTTPError, ApiError):
                await asyncio.sleep(0.01)
        while [replica["state"] for replica in await bench.replicas("bench")] != ["ready"]:
            await asyncio.sleep(0.05)
        while any(child.pid == pid for child in bench.installation.children):  # not every death is felt by a call
            await asyncio.sleep(0.05)
    return took


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
