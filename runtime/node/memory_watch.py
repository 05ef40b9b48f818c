"""What replicas take of the node's memory, measured now and then. Step 8.

A measurement reads /proc in a thread, some milliseconds a process, and there is one at a time. What must survive is a
replica that changes its state, or ends, while it is measured: what was seen of it says nothing then.
"""

from __future__ import annotations

import asyncio

from runtime.node.background import Background
from runtime.node.replica_record import ReplicaRecord
from runtime.node.replicas import Replicas
from runtime.node.sizing import held_bytes, is_news

SERVING = ("ready", "draining", "parking")
MEASURED = (*SERVING, "parked")


class MemoryWatch:
    """Measures what replicas hold, and reports what is news."""

    def __init__(self, replicas: Replicas, background: Background) -> None:
        self._replicas = replicas
        self._background = background
        self._measuring = False

    def weigh(self) -> None:
        """Measure soon, in the background."""
        self._background.spawn(self.measure())

    async def measure(self) -> None:
        """Measure those that serve and those that are parked, unless a measurement is under way."""
        known = {r.identity.pid: (r, r.state) for r in self._replicas.all() if r.identity and r.state in MEASURED}
        if self._measuring or not known:
            return
        self._measuring = True
        try:
            found = await asyncio.to_thread(held_bytes, known.keys())
        finally:
            self._measuring = False
        for session, (record, state) in known.items():
            if found[session] and (record.state == "parked") == (state == "parked"):
                self._measured(record, found[session])

    def _measured(self, record: ReplicaRecord, now: int) -> None:
        if record.state in SERVING and is_news(record.private_bytes, now):
            record.private_bytes = now
            record.first_bytes = record.first_bytes or now
        elif record.state == "parked" and is_news(record.parked_bytes, now):
            record.parked_bytes = now
        else:
            return
        self._replicas.changed(record)
