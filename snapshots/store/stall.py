"""Does a part of an object come fast enough to go on waiting for it? Step 9.

A peer that sends a byte now and then is never silent, and would hold a fetch, and all who wait for it, for days. So
each part has a time of its own: `PATIENCE` and what its bytes take at `SLOWEST`. A part that is late is given up,
unless the whole way is slow and it has had its share of it. Breaking that off would only begin anew.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

PATIENCE = 30.0  # s
SLOWEST = 100_000  # bytes/s, of one part, or of all together
SHARE = 0.25  # of an even share of what came meanwhile: with less the connection is at fault and not the way


class Part(Protocol):
    """What is being read; written by whoever reads it, in any thread."""

    length: int  # bytes that have come


class Pace:
    """Of all that is read from one store. One event loop owns it."""

    def __init__(self) -> None:
        self._parts: set[Part] = set()
        self._done = 0  # bytes of parts that are read, or given up

    async def keeps(self, work: asyncio.Future[Any], part: Part, size: int) -> bool:
        """Wait for `work`, which reads `size` bytes into `part`: True when it is done, False when it is to be given
        up.
        """
        self._parts.add(part)
        try:
            while True:
                before, had = self._all(), part.length
                seconds = PATIENCE + size / SLOWEST
                if (await asyncio.wait([work], timeout=seconds))[0]:
                    return True
                came = self._all() - before
                share = came / len(self._parts)
                if came < seconds * SLOWEST or part.length - had < share * SHARE:
                    return False
        finally:
            self._parts.discard(part)
            self._done += part.length

    def _all(self) -> int:
        return self._done + sum(part.length for part in self._parts)
