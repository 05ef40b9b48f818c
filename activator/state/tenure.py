"""How long this activator has led, and whether it is ending. Steps 6 and 10. Pure: time is an argument.

After a start routers and nodes need a moment to come back. Until then a missing report proves nothing, so nothing is
taken away. What must survive at the end is a router that does not answer: a shutdown waits for it only so long.
"""

from __future__ import annotations

from dataclasses import dataclass

STRANGER_SECONDS = 10.0  # how long replicas of nodes that are away are believed in, after a start
PARTING_SECONDS = 3.0  # how long a shutdown waits for the routers to acknowledge


@dataclass(slots=True)
class Tenure:
    """Moments are monotonic seconds."""

    began: float
    settle_seconds: float  # for everybody who knew the last activator to come back
    closing_since: float | None = None
    _awaits_nodes: bool = True  # those whose replicas Postgres knew

    @property
    def is_closing(self) -> bool:
        return self.closing_since is not None

    def close(self, now: float) -> None:
        """The shutdown begins, or goes on."""
        self.closing_since = now if self.closing_since is None else self.closing_since

    def is_settled(self, now: float) -> bool:
        """Has everybody who knew the last activator had time to come back?"""
        return self.is_closing or now - self.began >= self.settle_seconds

    def gives_up_nodes(self, now: float) -> bool:
        """True once: nodes that have not come back by now will not."""
        if not self._awaits_nodes or now - self.began <= STRANGER_SECONDS:
            return False
        self._awaits_nodes = False
        return True

    def gives_up_routers(self, now: float) -> bool:
        """Does the shutdown no longer wait for routers?"""
        return self.closing_since is not None and now - self.closing_since > PARTING_SECONDS
