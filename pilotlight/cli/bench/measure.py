"""What `pilotlight bench coldstart` does and prints; `coldstart.py`, `stock.py` and `loaders.py` have the measuring
itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pilotlight.cli.api import Api
from pilotlight.cli.bench import coldstart, loaders, stock
from pilotlight.cli.tables import Table, show, show_text
from pilotlight.cli.talker import Talker, Took
from pilotlight.settings import Settings
from runtime.node.kv_cache import size
from snapshots.store.disk import path_of

WIDTH = 40  # characters of the waterfall's longest line
POINTS = ("p50_s", "p95_s", "p99_s")


def measure_coldstart(
    settings: Settings, name: str, key: str, *, wakes: int, rung: str, stock_starts: int, loader_rounds: int
) -> dict[str, Any]:
    """Wakes of a deployed endpoint; stock starts, and the loader table, on its snapshot. Raises ApiError."""
    talker = Talker(settings, name, key)
    # its key is known then
    list(talker.stream({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}, Took()))
    model = path_of(settings.paths.snapshots, Api(settings.paths).call("GET", f"/endpoints/{name}")["digest"])
    sizing = size(model, slots=16, settings=settings.runtime)

    def stock_start() -> float:
        return stock.first_token(model, kv_cache_bytes=sizing.kv_cache_bytes, max_model_len=sizing.max_model_len)

    found = coldstart.coldstart(
        talker.api, name, talker.key, wakes=wakes, rung=rung, stock=stock_start, stock_starts=stock_starts
    )
    found["from"] = rung
    if loader_rounds:
        coldstart.until_rest(talker.api, name, rung)
        found |= compare_loaders(model, settings.paths.state, loader_rounds)
    return found


def compare_loaders(model: Path, scratch: Path, rounds: int) -> dict[str, Any]:
    """The loader table on the largest file of a model. Raises ApiError where it has none."""
    files = sorted(model.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    if not files:
        raise coldstart.BenchFailed(f"{model} has no safetensors file to load")
    return loaders.compare(
        files[-1], rounds=rounds, gpu=shutil.which("nvidia-smi") is not None, scratch=scratch, say=coldstart.say
    )


def print_coldstart(found: dict[str, Any]) -> None:
    """The waterfall: each phase where the ones before it have ended, by their medians."""
    rows = Table(f"from {found['from']}, {found['wakes']} wakes", "p50, s", "p95, s", "p99, s", "")
    rows.add_row("first token", *(f"{found[at]:.3f}" for at in POINTS), "")
    begin, total = 0.0, max(sum(figures["p50_s"] for figures in found["phases"].values()), 1e-9)
    for phase in coldstart.ordered(found["phases"]):
        figures = found["phases"][phase]
        bar = " " * round(begin / total * WIDTH) + "█" * max(1, round(figures["p50_s"] / total * WIDTH))
        rows.add_row(f"  {phase}", *(f"{figures[at]:.3f}" for at in POINTS), bar)
        begin += figures["p50_s"]
    if "stock_s" in found:
        rows.add_row("stock vLLM", f"{found['stock_s']:.2f}", "", "", "")
        rows.add_row("ratio", f"{found['ratio']:.0f} ×", "", "", "")
    show(rows)
    if "loaders" in found:
        print_loaders(found)


def print_loaders(found: dict[str, Any]) -> None:
    rows = Table(f"{found['file_bytes'] / 1e6:.0f} MB, median of {found['rounds']}", "page cache warm", "pages dropped")
    for line in loaders.lines(found):
        rows.add_row(*line)
    show(rows)
    show_text(f"GPU: {found['gpu_lines']}")
