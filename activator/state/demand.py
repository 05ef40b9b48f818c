"""Demand: held + in-flight requests per revision, as the routers reported it last. Step 6. Pure: time is an argument.

Numbers are absolute and fenced by sequence, so a frame that comes twice or late changes nothing. What must survive is a
signal that is missing. A router that goes silent, or whose connection breaks, keeps its last numbers for
`silent_seconds`. Only its own word, or that much time, makes them less. Silence is never zero demand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from activator.wire import Demand

NOBODY = math.inf  # what `acknowledged` says where no router is connected


@dataclass(slots=True)
class RouterDemand:
    """What one router said last. `connection` is None once its connection is gone."""

    router_id: str
    connection: int | None
    heard_at: float  # monotonic seconds
    requests: dict[str, int] = field(default_factory=dict)
    sequence: int = -1  # of the last frame on this connection
    acknowledged: int = -1  # highest table sequence applied, as said on this connection
    reported: bool = False  # has sent its demand on this connection


@dataclass(slots=True)
class DemandBook:
    """Every router's last demand, and their sum by revision."""

    silent_seconds: float
    routers: dict[str, RouterDemand] = field(default_factory=dict)
    _totals: Counter[str] = field(default_factory=Counter)

    def join(self, router_id: str, connection: int, now: float) -> int | None:
        """A router connected; what it said on an earlier connection holds until it reports. Returns the connection this
        one replaces.
        """
        before = self.routers.get(router_id)
        requests = before.requests if before else {}
        self.routers[router_id] = RouterDemand(router_id, connection, now, requests)
        return before.connection if before else None

    def hear(self, router_id: str, connection: int, now: float) -> RouterDemand | None:
        """Any sign of life. Returns the router, or None for a connection that is no longer its own."""
        router = self.routers.get(router_id)
        if router is None or router.connection != connection:
            return None
        router.heard_at = now
        return router

    def report(self, router_id: str, connection: int, frame: Demand, now: float) -> set[str]:
        """Take a demand frame. Returns the revisions whose sum changed."""
        router = self.hear(router_id, connection, now)
        if router is None or frame.sequence <= router.sequence:
            return set()
        router.sequence = frame.sequence
        router.reported = True
        router.acknowledged = max(router.acknowledged, frame.table_sequence)
        if frame.partial:
            return self._adjust(router, frame.requests)
        return self._replace(router, {revision: count for revision, count in frame.requests.items() if count > 0})

    def leave(self, router_id: str, connection: int) -> bool:
        """Its connection is gone. One that had said it has no demand is forgotten, the rest holds until `expire`.

        False for a connection that was replaced before.
        """
        router = self.routers.get(router_id)
        if router is None or router.connection != connection:
            return False
        router.connection = None
        if router.reported and not router.requests:
            del self.routers[router_id]
        return True

    def forgive(self, seconds: float, now: float) -> None:
        """So long nobody could have been heard."""
        for router in self.routers.values():
            router.heard_at = min(now, router.heard_at + seconds)

    def expire(self, now: float) -> tuple[set[str], list[int]]:
        """Drop what routers silent for too long said. Returns the revisions changed, and the connections to hang up
        on.
        """
        changed: set[str] = set()
        hung_up: list[int] = []
        for router in [r for r in self.routers.values() if now - r.heard_at > self.silent_seconds]:
            changed |= self._replace(router, {})
            if router.connection is not None:
                hung_up.append(router.connection)
            del self.routers[router.router_id]
        return changed, hung_up

    def total(self, revision_id: str) -> int:
        return self._totals[revision_id]

    def wanted(self) -> Iterator[str]:
        """Revisions with demand."""
        return iter(self._totals)

    def connected(self) -> int:
        return sum(router.connection is not None for router in self.routers.values())

    def acknowledged(self) -> float:
        """The table sequence that every connected router has applied; `NOBODY` where none is connected."""
        return min(
            (router.acknowledged for router in self.routers.values() if router.connection is not None), default=NOBODY
        )

    def is_complete(self) -> bool:
        """Has every router reported its demand? (One that never does is dropped by `expire`.)"""
        return all(router.reported for router in self.routers.values())

    def _replace(self, router: RouterDemand, requests: dict[str, int]) -> set[str]:
        changed = {
            r for r in router.requests.keys() | requests.keys() if router.requests.get(r, 0) != requests.get(r, 0)
        }
        for revision_id in changed:
            self._add(revision_id, requests.get(revision_id, 0) - router.requests.get(revision_id, 0))
        router.requests = requests
        return changed

    def _adjust(self, router: RouterDemand, news: dict[str, int]) -> set[str]:
        """As many of these as it says now, of all others as many as before."""
        changed = {
            revision_id for revision_id, count in news.items() if router.requests.get(revision_id, 0) != max(count, 0)
        }
        for revision_id in changed:
            count = max(news[revision_id], 0)
            self._add(revision_id, count - router.requests.pop(revision_id, 0))
            if count:
                router.requests[revision_id] = count
        return changed

    def _add(self, revision_id: str, count: int) -> None:
        self._totals[revision_id] += count
        if not self._totals[revision_id]:
            del self._totals[revision_id]
