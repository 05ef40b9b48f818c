"""Room for a start that fits nowhere now: who gives way for it, and what its callers hear meanwhile. Step 6. Part of
the reconciler's one task.

1. Those that nobody asks for give way at once, parked ones first.
2. Where that is not enough and it is the start's turn (`turns.py`), those that are asked for do, or their places are
   reserved for it.
3. Else it waits. Its callers stay held in any case, and are told what for.

What must survive is a start that came later and asks first: while others wait it makes nobody give way before they were
asked, and what others gave way for is promised to them, so that it finds no room there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from activator.catalogue import Endpoint, Revision
from activator.effects import Effects
from activator.policy import lifecycle, turns
from activator.policy.demand_history import bounds_of
from activator.policy.failures import Trouble
from activator.policy.placement import Needs, NodeView, Place, Room, make_room
from activator.policy.turns import Terms
from activator.state.memory import Memory
from activator.state.waits import Wait, Waits
from activator.store.events import EventRecord

if TYPE_CHECKING:
    from activator.fleet import Fleet

log = structlog.get_logger()

LONG_SECONDS = 60.0  # a wait of which operators should hear

Places = Callable[[float], list[Place]]  # the replicas whose memory others could have, at this moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A revision wants more replicas."""

    endpoint: Endpoint
    revision: Revision
    asked_at: float  # when the news came that made it want them
    now: float
    places: Places

    @property
    def revision_id(self) -> str:
        return self.revision.revision_id


class Clearing:
    """`in_order`: this decision is one of a round of all that wait, by age."""

    def __init__(self, fleet: Fleet, *, memory: Memory, effects: Effects, terms: Terms) -> None:
        self._fleet, self._memory, self._effects, self._terms = fleet, memory, effects, terms
        self.waits = Waits()
        self.in_order = False

    def begin_round(self, revision_ids: set[str]) -> list[str]:
        """Those to decide now, in their order."""
        self.in_order = self.waits.all() <= revision_ids
        return self.waits.in_order(revision_ids)

    def make_room(self, ask: Ask, nodes: list[NodeView], needs: Needs, *, but: str = "") -> Room | None:
        """Let those go that stand in the way, or see to it that they will. None: nobody can, for now. `but` stays in
        any case, and so does what the revision has itself that starts or serves: nobody gains by that.
        """
        wait = self.waits.begin(ask.revision_id, ask.asked_at)
        if not self.in_order and self.waits.any_before(ask.revision_id):
            return None
        own = {
            replica.replica_id for replica in self._fleet.of(ask.revision_id) if replica.state in ("starting", "ready")
        } | {but}
        places = [place for place in ask.places(ask.now) if place.replica_id not in own]
        room = make_room(nodes, needs, (place for place in places if place.is_free(ask.now)))  # 1
        if room is None and self._is_due(ask, wait):
            reserved = {other.node_id for other in self._memory.promised.values() if other.reserved}
            room = turns.take((node for node in nodes if node.node_id not in reserved), needs, places, ask.now)  # 2
        if room is not None:
            self._memory.promised[ask.revision_id] = room
            self._expect(wait, room, places)
            if not room.reserved:
                self._clear(room, ask)
        return room

    def _is_due(self, ask: Ask, wait: Wait) -> bool:
        """Has it waited long enough, with nothing or too little of it there?"""
        trouble = self._fleet.troubles.get(ask.revision_id, Trouble())
        least = max(1, bounds_of(ask.revision, ask.endpoint.routes_to(ask.revision_id)).min_replicas)
        return self._fleet.live(ask.revision_id) < least and wait.age(ask.now) >= self._terms.patience(
            trouble.failures + trouble.deaths
        )

    def _expect(self, wait: Wait, room: Room, places: list[Place]) -> None:
        names = sorted({place.endpoint for place in places if place.replica_id in room.evicted})
        if names:
            how = "its turn is next, after the least stay of" if room.reserved else "room comes from"
            wait.expects, wait.took = f"{how} {', '.join(names)}", wait.took or not room.reserved

    def wait(self, ask: Ask, reason: str) -> None:  # 3
        """Its callers stay held, and hear why."""
        wait = self.waits.begin(ask.revision_id, ask.asked_at)
        if wait.reason != reason:
            wait.reason = reason
            self._fleet.changed.add(ask.revision_id)
            log.info("a start waits", action="start_waits", revision_id=ask.revision_id, reason=reason)
        if not wait.told and wait.age(ask.now) >= LONG_SECONDS and not self._fleet.live(ask.revision_id):
            wait.told = True
            text = f"waits for a start since {wait.age(ask.now):.0f} s: {reason}"
            self._effects.save_event(
                EventRecord(ask.revision.org_id, ask.revision_id, "", "", "no_room", text, ask.now)
            )

    def wait_for_room(self, ask: Ask, reason: str, room: Room | None) -> None:
        """The same, for want of memory; `room`: what there will be."""
        until = self._no_room(ask) if room is None else self.waits.begin(ask.revision_id, ask.asked_at).expects
        self.wait(ask, f"{reason}; {until or 'what makes room for it is ending'}")

    def _no_room(self, ask: Ask) -> str:
        if self._fleet.live(ask.revision_id):
            return "nothing that runs there can be spared for one more"
        if ask.endpoint.next == ask.revision_id:
            return "what serves its endpoint stays until it can take over: add memory, or deploy with --at-once, which makes room first"
        if not ask.places(ask.now):
            return "nothing that runs there may give way: lower the min_replicas of others, or add memory"
        return f"its turn comes after {self._terms.turn:g} s, and after those that have waited longer"

    def took(self, revision_id: str) -> bool:
        """Has anybody given way for the start that it waits for?"""
        wait = self.waits.of(revision_id)
        return wait is not None and wait.took

    def unserved(self) -> list[str]:
        """Those that wait with nothing there that serves, or is on its way to."""
        return [revision_id for revision_id in self.waits.all() if not self._fleet.live(revision_id)]

    def end(self, revision_id: str) -> None:
        """It waits no more."""
        if self.waits.end(revision_id):
            self._fleet.changed.add(revision_id)

    def _clear(self, room: Room, ask: Ask) -> None:
        for replica_id in room.evicted:
            replica = self._fleet.replicas[replica_id]
            was = replica.state
            lifecycle.retire(replica)
            replica.hurried_at = ask.now
            self._fleet.moved(replica)
            log.info(
                "replica evicted to make room",
                action="evict",
                replica_id=replica_id,
                state=was,
                revision_id=replica.revision_id,
                node_id=replica.node_id,
                bytes=replica.needs_bytes,
                for_revision_id=ask.revision_id,
                needed_bytes=room.nbytes,
                waited_seconds=round(self.waits.begin(ask.revision_id, ask.asked_at).age(ask.now), 3),
            )
