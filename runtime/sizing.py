"""How much memory there is, how much KV cache a replica gets on CPU, and what replicas take. Step 8.

KV bytes a token = layers × 2 × KV heads × head dimension × bytes an element (vLLM's full-attention layout). The cache
holds at least one sequence of the longest context, and `TOKENS_A_SLOT` a slot where that is more, but never more than a
quarter of the machine's memory; the context is cut to `LONGEST_CONTEXT` unless the settings say otherwise.

A replica takes the private pages of all its processes, never their RSS: what it shares with its standby is there once,
however many replicas there are. Pages of its cache that it has not touched yet are added, for it will.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotlight.settings import RuntimeSettings

LONGEST_CONTEXT = 4096  # tokens, on CPU
TOKENS_A_SLOT = 256
BLOCK = 128  # tokens, vLLM's CPU block
ELEMENT_BYTES = 2
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # cgroup 2, 1


@dataclass(frozen=True)
class Sizing:
    kv_cache_bytes: int
    max_model_len: int  # tokens; 0: as the model's config says


def size(snapshot: Path, *, slots: int, settings: RuntimeSettings) -> Sizing:
    """Read the snapshot's config and size its cache. Raises OSError or ValueError for a config that cannot be read."""
    config = json.loads((snapshot / "config.json").read_text())
    least, longest = settings.kv_cache_bytes, settings.max_model_len
    return decide(config, slots=slots, least_bytes=least, max_model_len=longest, memory_bytes=node_memory())


def node_memory() -> int:
    """Bytes of the machine, or of the container's limit where that is less."""
    least = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in LIMITS:
        try:
            least = min(least, int(Path(file).read_text()))
        except (OSError, ValueError):  # no such controller, or "max"
            continue
    return least


def cache_bytes(engine_args: Mapping[str, str | int | float | bool], sizing: Sizing) -> int:
    """The KV cache a replica on CPU really gets: ours, unless its engine arguments say otherwise."""
    given = {name.replace("_", "-"): value for name, value in engine_args.items()}.get("kv-cache-memory-bytes", sizing.kv_cache_bytes)
    try:
        return int(given)
    except ValueError:
        return sizing.kv_cache_bytes


def private_bytes(sessions: Collection[int]) -> dict[int, int]:
    """Private pages of all processes of each session, in bytes. Reads /proc; some milliseconds a process: in a thread."""
    return _summed(sessions, private_in)


def held_bytes(sessions: Collection[int]) -> dict[int, int]:
    """The part of it that the kernel could not take back: all but clean pages of mapped files."""
    return _summed(sessions, held_in)


def _summed(sessions: Collection[int], count: Callable[[str], int]) -> dict[int, int]:
    found = dict.fromkeys(sessions, 0)
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = Path(entry.path, "stat").read_text()
                session = int(stat[stat.rindex(")") + 2 :].split()[3])
                if session in found:
                    found[session] += count(Path(entry.path, "smaps_rollup").read_text())
            except (OSError, ValueError):  # it ended meanwhile
                continue
    return found


def private_in(rollup: str) -> int:
    """Private_Clean + Private_Dirty + Private_Hugetlb of a `smaps_rollup`, in bytes."""
    return sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Private_"))


def held_in(rollup: str) -> int:
    """Private_Dirty + Private_Hugetlb of a `smaps_rollup`, in bytes."""
    return sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith(("Private_Dirty", "Private_Hugetlb")))


def needed(*, first: int, now: int, kv_cache_bytes: int) -> int:
    """What a replica needs: its private pages when it had just become ready, and its whole cache; or what it has by now."""
    return max(first + kv_cache_bytes, now)


def decide(config: dict[str, Any], *, slots: int, least_bytes: int, max_model_len: int, memory_bytes: int) -> Sizing:
    text = config.get("text_config", config)
    longest = int(text.get("max_position_embeddings", LONGEST_CONTEXT))
    context = min(longest, max_model_len or LONGEST_CONTEXT)
    layers, heads = int(text.get("num_hidden_layers", 0)), int(text.get("num_attention_heads", 0))
    if not layers or not heads:
        return Sizing(least_bytes, context)
    head = int(text.get("head_dim") or text["hidden_size"] // heads)
    token = layers * 2 * int(text.get("num_key_value_heads") or heads) * head * ELEMENT_BYTES
    blocks = max(-(-context // BLOCK) + 2, -(-slots * TOKENS_A_SLOT // BLOCK))
    most = max(memory_bytes // 4, (-(-context // BLOCK) + 2) * BLOCK * token)
    return Sizing(min(max(blocks * BLOCK * token, least_bytes), most), context)
