"""Every header an answer of ours has, on each kind of answer."""

from __future__ import annotations

import asyncio
import re
import time

import pytest

from runtime.wire import Phase
from tests.router_world import endpoint_row, world

OF_STREAMS = {"x-accel-buffering"}
OURS = {"x-request-id", "x-pilotlight-start", "x-pilotlight-hold-ms", "openai-processing-ms"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_warm_answer(stream: bool) -> None:
    async with world() as w:
        reply = await w.ask(stream=stream)
        assert {name for name in reply.headers if name.startswith(("x-", "openai-", "server"))} == OURS | (
            OF_STREAMS if stream else set()
        )
        assert reply.headers.get("cache-control") == ("no-cache" if stream else None)
        assert re.fullmatch(r"[0-9a-f]{12}7[0-9a-f]{19}", reply.headers["x-request-id"])
        assert (reply.headers["x-pilotlight-start"], reply.headers["x-pilotlight-hold-ms"]) == ("warm", "0.0")
        assert 0 <= int(reply.headers["openai-processing-ms"]) < 5000


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cold_answer(stream: bool) -> None:
    async with world() as w:
        w.show(endpoint_row(starting=True))
        client = await w.client()
        client.post(stream=stream)
        await w.wait_held(1)
        await asyncio.sleep(0.02)  # the start takes a while
        begun = time.monotonic() - 0.01
        w.show(
            endpoint_row(
                w.row(
                    phases=(
                        Phase(name="spawn", at=begun, seconds=0.002),
                        Phase(name="load", at=begun + 0.002, seconds=0.003),
                    )
                )
            )
        )
        reply = await client.answer()
        assert {name for name in reply.headers if name.startswith(("x-", "openai-", "server"))} == OURS | {
            "server-timing"
        } | (OF_STREAMS if stream else set())
        assert reply.headers["x-pilotlight-start"] == "cold"
        held = float(reply.headers["x-pilotlight-hold-ms"])
        assert held >= 15
        assert int(reply.headers["openai-processing-ms"]) >= 15
        timings = dict(re.findall(r"([a-z_]+);dur=([0-9.]+)", reply.headers["server-timing"]))
        assert list(timings) == ["hold", "spawn", "load"]
        assert (timings["spawn"], timings["load"]) == ("2.0", "3.0")
        whole = sum(map(float, timings.values()))  # from admission until it was dispatched
        assert held - 0.2 <= whole <= int(reply.headers["openai-processing-ms"]) + 1.2


async def test_an_error() -> None:
    async with world() as w:
        refused = await w.ask(key=None)
        assert len(refused.headers["x-request-id"]) == 32
        assert refused.headers["www-authenticate"] == "Bearer"
        w.show(endpoint_row(failure="no memory", retry_after_seconds=7.2))
        failed = await w.ask()
        assert (failed.status, failed.headers["retry-after"], len(failed.headers["x-request-id"])) == (503, "8", 32)
