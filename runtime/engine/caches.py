"""vLLM's own caches on a GPU lie with the snapshot, under its compatibility key. Steps 8 and 9.

Compiled graphs (`torch_compile_cache`) and the start-up plan (measured memory, so that a start does not profile again) are
what a GPU start waits longest for. They are worth keeping exactly as long as the baked copies beside them: removed with the
snapshot, and never met by another engine version. On CPU nothing is compiled, and there is nothing to keep.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def environment(baked: Path, *, device: str, engine: str, torch: str) -> dict[str, str]:
    """Variables to set before vLLM's first look at them. `baked`: the folder of the snapshot's baked copies."""
    if device != "cuda":
        return {}
    key = hashlib.sha256(f"vllm {engine} torch {torch}".encode()).hexdigest()[:16]
    return {"VLLM_CACHE_ROOT": str(baked / f"cache-{key}"), "VLLM_ENABLE_STARTUP_PLAN": "1"}
