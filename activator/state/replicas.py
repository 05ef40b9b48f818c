"""The register of replicas: which there are, by id, by revision, and by what time can change. Steps 6, 7 and 10.

It decides nothing. Whoever changes a replica says so with `moved`, which keeps the indexes and its row in Postgres with
it, and marks its revision in `changed`. What must survive is an activator that is killed: a node reports its replicas,
and the next activator fills its register from those reports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from activator.effects import Effects
from activator.policy.lifecycle import Replica
from activator.state.nodes import Nodes

MOVING = ("starting", "draining", "parking")


class Replicas:
    """Every replica there is. `changed`: revisions to which something has happened."""

    def __init__(self, *, nodes: Nodes, effects: Effects, changed: set[str]) -> None:
        self._nodes = nodes
        self._effects = effects
        self._changed = changed
        self.by_id: dict[str, Replica] = {}
        self._of: dict[str, dict[str, Replica]] = defaultdict(dict)
        self._live: dict[str, int] = {}
        self._moving: dict[str, Replica] = {}  # those that time can change

    def of(self, revision_id: str) -> Iterable[Replica]:
        return self._of[revision_id].values() if revision_id in self._of else ()

    def on(self, node_id: str) -> list[Replica]:
        return [replica for replica in self.by_id.values() if replica.node_id == node_id]

    def has(self, revision_id: str) -> bool:
        """Any replica at all, those that drain or are parked included."""
        return revision_id in self._of

    def has_ready(self, revision_id: str) -> bool:
        return any(replica.state == "ready" for replica in self.of(revision_id))

    def live(self, revision_id: str) -> int:
        """Those that serve, and those on their way there."""
        return self._live.get(revision_id, 0)

    @property
    def any_live(self) -> bool:
        return bool(self._live)

    def revision_of(self, replica_id: str) -> str | None:
        replica = self.by_id.get(replica_id)
        return replica.revision_id if replica else None

    def moving(self) -> list[Replica]:
        """Those that start, drain or park."""
        return list(self._moving.values())

    def starting(self) -> list[Replica]:
        return [replica for replica in self._moving.values() if replica.state == "starting"]

    def ending(self) -> list[Replica]:
        """Those whose memory is about to come free. One that finishes long answers is not."""
        draining = [replica for replica in self._moving.values() if replica.state == "draining"]
        return [replica for replica in draining if replica.hurried_at is not None or not replica.in_flight]

    def add(self, replica: Replica) -> None:
        """A replica that is new here: one that starts now, one its node reports, or one that Postgres had."""
        if replica.state in MOVING:
            self._moving[replica.replica_id] = replica
        self.by_id[replica.replica_id] = replica
        self._of[replica.revision_id][replica.replica_id] = replica
        self._count(replica.revision_id)
        self._nodes.commit(replica.node_id, replica.needs_bytes)

    def moved(self, replica: Replica) -> None:
        """Its state changed: keep the indexes and Postgres with it, and mark its revision."""
        self._count(replica.revision_id)
        if replica.state in MOVING:
            self._moving[replica.replica_id] = replica
        else:
            self._moving.pop(replica.replica_id, None)
        self._changed.add(replica.revision_id)
        self._effects.save_replica(replica)

    def remove(self, replica: Replica) -> None:
        """It has stopped."""
        self.by_id.pop(replica.replica_id, None)
        siblings = self._of[replica.revision_id]
        siblings.pop(replica.replica_id, None)
        if not siblings:
            del self._of[replica.revision_id]
        self._nodes.commit(replica.node_id, -replica.needs_bytes)

    def published(self, sequence: int) -> None:
        """The table of this sequence says who takes nothing more."""
        for replica in self._moving.values():
            if replica.state in ("draining", "parking") and replica.drain_after is None:
                replica.drain_after = sequence

    def _count(self, revision_id: str) -> None:
        live = sum(replica.live for replica in self.of(revision_id))
        if live:
            self._live[revision_id] = live
        else:
            self._live.pop(revision_id, None)
