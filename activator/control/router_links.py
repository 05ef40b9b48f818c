"""The routers that are connected: how they join, report demand, fall silent and leave. Steps 5, 6 and 10. Part of the
reconciler's one task.

    ─joined─→ connected, unreported ─demand─→ connected, reported
                    │ left, silent                │ left, silent
                    └──────────────┬──────────────┘
                                   ↓
           gone: its last numbers hold ─expire, after `silent_router_seconds`─→ forgotten

A router that had said it has no demand is forgotten at once. What must survive is silence: it is never zero demand, so
only a router's own word, or that much time, makes its numbers less.
"""

from __future__ import annotations

import structlog

from activator.control.publishing import Publisher
from activator.effects import Effects
from activator.events import DemandHeard, RouterHeard, RouterJoined, RouterLeft
from activator.state.cluster import ClusterState
from activator.state.queue_depths import QueueDepths

log = structlog.get_logger()


class RouterLinks:
    """Takes in what routers say, and tells them of each other's requests."""

    def __init__(self, state: ClusterState, *, effects: Effects, publisher: Publisher) -> None:
        self._state = state
        self._effects = effects
        self._publisher = publisher
        self._depths = QueueDepths()

    def joined(self, event: RouterJoined, now: float) -> None:
        replaced = self._state.demand.join(event.router_id, event.connection, now)
        if replaced is not None:
            self._publisher.leave(replaced)
            self._effects.hang_up(replaced)
        self._publisher.publish(now)  # to the others, before this one gets everything
        self._publisher.join(event.connection, takes_parts=event.takes_parts, now=now)
        self._depths.join(event.connection, {replica.revision_id for replica in self._state.replicas.by_id.values()})

    def demand(self, event: DemandHeard, now: float) -> set[str]:
        """Returns the revisions whose demand has changed."""
        frame = event.frame
        revision_of = self._state.replicas.revision_of
        self._depths.reported(event.connection, frame.in_flight, revision_of, partial=frame.partial)
        return self._state.demand.report(event.router_id, event.connection, frame, now)

    def heard(self, event: RouterHeard, now: float) -> None:
        self._state.demand.hear(event.router_id, event.connection, now)

    def left(self, event: RouterLeft) -> None:
        self._publisher.leave(event.connection)
        self._depths.leave(event.connection)
        self._state.demand.leave(event.router_id, event.connection)

    def expire(self, now: float) -> set[str]:
        """Hang up on routers that are silent. Returns the revisions whose demand has changed."""
        changed, silent = self._state.demand.expire(now)
        for connection in silent:
            log.warning("a router has gone silent; hanging up", action="router_silent", connection=connection)
            self._publisher.leave(connection)
            self._effects.hang_up(connection)
        return changed

    def touch(self, revision_id: str) -> None:
        """A replica of it has another depth."""
        self._depths.touch(revision_id)

    def send_depths(self) -> None:
        """To each router, what others have in the replicas it may choose from."""
        for connection, depths in self._depths.updates(self._state.replicas.of):
            self._effects.send(connection, depths)
