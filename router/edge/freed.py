"""Gives freed memory back to the machine, however many clients were here at once. Before step 1.

uvloop reads each TLS connection into a block of 256 KiB. glibc maps the first such blocks by themselves. Once one was
freed it takes the next from its heap, which ends where the last that is in use lies. So after a flood a worker kept
half of what it had needed, for ever. With bounds of its own glibc goes on mapping them, and gives them back one by one.
What is smaller, such as OpenSSL's part of a connection, leaves holes in the heap. They are given back once most of the
clients that were here have left. The failure to survive is another C library, which has neither.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import NoReturn

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # of mallopt(3)
LARGE = 128 << 10  # bytes; glibc's own, until the first such block was freed
ARENAS = 2  # for the loop's thread and the spool's: others wait a moment, and none keeps what it once needed
FLOOD = 32  # connections: fewer leave nothing worth looking for
LOOK_SECONDS = 2.0


def give_back() -> bool:
    """From now on. False where this C library has no such thing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        mallopt(*pair) for pair in ((MMAP_THRESHOLD, LARGE), (TRIM_THRESHOLD, LARGE), (ARENA_MAX, ARENAS))
    )


def give_back_holes() -> bool:
    """Now; some milliseconds. False where nothing was given back, or this C library has no such thing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))


class Ebb:
    """Whether most of those who were connected have left, since that was last so, and no more are leaving. Pure."""

    def __init__(self) -> None:
        self._highest = self._last = 0

    def has_come(self, connections: int) -> bool:
        leaving, self._last = connections < self._last, connections
        self._highest = max(self._highest, connections)
        if leaving or self._highest < FLOOD or connections > self._highest // 2:
            return False
        self._highest = connections
        return True


async def keep(connections: Callable[[], int], seconds: float = LOOK_SECONDS) -> NoReturn:
    ebb = Ebb()
    while True:
        await asyncio.sleep(seconds)
        if ebb.has_come(connections()):
            give_back_holes()
