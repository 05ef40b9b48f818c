"""More replicas: up from `parked`, or started anew, or room made for one. Steps 6 and 7. Part of the reconciler's one task.

1. A parked replica of the revision comes up; so does one that is on its way to `parked`.
2. Else a node is chosen and told to start one.
3. Where memory is short, those go that can be spared, parked ones first, and the start is tried again as each of them ends. Its
   callers stay held meanwhile, and so do those of a start for which nothing can be spared, or no node is there: they are told what
   they wait for. Only what no node could ever take is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import structlog

from activator import lifecycle
from activator.catalogue import Endpoint, Revision
from activator.lifecycle import Replica
from activator.memory import Memory
from activator.placement import GIB, Idle, Needs, NodeView, Refusal, Room, choose, make_room
from activator.rungs import Rungs
from activator.trouble import Trouble, impossible
from activator.waits import Waits
from runtime.wire import Phase, Start, Unpark

if TYPE_CHECKING:
    from activator.fleet import Fleet

log = structlog.get_logger()

Spare = Callable[[], Iterable[Idle]]  # the replicas that others may have the memory of, now


class Climbs:
    def __init__(self, fleet: Fleet, *, memory: Memory, rungs: Rungs, clock: Callable[[], float], new_id: Callable[[], str]) -> None:
        self._fleet, self._memory, self._rungs, self._clock, self._new_id = fleet, memory, rungs, clock, new_id
        self.waits = Waits()

    def grow(self, endpoint: Endpoint, revision: Revision, count: int, asked_at: float, now: float, spare: Spare) -> None:
        """Have `count` more, unless a pause after failures is on. `spare` is asked only where memory is short."""
        self._memory.promised.pop(revision.revision_id, None)
        waited = revision.revision_id in self.waits.all()
        trouble = self._fleet.troubles.get(revision.revision_id, Trouble())
        while count and trouble.may_start(now) and self._one_more(endpoint, revision, asked_at, now, spare):
            count -= 1
        if waited and (not count or not trouble.may_start(now)):
            self._ends_waiting(revision.revision_id)

    def enough(self, revision_id: str) -> None:
        """It waits for no room any more."""
        self._memory.promised.pop(revision_id, None)
        self._ends_waiting(revision_id)

    def _ends_waiting(self, revision_id: str) -> None:
        if self.waits.end(revision_id):
            self._fleet.changed.add(revision_id)

    def _wait(self, revision: Revision, reason: str, asked_at: float) -> None:
        """Its callers stay held, and hear why."""
        if self.waits.begin(revision.revision_id, reason, asked_at=asked_at):
            self._fleet.changed.add(revision.revision_id)
            log.info("a start waits", action="start_waits", revision_id=revision.revision_id, reason=reason)

    def _one_more(self, endpoint: Endpoint, revision: Revision, asked_at: float, now: float, spare: Spare) -> bool:
        """False: not now."""
        for replica in self._fleet.of(revision.revision_id):
            if replica.state == "parking" and not replica.wanted_back and replica.stop_sent is None:
                self._take_back(replica, revision, asked_at, now)
                return True
            if replica.state == "parked" and self._fleet.reaches(replica.node_id):
                room = self._room_for(replica, revision, spare)
                if room is True:
                    self.unpark(replica, revision, asked_at, now)
                    return True
                if room is not None:
                    self._wait(revision, f"memory: {room.nbytes / GIB:.1f} GiB more needed; {self._until(room)}", asked_at)
                    self._clear(room, revision)
                    return False
        return self._start(endpoint, revision, asked_at, now, spare)

    # 1

    def _take_back(self, replica: Replica, revision: Revision, asked_at: float, now: float) -> None:
        if replica.park_sent is not None:
            self.unpark(replica, revision, asked_at, now)
        else:  # its routers have not all heard yet that it takes nothing more
            replica.wanted_back = True
            self._fleet.moved(replica)

    def _room_for(self, replica: Replica, revision: Revision, spare: Spare) -> Room | Literal[True] | None:
        """On its node, for what it needs more when it serves: there is (True), or there will be, or there will not."""
        more = self._memory.on(replica.node_id, revision) - replica.needs_bytes
        views = [view for view in self._views() if view.node_id == replica.node_id]
        if all(more <= view.left for view in views):
            return True
        return make_room(views, Needs(measured_bytes=more), (idle for idle in spare() if idle.replica_id != replica.replica_id))

    def unpark(self, replica: Replica, revision: Revision, asked_at: float, now: float) -> None:
        lifecycle.climb(replica, now)
        self._memory.take(replica, max(replica.needs_bytes, self._memory.on(replica.node_id, revision)))
        self._fleet.order(
            replica.node_id, Unpark, replica_id=replica.replica_id, climb=replica.climb, deadline_seconds=lifecycle.UNPARK_SECONDS
        )
        self._placed(replica, asked_at)
        self._fleet.moved(replica)
        log.info("replica un-parked", action="unpark", replica_id=replica.replica_id, revision_id=replica.revision_id, climb=replica.climb)

    # 2

    def _start(self, endpoint: Endpoint, revision: Revision, asked_at: float, now: float, spare: Spare) -> bool:
        needs, nodes = self._memory.needs(revision), self._views()
        chosen = choose(nodes, needs)
        if isinstance(chosen, Refusal):
            if chosen.never:
                self._impossible(revision.revision_id, chosen.reason, now)
            else:
                room = make_room(nodes, needs, spare()) if chosen.short else None
                self._wait(revision, f"{chosen.reason}; {self._until(room)}" if chosen.short else chosen.reason, asked_at)
                if room:
                    self._clear(room, revision)
            return False
        plain = not self._rungs.good(revision.revision_id, chosen.node_id, "standby", now)
        replica = Replica(
            replica_id=self._new_id(),
            revision_id=revision.revision_id,
            org_id=revision.org_id,
            node_id=chosen.node_id,
            started_at=now,
            rung="standby" if chosen.standbys_ready and not plain else "staged",
            plain=plain,
            weight_bytes=revision.weight_bytes,
            needs_bytes=needs.on(chosen.environment.device),
        )
        self._fleet.order(
            replica.node_id,
            Start,
            replica_id=replica.replica_id,
            revision_id=revision.revision_id,
            endpoint=endpoint.name,
            digest=revision.digest,
            task=revision.task,
            engine_args=dict(revision.engine_args),
            slots=revision.slots,
            deadline_seconds=self._fleet.patience.start_deadline,
            parks=revision.zero == "parked",
            plain=plain,
        )
        self._placed(replica, asked_at)
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

    def _placed(self, replica: Replica, asked_at: float) -> None:
        """The phase the activator adds; and what failed before no longer fails those who wait."""
        replica.place = (Phase(name="place", at=asked_at, seconds=max(0.0, self._clock() - asked_at)),)
        if (trouble := self._fleet.troubles.get(replica.revision_id)) and trouble.reason:
            self._fleet.troubles[replica.revision_id] = replace(trouble, reason="")

    # 3

    def _views(self) -> list[NodeView]:
        return self._memory.views(self._fleet.ending())

    def _clear(self, room: Room, revision: Revision) -> None:
        """Let those go that stand in the way."""
        self._memory.promised[revision.revision_id] = room
        for replica_id in room.evicted:
            replica = self._fleet.replicas[replica_id]
            was = replica.state
            lifecycle.retire(replica)
            self._fleet.moved(replica)
            log.info(
                "replica evicted to make room",
                action="evict",
                replica_id=replica_id,
                state=was,
                revision_id=replica.revision_id,
                node_id=replica.node_id,
                bytes=replica.needs_bytes,
                for_revision_id=revision.revision_id,
                needed_bytes=room.nbytes,
            )

    def _impossible(self, revision_id: str, reason: str, now: float) -> None:
        """No node can ever take it: its callers are refused, with the reason."""
        self._ends_waiting(revision_id)
        self._fleet.troubles[revision_id] = impossible(self._fleet.troubles.get(revision_id, Trouble()), reason, now)
        self._fleet.changed.add(revision_id)
        log.warning("a start is impossible", action="start_impossible", revision_id=revision_id, reason=reason)

    def _until(self, room: Room | None) -> str:
        """What a start waits for, in words."""
        if room is None:
            return "nothing that runs there can be spared now"
        return "what makes room for it is ending"
