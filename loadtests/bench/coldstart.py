"""Cold starts of one model: ours over HTTPS with every process included, and stock vLLM's own server, interleaved."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from loadtests.bench.installation import running
from pilotlight.cli import bench as measured
from runtime.sizing import decide

IDLE_SECONDS = 0.5


async def measure(model: Path, *, wakes: int, stock_starts: int) -> dict[str, Any]:
    """Wake the model `wakes` times from zero; the first wake, which bakes and records, is made before and not counted."""
    sizing = decide(
        json.loads((model / "config.json").read_text()),
        slots=16,
        least_bytes=64 << 20,
        max_model_len=0,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )

    def stock() -> float:
        return measured.stock_first_token(model, kv_cache_bytes=sizing.kv_cache_bytes, max_model_len=sizing.max_model_len)

    async with running() as bench:
        key = await bench.deploy("bench", model, idle_timeout_seconds=IDLE_SECONDS, slots=16)
        first = await asyncio.to_thread(measured.wake, bench.api, "bench", key)
        found = await asyncio.to_thread(measured.coldstart, bench.api, "bench", key, wakes=wakes, stock=stock, stock_starts=stock_starts)
    return {"first_boot_s": first["seconds"], **found}
