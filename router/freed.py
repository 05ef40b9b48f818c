"""Before step 1: what is freed goes back to the machine, however many clients were here at once.

uvloop reads each TLS connection into a block of 256 KiB. glibc maps the first such blocks by themselves; once one was freed it takes the next
from its heap, which ends where the last that is in use lies: after a flood a worker kept half of what it had needed, for ever. With bounds of
its own glibc goes on mapping them, and gives them back one by one. The failure to survive is another C library, which has no such bounds
to set, and needs none.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # of mallopt(3)
LARGE = 128 << 10  # bytes; glibc's own, until the first such block was freed
ARENAS = 2  # for the loop's thread and the spool's: others wait a moment, and none keeps what it once needed


def give_back() -> bool:
    """From now on. False where this C library has no such thing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(*pair) for pair in ((MMAP_THRESHOLD, LARGE), (TRIM_THRESHOLD, LARGE), (ARENA_MAX, ARENAS)))
