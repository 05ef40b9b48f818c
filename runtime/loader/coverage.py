"""What of a model's memory a load has written, and what the snapshot therefore lacks. Pure. Step 9, phase `load`.

`completeness.py` watches; here it is added up. A fused parameter is missed under its shards' names, which are those
that a reader can look for in the snapshot.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence


def unwritten(places: Mapping[str, tuple[int, int]], written: Collection[tuple[int, int]]) -> dict[str, int]:
    """How many bytes nothing was written to, of each (address, bytes) that was not written whole."""
    writes = sorted(written)
    found = {}
    for name, (begin, size) in places.items():
        these = writes[bisect_left(writes, (begin, 0)) : bisect_left(writes, (begin + size, 0))]
        if (missing := size - sum(count for _, count in these)) > 0:
            found[name] = missing
    return found


def in_the_snapshot(name: str, given: Collection[str], packed: Mapping[str, Sequence[str]]) -> list[str]:
    """What a parameter that was not filled is called in the snapshot: of a fused one the shards that were not given."""
    for fused, parts in packed.items():
        if f".{fused}." in name:
            shards = [name.replace(f".{fused}.", f".{part}.") for part in parts]
            return [shard for shard in shards if shard not in given] or [name]
    return [name]


def some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
