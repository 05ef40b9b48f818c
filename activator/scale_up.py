"""More replicas: up from `parked`, or started anew, or room made for one. Steps 6 and 7. Part of the reconciler's one
task.

1. A parked replica of the revision comes up; so does one that is on its way to `parked`.
2. Else a node is chosen and told to start one.
3. Where memory is short, `making_room.py` has others give way, and the start is tried again as each of them ends. Its
   callers stay held meanwhile, as they do where no node is there. Only what no node could ever take is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import structlog

from activator.catalogue import Revision
from activator.making_room import Ask, Clearing
from activator.policy import lifecycle
from activator.policy.failures import Trouble, impossible
from activator.policy.lifecycle import Replica
from activator.policy.placement import GIB, Needs, NodeView, Room, asked, choose
from activator.policy.quarantine import Rungs
from activator.state.memory import Memory
from runtime.wire import Phase, Start, Unpark

if TYPE_CHECKING:
    from activator.fleet import Fleet

log = structlog.get_logger()


class Climbs:
    def __init__(
        self,
        fleet: Fleet,
        *,
        memory: Memory,
        rungs: Rungs,
        clearing: Clearing,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._fleet, self._memory, self._rungs, self._clock, self._new_id = fleet, memory, rungs, clock, new_id
        self.clearing = clearing

    def grow(self, ask: Ask, count: int) -> None:
        """Have `count` more, unless a pause after failures is on."""
        self._memory.promised.pop(ask.revision_id, None)
        trouble = self._fleet.troubles.get(ask.revision_id, Trouble())
        while count and trouble.may_start(ask.now) and self._one_more(ask):
            count -= 1
        if not count or not trouble.may_start(ask.now):
            self.clearing.end(ask.revision_id)

    def enough(self, revision_id: str) -> None:
        """It waits for no room any more."""
        self._memory.promised.pop(revision_id, None)
        self.clearing.end(revision_id)

    def _one_more(self, ask: Ask) -> bool:
        """False: not now."""
        for replica in self._fleet.of(ask.revision_id):
            if replica.state == "parking" and not replica.wanted_back and replica.stop_sent is None:
                self._take_back(replica, ask)
                return True
            if replica.state == "parked" and self._fleet.reaches(replica.node_id):
                room = self._room_for(replica, ask)
                if room is True:
                    self.unpark(replica, ask.revision, ask.asked_at, ask.now)
                    return True
                if room is not None:
                    self.clearing.wait_for_room(ask, f"memory: {room.nbytes / GIB:.1f} GiB more needed", room)
                    return False
        return self._start(ask)

    # 1

    def _take_back(self, replica: Replica, ask: Ask) -> None:
        if replica.park_sent is not None:
            self.unpark(replica, ask.revision, ask.asked_at, ask.now)
        else:  # its routers have not all heard yet that it takes nothing more
            replica.wanted_back = True
            self._fleet.moved(replica)

    def _room_for(self, replica: Replica, ask: Ask) -> Room | Literal[True] | None:
        """On its node, for what it needs more when it serves: there is (True), or there will be, or there will not."""
        more = self._memory.on(replica.node_id, ask.revision) - replica.needs_bytes
        views = [view for view in self._views() if view.node_id == replica.node_id]
        if all(more <= view.left for view in views):
            return True
        return self.clearing.make_room(ask, views, Needs(measured_bytes=more), but=replica.replica_id)

    def unpark(self, replica: Replica, revision: Revision, asked_at: float, now: float) -> None:
        lifecycle.climb(replica, now)
        replica.took_place = self.clearing.took(revision.revision_id)
        self._memory.take(replica, max(replica.needs_bytes, self._memory.on(replica.node_id, revision)))
        self._fleet.order(
            replica.node_id,
            Unpark,
            replica_id=replica.replica_id,
            climb=replica.climb,
            deadline_seconds=lifecycle.UNPARK_SECONDS,
        )
        self._placed(replica, asked_at)
        self._fleet.moved(replica)
        log.info(
            "replica un-parked",
            action="unpark",
            replica_id=replica.replica_id,
            revision_id=replica.revision_id,
            climb=replica.climb,
        )

    # 2

    def _start(self, ask: Ask) -> bool:
        revision = ask.revision
        found = self._node_for(ask)
        if found is None:
            return False
        node, needs = found
        plain = self._is_plain(revision, node, ask.now)
        replica = Replica(
            replica_id=self._new_id(),
            revision_id=revision.revision_id,
            org_id=revision.org_id,
            node_id=node.node_id,
            started_at=ask.now,
            rung="standby" if node.standbys_ready and not plain else "staged",
            plain=plain,
            took_place=self.clearing.took(revision.revision_id),
            weight_bytes=revision.weight_bytes,
            needs_bytes=asked(node, needs),
        )
        self._fleet.order(
            replica.node_id,
            Start,
            replica_id=replica.replica_id,
            revision_id=revision.revision_id,
            endpoint=ask.endpoint.name,
            digest=revision.digest,
            task=revision.task,
            engine_args=dict(revision.engine_args),
            slots=revision.slots,
            deadline_seconds=self._fleet.patience.start_deadline,
            parks=revision.zero == "parked",
            plain=plain,
            allow=revision.allow,
            media_hosts=revision.media_hosts,
        )
        self._placed(replica, ask.asked_at)
        self._fleet.add(replica)
        self._fleet.moved(replica)
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
        return not self._rungs.good(revision.revision_id, node.node_id, "standby", now)

    def _node_for(self, ask: Ask) -> tuple[NodeView, Needs] | None:
        """Where it starts, and what it takes there. A plain one is forked by a standby of its own, which counts with it
        until it is weighed, wherever there could ever be room for both. None: nowhere, for now.
        """
        needs, nodes = self._memory.needs(ask.revision), self._views()
        chosen = choose(nodes, needs)
        if isinstance(chosen, NodeView) and self._is_plain(ask.revision, chosen, ask.now):
            there, both = [node for node in nodes if node.node_id == chosen.node_id], replace(needs, beside=True)
            own = choose(there, both)
            if isinstance(own, NodeView) or own.short:
                chosen, needs, nodes = own, both, there
        if isinstance(chosen, NodeView):
            return chosen, needs
        if chosen.never:
            self._impossible(ask.revision_id, chosen.reason, ask.now)
        elif chosen.short:
            self.clearing.wait_for_room(ask, chosen.reason, self.clearing.make_room(ask, nodes, needs))
        else:
            self.clearing.wait(ask, chosen.reason)
        return None

    def _placed(self, replica: Replica, asked_at: float) -> None:
        """The phase the activator adds; and what failed before no longer fails those who wait."""
        replica.place = (Phase(name="place", at=asked_at, seconds=max(0.0, self._clock() - asked_at)),)
        if (trouble := self._fleet.troubles.get(replica.revision_id)) and trouble.reason:
            self._fleet.troubles[replica.revision_id] = replace(trouble, reason="")

    # 3

    def _views(self) -> list[NodeView]:
        return self._memory.views(self._fleet.ending())

    def _impossible(self, revision_id: str, reason: str, now: float) -> None:
        """No node can ever take it: its callers are refused, with the reason."""
        self.clearing.end(revision_id)
        self._fleet.troubles[revision_id] = impossible(self._fleet.troubles.get(revision_id, Trouble()), reason, now)
        self._fleet.changed.add(revision_id)
        log.warning("a start is impossible", action="start_impossible", revision_id=revision_id, reason=reason)
