"""Wakes from the rung above zero: the engine is built and keeps its place, its memory is given back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from loadtests.bench.coldstart import SLOTS
from loadtests.bench.installation import running
from loadtests.bench.inventory import family, memory_of
from loadtests.bench.targets import at_most
from pilotlight.cli.bench import coldstart as measured

IDLE_SECONDS = 0.5


async def measure(model: Path, found: dict[str, Any], *, wakes: int) -> None:
    async with running() as bench:
        key = await bench.deploy("bench", model, idle_timeout_seconds=IDLE_SECONDS, slots=SLOTS, zero="parked")
        found["first_boot_s"] = (await bench.first_token("bench", key, measured.QUESTION))[0]
        ready = await asyncio.to_thread(_replica_bytes, bench.paths.state)
        # the first climb also makes what later ones find
        await asyncio.to_thread(measured.wake, bench.api, "bench", key, rung="parked")
        found |= await asyncio.to_thread(measured.coldstart, bench.api, "bench", key, wakes=wakes, rung="parked")
        await asyncio.to_thread(measured.until_rest, bench.api, "bench", "parked")
        at_rest = await asyncio.to_thread(_replica_bytes, bench.paths.state)
    found |= {"private memory, ready, MB": round(ready / 1e6, 1), "private memory, parked, MB": round(at_rest / 1e6, 1)}
    found["targets"] = [at_most("must", "p50 from parked", found["p50_s"], 0.1)]


def _replica_bytes(state: Path) -> int:
    """Private pages of the replica's processes."""
    return sum(memory_of(pid).private for pid, role in family(state) if role == "other")
