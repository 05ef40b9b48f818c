"""How much memory there is, how much KV cache a replica gets on CPU, and what replicas take. Step 8.

KV bytes a token = layers × 2 × KV heads × head dimension × bytes an element (vLLM's full-attention layout). The cache
holds at least one sequence of the longest context, and `TOKENS_A_SLOT` a slot where that is more, but never more than a
quarter of the machine's memory; the context is cut to `LONGEST_CONTEXT` unless the settings say otherwise.

A replica takes the private pages of all its processes, never their RSS: what it shares with its standby is there once,
however many replicas there are, and is the standby's. Clean pages of mapped files are nobody's: the kernel takes them when it
needs them, and whether they count as private only depends on who else has them mapped. Added is what will be private soon:
pages of the cache that are not touched yet, and mapped weights, which are packed into private memory behind the traffic.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotlight.settings import RuntimeSettings

LONGEST_CONTEXT = 4096  # tokens, on CPU
TOKENS_A_SLOT = 256
BLOCK = 128  # tokens, vLLM's CPU block
ELEMENT_BYTES = 2
NEWS_BYTES = 1 << 20  # what a process takes is told anew when it differs by more than this, and by a hundredth
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


def packed_bytes(baked: Path) -> int:
    """What mapped weights take once they are packed: as much as the largest of the snapshot's baked copies that are there."""
    found = 0
    for copy in baked.glob("*.safetensors"):
        with suppress(OSError):
            found = max(found, copy.stat().st_size)
    return found


def held_bytes(sessions: Collection[int]) -> dict[int, int]:
    """Private pages of all processes of each session that the kernel could not take back, in bytes.

    Reads /proc; some milliseconds a process: in a thread.
    """
    found = dict.fromkeys(sessions, 0)
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = Path(entry.path, "stat").read_text()
                session = int(stat[stat.rindex(")") + 2 :].split()[3])
                if session in found:
                    found[session] += held_in(Path(entry.path, "smaps_rollup").read_text())
            except (OSError, ValueError):  # it ended meanwhile
                continue
    return found


def own_bytes(pids: Collection[int]) -> dict[int, int]:
    """What each of these processes holds, with what it shares with its forks, in bytes. Those that are gone are left out."""
    found = {}
    for pid in pids:
        with suppress(OSError):
            found[pid] = _bytes_of(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Anonymous")
    return found


def held_in(rollup: str) -> int:
    """Private pages of a `smaps_rollup` that are no file's, in bytes: Anonymous less Shared_Dirty, and Private_Hugetlb.

    Private_Dirty would say the same but for a mapped file that was just written, as a baked copy is at the first boot: until
    the disk has its pages they count as dirty.
    """
    return max(0, _bytes_of(rollup, "Anonymous") - _bytes_of(rollup, "Shared_Dirty")) + _bytes_of(rollup, "Private_Hugetlb")


def _bytes_of(rollup: str, name: str) -> int:
    return sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith(f"{name}:"))


def needed(*, first: int, now: int, kv_cache_bytes: int, to_pack: int) -> int:
    """What a replica needs: what it held when it had just become ready, all that is to be packed, and its whole cache.

    Or what it holds by now. A layer packed before the first look counts twice: of a large model there is none yet, for each
    needs a step of its own.
    """
    return max(first + to_pack + kv_cache_bytes, now)


def is_news(before: int, now: int) -> bool:
    """Is it worth telling?"""
    return abs(now - before) > max(NEWS_BYTES, before // 100)


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
