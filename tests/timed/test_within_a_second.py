"""What is promised within a second, of a real engine."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from runtime.reap import session_members
from tests.integration.system import System, wait_until

LONG = {"model": "leave", "prompt": "x", "max_tokens": 900, "ignore_eos": True, "stream": True}


async def test_a_client_that_leaves_frees_the_engine_within_a_second(system: System) -> None:
    key = await asyncio.to_thread(system.deploy, "leave", "--idle-timeout", "600", "--slots", "16")
    async with system.async_client(key) as client:
        assert (await client.post("/e/leave/v1/completions", json=LONG | {"max_tokens": 1})).status_code == 200
        replica = await asyncio.to_thread(system.until_ready, "leave")
        async with client.stream("POST", "/e/leave/v1/completions", json=LONG) as answer:
            async for _ in answer.aiter_lines():
                break
            assert seconds_of_work(replica["pid"], 0.2) > 0.05, "the engine is at work"
        left = time.monotonic()
        await asyncio.to_thread(wait_until, lambda: not system.until_ready("leave")["in_flight"], 1, "its slot is free")
        print(f"slot free {time.monotonic() - left:.3f} s after its client left")
        await asyncio.to_thread(
            wait_until, lambda: seconds_of_work(replica["pid"], 0.2) < 0.05, 1.2 - (time.monotonic() - left), "it rests"
        )
    assert (await asyncio.to_thread(system.until_ready, "leave"))["replica_id"] == replica["replica_id"]


def seconds_of_work(session: int, seconds: float) -> float:
    """The CPU time its processes take in this time."""

    def ticks() -> int:
        stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in session_members(session)]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats)

    before = ticks()
    time.sleep(seconds)  # what is measured is this time
    return (ticks() - before) / os.sysconf("SC_CLK_TCK")
