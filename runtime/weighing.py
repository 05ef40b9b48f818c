"""What replicas take of the node's memory, looked at now and then. Step 8.

A look reads /proc in a thread, some milliseconds a process, and one at a time. Of a replica that serves all private pages count; of
a parked one those that are its own for good, for pages of mapped files are the kernel's to take whenever it needs them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from runtime.running import Running
from runtime.sizing import held_bytes, private_bytes

NEWS_BYTES = 1 << 20  # what a replica takes is told anew when it differs by more than this, and by a hundredth


class Weighing:
    def __init__(self, changed: Callable[[Running], None]) -> None:
        self._changed = changed
        self._looking = False

    async def look(self, replicas: Iterable[Running]) -> None:
        """Look at those that serve and those that are parked, unless a look is under way."""
        if self._looking:
            return
        self._looking = True
        known = [running for running in replicas if running.identity]
        try:
            await self._serving({r.identity.pid: r for r in known if r.identity and r.state in ("ready", "draining", "parking")})
            await self._parked({r.identity.pid: r for r in known if r.identity and r.state == "parked"})
        finally:
            self._looking = False

    async def _serving(self, served: dict[int, Running]) -> None:
        found = await asyncio.to_thread(private_bytes, served.keys()) if served else {}
        for session, running in served.items():
            now = found[session]
            if now and running.state not in ("parked", "stopped") and is_news(running.private_bytes, now):
                running.private_bytes, running.first_bytes = now, running.first_bytes or now
                self._changed(running)

    async def _parked(self, parked: dict[int, Running]) -> None:
        found = await asyncio.to_thread(held_bytes, parked.keys()) if parked else {}
        for session, running in parked.items():
            if found[session] and running.state == "parked" and is_news(running.parked_bytes, found[session]):
                running.parked_bytes = found[session]
                self._changed(running)


def is_news(before: int, now: int) -> bool:
    return abs(now - before) > max(NEWS_BYTES, before // 100)
