"""What the routers are told, and who they are: whole tables to those that join, what has changed to all. Step 10. Part
of the reconciler's one task.

A delta is a whole endpoint, so nothing is lost with a link that breaks: its router begins anew with everything. The
failure to survive is a router that joins in the middle: the others hear what is new before it hears all, so that one
sequence means the same to everybody.
"""

from __future__ import annotations

from collections.abc import Mapping

from activator.catalogue import Catalogue, Endpoint
from activator.effects import Effects
from activator.fleet import Fleet
from activator.policy.progress import Progress
from activator.state.endpoint_row import row_of
from activator.state.table import TableBook
from activator.state.table_parts import WholeTable
from activator.wire import EndpointRow
from pilotlight.frames import Frame


class Telling:
    """`subscribers`: routers' links, and whether each takes a whole table in parts."""

    def __init__(
        self, *, effects: Effects, table: TableBook, catalogue: Catalogue, fleet: Fleet, progress: Progress
    ) -> None:
        self._effects, self._table, self._catalogue, self._fleet, self._progress = (
            effects,
            table,
            catalogue,
            fleet,
            progress,
        )
        self.subscribers: dict[int, bool] = {}
        self._whole = WholeTable(table, fleet.expected, lambda endpoint, now: self.row(endpoint, now)[0])

    def row(self, endpoint: Endpoint, now: float) -> tuple[EndpointRow, bool]:
        """As the routers are to know it now, and whether it is at rest."""
        return row_of(endpoint, fleet=self._fleet, progress=self._progress, now=now)

    def put(self, endpoint: Endpoint, now: float, *, altered: bool = False) -> None:
        """It may be otherwise now. `altered`: its route or limits are new."""
        if endpoint.removed:
            if altered:
                self._table.remove(endpoint.name)
            return
        row, at_rest = self.row(endpoint, now)
        self._table.put(row, at_rest=at_rest, altered=altered)

    def publish(self) -> None:
        """What has changed, to all."""
        delta = self._table.delta()
        if delta is not None:
            self.everybody(delta)
        self._fleet.tabled(self._table.sequence)

    def join(self, connection: int, *, takes_parts: bool, now: float) -> None:
        """Everything to a router that is new; the others have heard by now what it hears."""
        self._send_whole({connection: takes_parts}, now)
        self.subscribers[connection] = takes_parts

    def leave(self, connection: int) -> None:
        self.subscribers.pop(connection, None)

    def begin(self, epoch: int, now: float) -> None:
        """A new epoch: everything to everybody."""
        self._table.begin(epoch)
        self._send_whole(self.subscribers, now)

    def everybody(self, frame: Frame) -> None:
        for connection in self.subscribers:
            self._effects.send(connection, frame)

    def _send_whole(self, connections: Mapping[int, bool], now: float) -> None:
        for connection, takes_parts in connections.items():
            if takes_parts:
                self._effects.send(connection, *self._whole.parts(self._catalogue, now))
            else:
                rows = [self.row(endpoint, now)[0] for endpoint in self._catalogue if not endpoint.removed]
                self._effects.send(connection, self._table.whole(rows))
