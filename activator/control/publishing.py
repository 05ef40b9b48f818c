"""What the routers hear of the state: full tables for those that join, deltas for all. Step 10. Part of the
reconciler's one task.

A delta has complete endpoints, so nothing is lost with a link that breaks: its router begins anew with everything. What
must survive is a router that joins in the middle. The others hear what is new before it hears all, so that one sequence
means the same to everybody.
"""

from __future__ import annotations

from collections.abc import Mapping

from activator.catalogue import Endpoint
from activator.effects import Effects
from activator.state.cluster import ClusterState
from activator.state.endpoint_row import row_of
from activator.state.full_table import FullTable
from activator.state.progress import ProgressBook
from activator.state.table import TableBook
from activator.wire import EndpointRow
from pilotlight.frames import Frame


class Publisher:
    """The routers' table. `subscribers`: routers' links, and whether each takes a full table in parts."""

    def __init__(self, state: ClusterState, effects: Effects) -> None:
        self._state = state
        self._effects = effects
        self._progress = ProgressBook()
        self.table = TableBook(state.fence.epoch)
        self._full_table = FullTable(self.table, state.estimates, lambda endpoint, now: self.row(endpoint, now)[0])
        self.subscribers: dict[int, bool] = {}

    def row(self, endpoint: Endpoint, now: float) -> tuple[EndpointRow, bool]:
        """As the routers are to know it now, and whether it is at rest."""
        return row_of(endpoint, self._state, self._progress, now)

    def put(self, endpoint: Endpoint, now: float, *, altered: bool = False) -> None:
        """It may be otherwise now. `altered`: its route or limits are new."""
        if endpoint.removed:
            if altered:
                self.table.remove(endpoint.name)
            return
        row, at_rest = self.row(endpoint, now)
        self.table.put(row, at_rest=at_rest, altered=altered)

    def publish(self, now: float) -> None:
        """What has changed, to all. Revisions that were not decided in this event are on the next tick."""
        for revision_id in list(self._state.changed):
            self._state.changed.discard(revision_id)
            if found := self._state.catalogue.find(revision_id):
                self._state.awake.add(revision_id)
                self.put(found[0], now)
        delta = self.table.delta()
        if delta is not None:
            self.send_all(delta)
        self._state.replicas.published(self.table.sequence)

    def look_at_starts(self, now: float) -> None:
        """Mark the revisions whose start has got to another phase."""
        self._state.changed |= self._progress.look(self._state.replicas.starting(), self._state.waiting_unserved(), now)

    def join(self, connection: int, *, takes_parts: bool, now: float) -> None:
        """Everything to a router that is new; the others have heard by now what it hears."""
        self._send_everything({connection: takes_parts}, now)
        self.subscribers[connection] = takes_parts

    def leave(self, connection: int) -> None:
        self.subscribers.pop(connection, None)

    def begin(self, epoch: int, now: float) -> None:
        """A new epoch: everything to everybody."""
        self.table.begin(epoch)
        self._send_everything(self.subscribers, now)

    def send_all(self, frame: Frame) -> None:
        for connection in self.subscribers:
            self._effects.send(connection, frame)

    def _send_everything(self, connections: Mapping[int, bool], now: float) -> None:
        for connection, takes_parts in connections.items():
            if takes_parts:
                self._effects.send(connection, *self._full_table.parts(self._state.catalogue, now))
            else:
                endpoints = [endpoint for endpoint in self._state.catalogue if not endpoint.removed]
                rows = [self.row(endpoint, now)[0] for endpoint in endpoints]
                self._effects.send(connection, self.table.full(rows))
