"""How much memory there is on a node, and what replicas take of it. Step 8.

A replica takes the private pages of all its processes, never their RSS. What it shares with its standby is there once,
however many replicas there are, and is the standby's. Clean pages of mapped files are nobody's. The kernel takes them
when it needs them, and whether they count as private only depends on who else has them mapped. What will be private
soon is added. That is the cache's pages that are not touched yet, and mapped weights, which are packed behind the
traffic.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from pilotlight import cgroups
from pilotlight.processes import everybody

NEWS_BYTES = 1 << 20  # what a process takes is told anew when it differs by more than this, and by a hundredth


def node_memory() -> int:
    """Bytes of the machine, or of what we may use of it where that is less."""
    return cgroups.memory_bytes()


def packed_bytes(baked: Path) -> int:
    """What mapped weights take once they are packed: as much as the largest of the snapshot's baked copies that are
    there.
    """
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
    for pid, seen in everybody():
        if seen.session in found:
            with suppress(OSError, ValueError):  # it ended meanwhile
                found[seen.session] += held_in(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return found


def own_bytes(pids: Collection[int]) -> dict[int, int]:
    """What each of these processes holds, with what it shares with its forks, in bytes. Those that are gone are left
    out.
    """
    found = {}
    for pid in pids:
        with suppress(OSError):
            found[pid] = _bytes_of(Path(f"/proc/{pid}/smaps_rollup").read_text(), "Anonymous")
    return found


def held_in(rollup: str) -> int:
    """Private pages of a `smaps_rollup` that are no file's, in bytes: Anonymous less Shared_Dirty, and Private_Hugetlb.

    Private_Dirty would say the same but for a mapped file that was just written, as a baked copy is at the first boot:
    until the disk has its pages they count as dirty.
    """
    return max(0, _bytes_of(rollup, "Anonymous") - _bytes_of(rollup, "Shared_Dirty")) + _bytes_of(
        rollup, "Private_Hugetlb"
    )


def _bytes_of(rollup: str, name: str) -> int:
    return sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith(f"{name}:"))


def needed(*, first: int, now: int, kv_cache_bytes: int, to_pack: int) -> int:
    """What a replica needs: what it held when it had just become ready, all that is to be packed, and its whole cache.

    Or what it holds by now. A layer packed before the first look counts twice: of a large model there is none yet, for
    each needs a step of its own.
    """
    return max(first + to_pack + kv_cache_bytes, now)


def is_news(before: int, now: int) -> bool:
    """Is it worth telling?"""
    return abs(now - before) > max(NEWS_BYTES, before // 100)
