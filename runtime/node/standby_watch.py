"""Which standbys are silent, and what they hold of the node's memory: looked at by the agent, now and then. Step 7.

A standby that is stopped or hung neither dies nor answers. So it is asked once a second whether it is there, and killed
when something is owed and nothing has come for `silent_seconds`. A rehearsal has a time of its own. What must survive
is an agent that was stopped itself: moments are its attentive seconds (`pilotlight/attention.py`).
"""

from __future__ import annotations

import asyncio

from runtime.node.background import Background
from runtime.node.sizing import is_news, own_bytes
from runtime.node.standby_pool import StandbyPool


class StandbyWatch:
    """Asks standbys whether they are there, and measures what they hold."""

    def __init__(
        self, pool: StandbyPool, background: Background, *, silent_seconds: float, rehearsal_seconds: float
    ) -> None:
        self._pool = pool
        self._background = background
        self._silent_seconds = silent_seconds
        self._rehearsal_seconds = rehearsal_seconds
        self._looked_at = 0.0  # attentive seconds

    def look(self, now: float) -> list[str]:
        """Once a second, at `now` (attentive seconds): ask which are there, kill those that are silent.

        Returns the replicas of orders that a standby has read, and of which nobody was born.
        """
        before, self._looked_at = self._looked_at, now
        for standby in self._pool.all():
            if standby.sign:
                standby.sign = False
                standby.signed_at = before
            patience = self._silent_seconds if standby.rehearsed else self._rehearsal_seconds
            if standby.owes and now - standby.signed_at > patience and not standby.killed:
                missed = "answered nothing" if standby.rehearsed else "not been rehearsed"
                self._pool.kill(standby, f"hung: it has {missed} for {patience:g} s")
            elif standby.takes_orders:
                standby.ask(now)
        return [replica_id for standby in self._pool.all() for replica_id in standby.lost()]

    def weigh(self) -> None:
        """Measure soon, in the background."""
        self._background.spawn(self.measure())

    async def measure(self) -> None:
        """Look at what the ready ones hold. What they share with their forks is theirs; of the forks it is not
        counted.
        """
        ready = {standby.process.pid: standby for standby in self._pool.ready()}
        found = await asyncio.to_thread(own_bytes, ready.keys()) if ready else {}
        news = [pid for pid, now in found.items() if is_news(ready[pid].private_bytes, now)]
        for pid in news:
            ready[pid].private_bytes = found[pid]
        if news:
            self._pool.changed()
