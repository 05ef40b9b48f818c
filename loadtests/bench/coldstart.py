"""Cold starts of one model: ours over HTTPS with every process included, and stock vLLM's own server, interleaved."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadtests.bench.installation import running
from pilotlight.cli.bench import coldstart as measured
from pilotlight.cli.bench import stock
from runtime.context import describe
from runtime.node.kv_cache import Sizing, decide

IDLE_SECONDS = 0.5
SLOTS = 16


async def measure(model: Path, found: dict[str, Any], *, wakes: int, stock_starts: int) -> None:
    """Wake the model `wakes` times from zero; the first wake, which bakes and records, is made before and not
    counted.
    """
    async with running() as bench:
        key = await bench.deploy("bench", model, idle_timeout_seconds=IDLE_SECONDS, slots=SLOTS)
        first = await asyncio.to_thread(measured.wake, bench.api, "bench", key)
        found["first_boot_s"] = first["seconds"]
        found |= await asyncio.to_thread(
            measured.coldstart,
            bench.api,
            "bench",
            key,
            wakes=wakes,
            stock=stock_start(model),
            stock_starts=stock_starts,
        )


def stock_start(model: Path) -> Callable[[], float]:
    """Starts stock vLLM with the context and cache ours has."""
    sizing = sized(model)
    return lambda: stock.first_token(model, kv_cache_bytes=sizing.kv_cache_bytes, max_model_len=sizing.max_model_len)


def sized(model: Path) -> Sizing:
    """Context and KV cache as the agent chooses them on this machine."""
    return decide(
        describe(model),
        slots=SLOTS,
        least_bytes=64 << 20,
        max_model_len=0,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )
