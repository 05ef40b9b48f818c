"""The table of endpoints as the activator pushes it, applied to what this router knows. Step 10.

All of it comes first, in parts where it is long, so that no part holds up the loop. Then come deltas, fenced by (epoch,
sequence): what is older than the newest seen is refused, so an old leader changes nothing. The failure to survive is
the activator's absence: the last table stays in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from activator.wire import EndpointRow, Table
from pilotlight.frames import FrameError
from router.clock import Clock
from router.hold.hold import Hold
from router.hold.replicas import Endpoint, Replica, Revision


class Stale(FrameError):
    """A frame below the highest (epoch, sequence) seen, or a delta with nothing to apply it to: leave its sender."""


class RouteTable:
    """Endpoints by name. The only writer of rows is `apply`."""

    def __init__(self, *, clock: Clock, hold: Hold, gone: Callable[[str], None] = lambda _: None) -> None:
        """`gone` hears the name of every endpoint that is removed."""
        self._clock = clock
        self._hold = hold
        self._gone_from_here = gone
        self.endpoints: dict[str, Endpoint] = {}
        self.by_id: dict[str, Endpoint] = {}
        self.by_org: dict[str, dict[str, Endpoint]] = {}
        self.revisions: dict[str, Revision] = {}  # those gone from the table too, while they have demand
        self.at = (0, 0)
        self.complete = False  # a whole table has been applied
        self._named: set[str] | None = None  # by the parts of a whole table so far; None: none is on its way
        self._replicas: dict[str, Replica] = {}
        self._shared: set[Replica] = set()  # those that others have requests in, as heard last
        self._routers = 1  # as heard last
        self._retired: list[Revision] = []

    def apply(self, frame: Table) -> None:
        """Raises Stale; then nothing has changed."""
        at = (frame.epoch, frame.sequence)
        if at < self.at or not (frame.whole or self.complete or self._named is not None):
            raise Stale(
                f"table {at} is older than {self.at}" if at < self.at else "a delta came before any whole table"
            )
        anew = frame.whole and frame.epoch > self.at[0]
        gone = self._gone(frame)
        if self._named is None:
            self.at, self.complete = at, True
        touched = [revision for name in gone for revision in self._remove(name)]
        touched += [revision for row in frame.endpoints for revision in self._put(row, anew)]
        for revision in touched:
            self._hold.refresh(revision)
        self._forget()

    def _gone(self, frame: Table) -> Iterable[str]:
        """Endpoints there are no more. Of a whole table that is known when its last part is here."""
        if frame.whole:
            self._named = set()
        if self._named is None:
            return frame.removed
        self._named.update(row.name for row in frame.endpoints)
        if frame.more:
            return ()
        named, self._named = self._named, None
        return [name for name in self.endpoints if name not in named]

    @property
    def sequence(self) -> int:
        """Of the last frame that was applied: what the activator is told that we know."""
        return self.at[1]

    def requests(self) -> dict[str, int]:
        """Demand by revision id, of those that have any."""
        found: dict[str, int] = {}
        for revision in self._hold.busy:  # one that went and came back has what it left behind, too
            found[revision.revision_id] = found.get(revision.revision_id, 0) + revision.demand
        return found

    def of(self, revisions: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
        """The same and the next for some revisions only, zeros included."""
        requests = dict.fromkeys(revisions, 0)
        known = [self.revisions[revision_id] for revision_id in requests if revision_id in self.revisions]
        for revision in (*known, *(r for r in self._retired if self.revisions.get(r.revision_id) is not r)):
            if revision.revision_id in requests:
                requests[revision.revision_id] += revision.demand
        chosen = [revision for revision in known if len(revision.replicas) > 1]
        return requests, {
            replica_id: replica.in_flight for revision in chosen for replica_id, replica in revision.replicas.items()
        }

    def in_flight(self) -> dict[str, int]:
        """Our own requests by replica, where there is a choice of replicas."""
        return {
            replica_id: replica.in_flight
            for revision in self._hold.busy
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
        for replica_id, depth in depths.items():
            if replica := self._replicas.get(replica_id):
                replica.hear(depth, routers)
                self._shared.add(replica)
        self._shared = {replica for replica in self._shared if replica.heard}
        if changed:
            for replica in self._shared:
                replica.hear(replica.heard, routers)

    def others_unknown(self) -> None:
        """Nobody tells any more: what was told last must not decide for ever."""
        for replica in self._shared:
            replica.hear(0, self._routers)
        self._shared.clear()

    def _remove(self, name: str) -> list[Revision]:
        endpoint = self.endpoints.pop(name, None)
        if endpoint is None:
            return []
        endpoint.removed = True
        self._unlist(endpoint)
        self._gone_from_here(name)
        gone = list(endpoint.revisions.values())
        for revision in gone:
            self._retire(revision)
        return gone

    def _put(self, row: EndpointRow, anew: bool) -> list[Revision]:
        """Returns all revisions the row concerns, those it no longer has first."""
        endpoint = self.endpoints.get(row.name)
        if endpoint is None:
            endpoint = self.endpoints[row.name] = Endpoint(row)
        else:
            if (endpoint.row.endpoint_id, endpoint.row.org_id) != (row.endpoint_id, row.org_id):
                self._unlist(endpoint)
            endpoint.row = row
        self.by_id[row.endpoint_id] = self.by_org.setdefault(row.org_id, {})[row.name] = endpoint
        now = self._clock.time()
        kept = {revision.revision_id for revision in row.revisions}
        gone = [revision for revision in endpoint.revisions.values() if revision.revision_id not in kept]
        for revision in gone:
            self._retire(revision)
        for revision_row in row.revisions:
            revision = endpoint.revisions.get(revision_row.revision_id) or Revision(revision_row, endpoint)
            before = list(revision.replicas)
            revision.update(revision_row, now=now, anew=anew)
            self._follow(before, revision)
            endpoint.revisions[revision.revision_id] = self.revisions[revision.revision_id] = revision
        endpoint.reroute()
        return gone + list(endpoint.revisions.values())

    def _unlist(self, endpoint: Endpoint) -> None:
        row = endpoint.row
        if self.by_id.get(row.endpoint_id) is endpoint:
            del self.by_id[row.endpoint_id]
        of_org = self.by_org[row.org_id]
        of_org.pop(row.name, None)
        if not of_org:
            del self.by_org[row.org_id]

    def _follow(self, before: Iterable[str], revision: Revision) -> None:
        for replica_id in before:
            if gone := self._replicas.pop(replica_id, None):
                self._shared.discard(gone)
        for replica_id, replica in revision.replicas.items():
            self._replicas[replica_id] = replica
            if replica.heard:
                self._shared.add(replica)

    def _retire(self, revision: Revision) -> None:
        del revision.endpoint.revisions[revision.revision_id]
        for replica in revision.replicas.values():
            replica.close()
        before = list(revision.replicas)
        revision.replicas.clear()
        self._follow(before, revision)
        self._retired.append(revision)

    def _forget(self) -> None:
        """Drop the retired whose last request has ended: till then they are part of the demand."""
        for revision in self._retired:
            if not revision.demand and self.revisions.get(revision.revision_id) is revision:
                del self.revisions[revision.revision_id]
        self._retired = [revision for revision in self._retired if revision.demand]
