"""More replicas of a revision: one comes up from `parked`, or one is started, or room is made for one. Steps 6 and 7.
Part of the reconciler's one task.

1. A parked replica of the revision comes up; so does one that is on its way to `parked`.
2. Else a node is chosen, and its agent gets the order to start one.
3. Where memory is short, `making_room.py` evicts others, and the start is tried again as each of them ends. Its callers
   stay held meanwhile, as they do where no node is connected.

What must not survive is a start that no node could ever take: its callers are refused, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from activator.catalogue import Revision
from activator.control.making_room import RoomMaker
from activator.control.node_commands import NodeCommands
from activator.policy import lifecycle
from activator.policy.lifecycle import Patience, Replica
from activator.policy.placement import GIB, Needs, NodeView, asked, choose
from activator.policy.scale_up_request import ScaleUpRequest
from activator.state.cluster import ClusterState
from runtime.wire import Phase

log = structlog.get_logger()


class ScaleUp:
    """Starts and un-parks replicas, one by one, until there are as many as are wanted or one has to wait."""

    def __init__(
        self,
        state: ClusterState,
        *,
        rooms: RoomMaker,
        commands: NodeCommands,
        patience: Patience,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._state = state
        self._rooms = rooms
        self._commands = commands
        self._patience = patience
        self._clock = clock
        self._new_id = new_id

    def start(self, request: ScaleUpRequest, count: int) -> None:
        """Have `count` more, unless a pause after failures is on."""
        self._state.memory.promised.pop(request.revision_id, None)
        may_start = self._state.failures.of(request.revision_id).may_start(request.now)
        while count and may_start and self._start_one(request):
            count -= 1
        if not count or not may_start:
            self._rooms.end(request.revision_id)

    def cancel_waiting(self, revision_id: str) -> None:
        """It waits for no room any more."""
        self._state.memory.promised.pop(revision_id, None)
        self._rooms.end(revision_id)

    def _start_one(self, request: ScaleUpRequest) -> bool:
        """False: not now."""
        for replica in self._state.replicas.of(request.revision_id):
            if replica.state == "parking" and not replica.wanted_back and replica.stop_sent is None:
                self._cancel_parking(replica, request)
                return True
            if replica.state == "parked" and self._state.nodes.reaches(replica.node_id):
                more = self._state.memory.on(replica.node_id, request.revision) - replica.needs_bytes
                views = [view for view in self._views() if view.node_id == replica.node_id]
                if all(more <= view.left for view in views):
                    self.unpark(replica, request.revision, request.asked_at, request.now)
                    return True
                needs = Needs(measured_bytes=more)
                room = self._rooms.make_room(request, views, needs, but=replica.replica_id)
                if room is not None:
                    self._rooms.wait_for_room(request, f"memory: {room.nbytes / GIB:.1f} GiB more needed", room)
                    return False
        return self._start_new(request)

    # 1

    def _cancel_parking(self, replica: Replica, request: ScaleUpRequest) -> None:
        if replica.park_sent is not None:
            self.unpark(replica, request.revision, request.asked_at, request.now)
        else:  # not all its routers have heard that it takes nothing more: it may not serve before they have
            replica.wanted_back = True
            self._state.replicas.moved(replica)

    def unpark(self, replica: Replica, revision: Revision, asked_at: float, now: float) -> None:
        """Its agent brings it up, now. There is room for it."""
        lifecycle.unpark(replica, now)
        replica.evicted_others = self._state.waits.has_evicted(revision.revision_id)
        needs = max(replica.needs_bytes, self._state.memory.on(replica.node_id, revision))
        self._state.memory.charge(replica, needs)
        self._commands.unpark(replica)
        self._placed(replica, asked_at)
        self._state.replicas.moved(replica)
        log.info(
            "replica un-parked",
            action="unpark",
            replica_id=replica.replica_id,
            revision_id=replica.revision_id,
            climb=replica.unparks,
        )

    # 2

    def _start_new(self, request: ScaleUpRequest) -> bool:
        revision = request.revision
        found = self._node_for(request)
        if found is None:
            return False
        node, needs = found
        plain = self._is_plain(revision, node, request.now)
        replica = Replica(
            replica_id=self._new_id(),
            revision_id=revision.revision_id,
            org_id=revision.org_id,
            node_id=node.node_id,
            started_at=request.now,
            rung="standby" if node.standbys_ready and not plain else "staged",
            plain=plain,
            evicted_others=self._state.waits.has_evicted(revision.revision_id),
            weight_bytes=revision.weight_bytes,
            needs_bytes=asked(node, needs),
        )
        self._commands.start(
            replica, revision, endpoint=request.endpoint.name, deadline_seconds=self._patience.start_deadline
        )
        self._placed(replica, request.asked_at)
        self._state.replicas.add(replica)
        self._state.replicas.moved(replica)
        log.info(
            "replica starting",
            action="start",
            replica_id=replica.replica_id,
            revision_id=replica.revision_id,
            node_id=replica.node_id,
            rung=replica.rung,
            plain=plain,
        )
        return True

    def _is_plain(self, revision: Revision, node: NodeView, now: float) -> bool:
        return not self._state.quarantine.is_usable(revision.revision_id, node.node_id, "standby", now)

    def _node_for(self, request: ScaleUpRequest) -> tuple[NodeView, Needs] | None:
        """Where it starts, and what it takes there. None: nowhere, for now.

        A plain start is forked by a standby of its own. That counts with it until it is weighed, wherever there could
        ever be room for both.
        """
        needs = self._state.memory.needs(request.revision)
        nodes = self._views()
        chosen = choose(nodes, needs)
        if isinstance(chosen, NodeView) and self._is_plain(request.revision, chosen, request.now):
            there = [node for node in nodes if node.node_id == chosen.node_id]
            both = replace(needs, beside=True)
            own = choose(there, both)
            if isinstance(own, NodeView) or own.short:
                chosen = own
                needs = both
                nodes = there
        if isinstance(chosen, NodeView):
            return chosen, needs
        if chosen.never:
            self._rooms.end(request.revision_id)
            self._state.failures.unplaceable(request.revision_id, chosen.reason, request.now)
        elif chosen.short:
            self._rooms.wait_for_room(request, chosen.reason, self._rooms.make_room(request, nodes, needs))
        else:
            self._rooms.wait_for_node(request, chosen.reason)
        return None

    def _placed(self, replica: Replica, asked_at: float) -> None:
        """The phase the activator adds; and what failed before no longer fails those who wait."""
        replica.place = (Phase(name="place", at=asked_at, seconds=max(0.0, self._clock() - asked_at)),)
        self._state.failures.start_placed(replica.revision_id)

    def _views(self) -> list[NodeView]:
        return self._state.memory.views(self._state.replicas.ending())
