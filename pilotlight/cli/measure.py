"""What `pilotlight bench coldstart` does and prints; `bench.py` has the measuring itself."""

from __future__ import annotations

import json
import os
from typing import Any

from pilotlight.cli import bench
from pilotlight.cli.api import Api
from pilotlight.cli.show import console, table
from pilotlight.cli.talk import Talker, Took
from pilotlight.settings import Settings
from runtime.sizing import decide
from snapshots.store.disk import path_of


def measure_coldstart(settings: Settings, name: str, key: str, *, wakes: int, stock_starts: int) -> dict[str, Any]:
    """Wakes of a deployed endpoint, and stock starts on its snapshot. Raises ApiError."""
    talker = Talker(settings, name, key)
    list(talker.stream({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}, Took()))  # its key is known then
    model = path_of(settings.paths.snapshots, Api(settings.paths).call("GET", f"/endpoints/{name}")["digest"])
    sizing = decide(
        json.loads((model / "config.json").read_text()),
        slots=16,
        least_bytes=settings.runtime.kv_cache_bytes,
        max_model_len=settings.runtime.max_model_len,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )

    def stock() -> float:
        return bench.stock_first_token(model, kv_cache_bytes=sizing.kv_cache_bytes, max_model_len=sizing.max_model_len)

    return bench.coldstart(talker.api, name, talker.key, wakes=wakes, stock=stock, stock_starts=stock_starts)


def print_coldstart(found: dict[str, Any]) -> None:
    rows = table("", "p50, s", "p95, s", "p99, s")
    rows.add_row("first token", *(f"{found[at]:.3f}" for at in ("p50_s", "p95_s", "p99_s")))
    for phase, told in sorted(found["phases"].items(), key=lambda item: -item[1]["p50_s"]):
        rows.add_row(f"  {phase}", *(f"{told[at]:.3f}" for at in ("p50_s", "p95_s", "p99_s")))
    if "stock_s" in found:
        rows.add_row("stock vLLM", f"{found['stock_s']:.2f}", "", "")
        rows.add_row("ratio", f"{found['ratio']:.0f} ×", "", "")
    console().print(rows)
