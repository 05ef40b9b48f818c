"""Room for a start that fits nowhere now: which replicas are evicted for it, and what its callers hear meanwhile.
Step 6. Part of the reconciler's one task.

1. Replicas that nobody asks for are evicted at once, parked ones first.
2. Where that is not enough and it is the start's turn (`turns.py`), so are replicas that are asked for. Where their
   least stay is not over, their places are reserved for it.
3. Else the start waits. Its callers stay held in any case, and hear what for.

What must survive is a start that came later and asks first. While others wait it evicts nobody, and the room that
others are waiting for is promised to them.
"""

from __future__ import annotations

import structlog

from activator.control.eviction import EvictableReplicas
from activator.control.takeover import Takeovers
from activator.effects import Effects
from activator.policy import lifecycle, turns
from activator.policy.placement import Needs, NodeView, Place, Room, make_room
from activator.policy.scale_up_request import ScaleUpRequest
from activator.policy.scaler import bounds_of
from activator.policy.turns import Terms
from activator.state.cluster import ClusterState
from activator.state.waits import Wait
from activator.store.events import EventRecord

log = structlog.get_logger()

LONG_SECONDS = 60.0  # a wait of which operators should hear


class RoomMaker:
    """Evicts replicas for starts that wait, the oldest first. `in_order`: this decision is one of a round of all that
    wait, by age.
    """

    def __init__(
        self,
        state: ClusterState,
        *,
        effects: Effects,
        evictable: EvictableReplicas,
        takeovers: Takeovers,
        terms: Terms,
    ) -> None:
        self._state = state
        self._effects = effects
        self._evictable = evictable
        self._takeovers = takeovers
        self._terms = terms
        self.in_order = False

    def begin_round(self, revision_ids: set[str]) -> list[str]:
        """Those to decide now, in their order."""
        self.in_order = self._state.waits.all() <= revision_ids
        return self._state.waits.in_order(revision_ids)

    def make_room(self, request: ScaleUpRequest, nodes: list[NodeView], needs: Needs, *, but: str = "") -> Room | None:
        """Evict those that stand in the way, or reserve their places. None: nobody can give way, for now.

        `but` stays in any case. So does what the revision has itself that starts or serves: nobody gains by that.
        """
        wait = self._state.waits.begin(request.revision_id, request.asked_at)
        if not self.in_order and self._state.waits.any_before(request.revision_id):
            return None
        siblings = self._state.replicas.of(request.revision_id)
        own = {replica.replica_id for replica in siblings if replica.state in ("starting", "ready")} | {but}
        places = [place for place in self._places(request) if place.replica_id not in own]
        room = make_room(nodes, needs, (place for place in places if place.is_free(request.now)))  # 1
        promised = self._state.memory.promised
        if room is None and self._is_due(request, wait):
            reserved = {other.node_id for other in promised.values() if other.reserved}
            unreserved = (node for node in nodes if node.node_id not in reserved)
            room = turns.claim(unreserved, needs, places, request.now)  # 2
        if room is not None:
            promised[request.revision_id] = room
            _expect(wait, room, places)
            if not room.reserved:
                self._evict(room, request)
        return room

    def _places(self, request: ScaleUpRequest) -> list[Place]:
        """Those that may be evicted for it, whoever's turn it is."""
        places = self._evictable.places(request.now)
        if not self._takeovers.comes(request.endpoint, request.revision):
            return places
        return [place for place in places if self._takeovers.may_evict(request.endpoint, place)]

    def _is_due(self, request: ScaleUpRequest, wait: Wait) -> bool:
        """Has it waited long enough, with nothing or too little of it there?"""
        history = self._state.failures.of(request.revision_id)
        routed = request.endpoint.routes_to(request.revision_id)
        least = max(1, bounds_of(request.revision, routed).min_replicas)
        patience = self._terms.patience(history.failed_starts + history.deaths)
        return self._state.replicas.live(request.revision_id) < least and wait.age(request.now) >= patience

    def wait_for_node(self, request: ScaleUpRequest, reason: str) -> None:
        """No node is connected that could run it. Its callers stay held, and hear why."""
        self._wait(request, reason, for_node=True)

    def _wait(self, request: ScaleUpRequest, reason: str, *, for_node: bool) -> None:
        wait = self._state.waits.begin(request.revision_id, request.asked_at)
        wait.for_node = for_node
        if wait.reason != reason:
            wait.reason = reason
            self._state.changed.add(request.revision_id)
            log.info("a start waits", action="start_waits", revision_id=request.revision_id, reason=reason)
        live, age = self._state.replicas.live(request.revision_id), wait.age(request.now)
        if not wait.recorded and age >= LONG_SECONDS and not live:
            wait.recorded = True
            text = f"a start has waited for {age:.0f} s: {reason}"
            org_id, revision_id = request.revision.org_id, request.revision_id
            self._effects.save_event(EventRecord(org_id, revision_id, "", "", "no_room", text, request.now))

    def wait_for_room(self, request: ScaleUpRequest, reason: str, room: Room | None) -> None:
        """The same, for want of memory (3); `room`: what there will be."""
        if room is None:
            until = self._no_room(request)
        else:
            until = self._state.waits.begin(request.revision_id, request.asked_at).expects
        until = until or "the replicas that make room for it are ending"
        self._wait(request, f"{reason}; {until}", for_node=False)

    def _no_room(self, request: ScaleUpRequest) -> str:
        if self._state.replicas.live(request.revision_id):
            return "no replica there may be evicted for one more"
        if request.endpoint.next == request.revision_id:
            return (
                "the old revision stays until the new one can take over: add memory, or deploy with --at-once, which "
                "makes room first"
            )
        if not self._places(request):
            return "no replica there may be evicted: lower the min_replicas of others, or add memory"
        return f"its turn comes after {self._terms.turn:g} s, and after those that have waited longer"

    def end(self, revision_id: str) -> None:
        """It waits no more."""
        if self._state.waits.end(revision_id):
            self._state.changed.add(revision_id)

    def _evict(self, room: Room, request: ScaleUpRequest) -> None:
        wait = self._state.waits.begin(request.revision_id, request.asked_at)
        for replica_id in room.evicted:
            replica = self._state.replicas.by_id[replica_id]
            was = replica.state
            lifecycle.drain(replica)
            replica.hurried_at = request.now
            self._state.replicas.moved(replica)
            log.info(
                "replica evicted to make room",
                action="evict",
                replica_id=replica_id,
                state=was,
                revision_id=replica.revision_id,
                node_id=replica.node_id,
                bytes=replica.needs_bytes,
                for_revision_id=request.revision_id,
                needed_bytes=room.nbytes,
                waited_seconds=round(wait.age(request.now), 3),
            )


def _expect(wait: Wait, room: Room, places: list[Place]) -> None:
    """Note who gives way, for those that are held."""
    names = sorted({place.endpoint for place in places if place.replica_id in room.evicted})
    if names:
        how = "its turn is next, after the least stay of" if room.reserved else "room comes from"
        wait.expects = f"{how} {', '.join(names)}"
        wait.evicting = wait.evicting or not room.reserved
