"""Step 10: the table of endpoints as the activator pushes it, applied to what this router knows.

Whole first, then deltas, fenced by (epoch, sequence): what is older than the newest seen is refused, so an old leader
changes nothing. The failure to survive is the activator's absence: the last table stays in use.
"""

from __future__ import annotations

from activator.wire import EndpointRow, Table
from router.balance import Endpoint, Revision
from router.hold import Clock, Hold


class Stale(Exception):
    """A frame below the highest (epoch, sequence) seen, or a delta with nothing to apply it to: leave its sender."""


class RouteTable:
    """Endpoints by name. The only writer of rows is `apply`."""

    def __init__(self, *, clock: Clock, hold: Hold) -> None:
        self._clock, self._hold = clock, hold
        self.endpoints: dict[str, Endpoint] = {}
        self.revisions: dict[str, Revision] = {}  # those gone from the table too, while they have demand
        self.at = (0, 0)
        self.whole = False
        self._routers = 1  # as heard last
        self._retired: list[Revision] = []

    def apply(self, frame: Table) -> None:
        """Raises Stale; then nothing has changed."""
        at = (frame.epoch, frame.sequence)
        if at < self.at or not (frame.whole or self.whole):
            raise Stale(f"table {at} is older than {self.at}" if at < self.at else "a delta came before any whole table")
        self.at, self.whole = at, True
        named = {row.name for row in frame.endpoints}
        gone = [name for name in self.endpoints if name not in named] if frame.whole else frame.removed
        touched = [revision for name in gone for revision in self._remove(name)]
        touched += [revision for row in frame.endpoints for revision in self._put(row)]
        for revision in touched:
            self._hold.refresh(revision)
        self._forget()

    def requests(self) -> dict[str, int]:
        """Demand by revision id, of those that have any."""
        return {revision_id: revision.demand for revision_id, revision in self.revisions.items() if revision.demand}

    def in_flight(self) -> dict[str, int]:
        """Our own requests by replica, where there is a choice of replicas."""
        return {
            replica_id: replica.in_flight
            for revision in self.revisions.values()
            if len(revision.replicas) > 1
            for replica_id, replica in revision.replicas.items()
            if replica.in_flight
        }

    def others(self, depths: dict[str, int], routers: int) -> None:
        """Requests of other routers by replica: of those named, news. `routers`: how many there are, with this one.

        A replica without a sibling is heard of, too: that others have left it is told once, and may be told after its
        sibling has gone.
        """
        changed, self._routers = routers != self._routers, routers
        for revision in self.revisions.values():
            for replica_id, replica in revision.replicas.items():
                if changed or replica_id in depths:
                    replica.hear(depths.get(replica_id, replica.heard), routers)

    def others_unknown(self) -> None:
        """Nobody tells any more: what was told last must not decide for ever."""
        for revision in self.revisions.values():
            for replica in revision.replicas.values():
                replica.hear(0, self._routers)

    def _remove(self, name: str) -> list[Revision]:
        endpoint = self.endpoints.pop(name, None)
        if endpoint is None:
            return []
        endpoint.removed = True
        gone = list(endpoint.revisions.values())
        for revision in gone:
            self._retire(revision)
        return gone

    def _put(self, row: EndpointRow) -> list[Revision]:
        """Returns all revisions the row concerns, those it no longer has first."""
        endpoint = self.endpoints.setdefault(row.name, Endpoint(row))
        endpoint.row = row
        now = self._clock.time()
        kept = {revision.revision_id for revision in row.revisions}
        gone = [revision for revision in endpoint.revisions.values() if revision.revision_id not in kept]
        for revision in gone:
            self._retire(revision)
        for revision_row in row.revisions:
            revision = endpoint.revisions.get(revision_row.revision_id) or Revision(revision_row, endpoint)
            revision.update(revision_row, now=now)
            endpoint.revisions[revision.revision_id] = self.revisions[revision.revision_id] = revision
        endpoint.reroute()
        return gone + list(endpoint.revisions.values())

    def _retire(self, revision: Revision) -> None:
        del revision.endpoint.revisions[revision.revision_id]
        for replica in revision.replicas.values():
            replica.close()
        revision.replicas.clear()
        self._retired.append(revision)

    def _forget(self) -> None:
        """Drop the retired whose last request has ended: till then they are part of the demand."""
        for revision in self._retired:
            if not revision.demand and self.revisions.get(revision.revision_id) is revision:
                del self.revisions[revision.revision_id]
        self._retired = [revision for revision in self._retired if revision.demand]
