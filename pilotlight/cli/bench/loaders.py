"""The loader table: one file of weights, loaded by us and by others, warm and cold, each loader where it is installed.

`runtime/loader/probe.py` does the loading, in a process a loader; here are the environments, the medians and the table.
A loader that fails is in the table with its own words, and so is one whose tensors are not the file's.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pilotlight import children
from pilotlight.cli.bench.peers import NoPeer, python_with

PROBE = Path(__file__).parents[3] / "runtime" / "loader" / "probe.py"
SECONDS = 600  # the longest one loader may take for all its rounds
PEERS = {
    "runai-model-streamer": "runai-model-streamer==0.17.0",
    "fastsafetensors": "fastsafetensors==0.5.0",
    "tensorizer": "tensorizer==2.12.1",
}
REFERENCE = "safetensors, mapped"  # what the tensors are, by the format's own library
BARE = "parallel preadv, no loader"
CPU = ("baked copy, mapped", "ring, to memory", REFERENCE, "safetensors, copied", *PEERS, "vLLM's default loader", BARE)
GPU = ("pinned copy, no loader", "ring, to the GPU", "safetensors, to the GPU", "fastsafetensors, to the GPU")

Say = Callable[[str], None]


def compare(file: Path, *, rounds: int, gpu: bool, scratch: Path, say: Say) -> dict[str, Any]:
    """Median seconds (and bytes a second) of every loader, by name; `scratch`: a folder on the disk that is
    measured.
    """
    found: dict[str, Any] = {}
    for name in (*CPU, *(GPU if gpu else ())):
        say(f"loading with {name}")
        found[name] = _figures(_rows(name, file, rounds, scratch), file.stat().st_size)
    _check(found)
    gpu_lines = "measured" if gpu else "skipped: no GPU"
    return {
        "file_bytes": file.stat().st_size,
        "rounds": rounds,
        "loaders": found,
        "gpu_lines": gpu_lines,
        **(_bus(found) if gpu else {}),
    }


def _rows(name: str, file: Path, rounds: int, scratch: Path) -> list[dict[str, Any]]:
    """What the probe said, a row a round and state of the page cache, or one row with an error."""
    package = name.removesuffix(", to the GPU")
    try:
        python = (
            python_with(_torch(), "numpy", "safetensors", PEERS[package]) if package in PEERS else Path(sys.executable)
        )
    except NoPeer as error:
        return [{"error": f"cannot be installed: {error}"}]
    with tempfile.TemporaryDirectory(prefix="loader-", dir=scratch) as folder:
        command = [str(python), "-P", str(PROBE), name, str(file), str(rounds), f"{folder}/own.safetensors"]
        quiet = {
            "VLLM_LOGGING_LEVEL": "ERROR",
            "PYTHONPATH": str(PROBE.parents[2]) if python == Path(sys.executable) else "",
        }
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
                env=children.environment(os.environ) | quiet,
            )
        except subprocess.TimeoutExpired:
            return [{"error": f"not done after {SECONDS} s"}]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not rows:
        rows.append({"error": (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]})
    return rows


def _torch() -> str:
    return f"torch=={importlib.metadata.version('torch')}"


def _figures(rows: Iterable[dict[str, Any]], size: int) -> dict[str, Any]:
    listed = list(rows)
    if errors := [row["error"] for row in listed if "error" in row]:
        return {"error": errors[0]}
    figures: dict[str, Any] = {"bytes": listed[0]["bytes"], "sum": listed[0]["sum"]}
    for cache in ("warm", "cold"):
        if seconds := [row["seconds"] for row in listed if row["cache"] == cache]:
            figures |= {
                f"{cache}_s": round(statistics.median(seconds), 4),
                f"{cache}_gb_per_s": round(size / statistics.median(seconds) / 1e9, 2),
            }
    return figures


def _check(found: dict[str, Any]) -> None:
    """Who gives other bytes than the format's own library is told so. A byte of each page is added up, not all of
    them.
    """
    wanted = found[REFERENCE].get("sum")
    for name, figures in found.items():
        ours = figures.pop("sum", None)
        if ours != wanted and name in CPU and name != BARE and "error" not in figures:
            figures["error"] = f"its tensors are not the file's ({ours} for {wanted})"


def _bus(found: dict[str, Any]) -> dict[str, float]:
    """What part of the bus's pace the ring has."""
    speeds = [found[name].get("warm_gb_per_s") for name in ("ring, to the GPU", "pinned copy, no loader")]
    return {"ring_share_of_pinned_copy": round(speeds[0] / speeds[1], 3)} if all(speeds) else {}


def lines(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(loader, warm, cold) as text, fastest first, errors last."""
    rows = sorted(found["loaders"].items(), key=lambda item: item[1].get("warm_s", 1e9))
    return [(name, *_cells(figures)) for name, figures in rows]


def _cells(figures: dict[str, Any]) -> tuple[str, str]:
    if "error" in figures:
        return f"failed: {figures['error']}", ""
    warm, cold = (
        f"{figures[f'{cache}_s']:.3f} s ({figures[f'{cache}_gb_per_s']:.1f} GB/s)" if f"{cache}_s" in figures else ""
        for cache in ("warm", "cold")
    )
    return warm, cold
