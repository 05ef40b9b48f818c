"""vLLM's own caches on a GPU lie with the snapshot, under its compatibility key. Steps 8 and 9.

Compiled graphs (`torch_compile_cache`) and the start-up plan (measured memory) are what a GPU start waits longest for.
They are worth keeping exactly as long as the baked copies beside them, and are removed with the snapshot. Another
engine version, another kind of GPU, or another number of them never meets them. On CPU nothing is compiled, and nothing
kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

DECIDING = {
    "dtype": "auto",
    "tensor-parallel-size": 1,
    "pipeline-parallel-size": 1,
    "quantization": "none",
}  # arguments and defaults


def of_this_hardware(record: Path, hardware: str) -> Path:
    """The file of a canary's answer on this hardware: another instruction set, or another GPU, sums in another
    order.
    """
    return record.with_name(f"{record.stem}-{hashlib.sha256(hardware.encode()).hexdigest()[:8]}{record.suffix}")


def environment(
    baked: Path,
    *,
    device: str,
    hardware: str,
    engine: str,
    torch: str,
    arguments: Mapping[str, str | int | float | bool],
) -> dict[str, str]:
    """Variables to set before vLLM's first look at them.

    `baked`: the folder of the snapshot's baked copies; an empty path, where there is no room for any, is the replica's
    own folder, with which they go. `hardware`: the devices' name and capability; "" where nobody knows. `arguments`:
    the engine's.
    """
    if device != "cuda":
        return {}
    parts = {"vllm": engine, "torch": torch, "hardware": hardware} | {
        name: arguments.get(name, usual) for name, usual in DECIDING.items()
    }
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return {"VLLM_CACHE_ROOT": str(baked / f"cache-{key}"), "VLLM_ENABLE_STARTUP_PLAN": "1"}
