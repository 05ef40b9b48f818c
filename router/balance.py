"""What this router knows of endpoints, revisions and replicas, and which replica gets the next request. Steps 5 and 11.

The activator's rows are the truth; on top of them lies what only we know: what we have in flight, and that a replica
has just refused us or could not be reached. The failure to survive is a row that is old: such marks are made at once,
and lifted by the next row or after a moment (`hold.py`), so a replica is neither hammered nor forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from activator.wire import EndpointRow, ReplicaRow, RevisionRow
from router.pool import Pool

if TYPE_CHECKING:
    from router.hold import Timer, Waiter


class Replica:
    """One replica as this router sees it. `seen_at`: when it first could be dispatched to, loop seconds."""

    __slots__ = ("dead", "draining", "full", "in_flight", "pool", "row", "seen_at")

    def __init__(self, row: ReplicaRow, *, pool: Pool, now: float) -> None:
        self.row, self.pool, self.seen_at = row, pool, now
        self.in_flight = 0
        self.draining = row.draining
        self.full = False  # its gate said so, though by our count it had room: other routers use it too
        self.dead = False  # could not be reached

    def update(self, row: ReplicaRow) -> None:
        self.row = row
        self.draining = self.draining or row.draining  # draining never ends but in the end
        self.dead = False

    @property
    def free(self) -> bool:
        return self.in_flight < self.row.slots and not (self.draining or self.full or self.dead)


class Revision:
    """A revision, what runs of it, and what waits for it. `waiting` is changed by `hold.py` alone."""

    __slots__ = ("endpoint", "granted", "replicas", "revision_id", "row", "waiting", "waking")

    def __init__(self, row: RevisionRow, endpoint: Endpoint) -> None:
        self.revision_id, self.row, self.endpoint = row.revision_id, row, endpoint
        self.replicas: dict[str, Replica] = {}
        self.waiting: OrderedDict[Waiter, Timer] = OrderedDict()
        self.granted = 0
        self.waking = False

    @property
    def demand(self) -> int:
        """Held + in flight, now."""
        return len(self.waiting) + self.granted

    @property
    def failed(self) -> bool:
        """No start can succeed for now, and nothing that runs could serve."""
        return bool(self.row.failure) and all(replica.draining for replica in self.replicas.values())

    @property
    def retry_after(self) -> float:
        return self.row.retry_after_seconds or self.row.expected_seconds

    def update(self, row: RevisionRow, *, now: float) -> None:
        self.row = row
        rows = {replica.replica_id: replica for replica in row.replicas}
        for replica_id in [known for known in self.replicas if known not in rows]:
            self.replicas.pop(replica_id).pool.close()
        for replica_id, replica_row in rows.items():
            known = self.replicas.get(replica_id)
            if known is not None and known.row.address == replica_row.address:
                known.update(replica_row)
                continue
            if known is not None:
                known.pool.close()
            self.replicas[replica_id] = Replica(replica_row, pool=Pool(replica_row.address), now=now)


class Endpoint:
    """A public name. `held` counts the waiters of all its revisions."""

    __slots__ = ("_route", "held", "removed", "revisions", "row")

    def __init__(self, row: EndpointRow) -> None:
        self.row = row
        self.revisions: dict[str, Revision] = {}
        self._route: list[tuple[Revision, int]] = []
        self.held = 0
        self.removed = False

    def reroute(self) -> None:
        """The row or its revisions are new."""
        self._route = [
            (self.revisions[revision], weight) for revision, weight in self.row.route if revision in self.revisions and weight > 0
        ]

    def routed(self, roll: float) -> Revision | None:
        """Where the route sends a request; `roll` in [0, 1). None while the route leads nowhere."""
        route = self._route
        if len(route) < 2:
            return route[0][0] if route else None
        mark = roll * sum(weight for _, weight in route)
        for revision, weight in route:
            mark -= weight
            if mark < 0:
                return revision
        return route[-1][0]


def pick(replicas: Iterable[Replica]) -> Replica | None:
    """The replica with a free slot that has the fewest of our requests."""
    best = None
    for replica in replicas:
        if replica.free and (best is None or replica.in_flight < best.in_flight):
            best = replica
    return best
