"""What replicas take of the node's memory, looked at now and then. Step 8.

A look reads /proc in a thread, some milliseconds a process, and one at a time. What must survive is a replica that
changes its state, or ends, while it is looked at: what was seen of it says nothing then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from runtime.node.replica_record import Running
from runtime.node.sizing import held_bytes, is_news

SERVING = ("ready", "draining", "parking")


class Weighing:
    def __init__(self, changed: Callable[[Running], None]) -> None:
        self._changed = changed
        self._looking = False

    async def look(self, replicas: Iterable[Running]) -> None:
        """Look at those that serve and those that are parked, unless a look is under way."""
        known = {r.identity.pid: (r, r.state) for r in replicas if r.identity and r.state in (*SERVING, "parked")}
        if self._looking or not known:
            return
        self._looking = True
        try:
            found = await asyncio.to_thread(held_bytes, known.keys())
        finally:
            self._looking = False
        for session, (running, state) in known.items():
            if found[session] and (running.state == "parked") == (state == "parked"):
                self._seen(running, found[session])

    def _seen(self, running: Running, now: int) -> None:
        if running.state in SERVING and is_news(running.private_bytes, now):
            running.private_bytes, running.first_bytes = now, running.first_bytes or now
        elif running.state == "parked" and is_news(running.parked_bytes, now):
            running.parked_bytes = now
        else:
            return
        self._changed(running)
