"""What replicas need of their nodes' memory: estimated, then measured, and remembered by revision. Steps 6 and 7.

A parked replica is charged for what it holds while it is parked. Its size says nothing about a serving one, and a start
must find room for all that a serving one needs. What must survive is a start that waits for another's end. The room is
promised to it, so that nobody who comes later takes those bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping

from activator.catalogue import Revision
from activator.policy.lifecycle import Replica
from activator.policy.placement import Needs, NodeView, Room, needs_of
from activator.state.nodes import Nodes
from runtime.wire import NodeReport, ReplicaReport

Find = Callable[[str], Revision | None]
MOST_LIKE = 1000  # engines whose measure is kept for revisions to come


class Memory:
    """What each revision needs, and the room that is promised. `measured`: by an earlier activator."""

    def __init__(self, nodes: Nodes, measured: Mapping[str, int]) -> None:
        self._nodes = nodes
        self.measured = dict(measured)  # what the last serving replica of a revision needed, in bytes
        self._like: dict[Hashable, int] = {}  # the same, for other revisions that run just so
        self.promised: dict[str, Room] = {}  # revisions whose next start waits for room

    def needs(self, revision: Revision) -> Needs:
        """Of a replica of this revision that serves."""
        measured = self.measured.get(revision.revision_id) or self._like.get(revision.engine, 0)
        return needs_of(revision.engine_args, measured_bytes=measured, weight_bytes=revision.weight_bytes)

    def on(self, node_id: str, revision: Revision) -> int:
        """The same, in bytes of this node's memory."""
        return self.needs(revision).on(self._nodes.known[node_id].environment.device)

    def weigh(self, replica: Replica, report: ReplicaReport, revision: Revision | None) -> None:
        """What was measured takes the place of what was estimated. A report of an earlier start is old."""
        if not report.memory_bytes or report.climb < replica.unparks:
            return
        self.charge(replica, report.memory_bytes)
        if report.state in ("ready", "draining", "parking"):
            self.measured[replica.revision_id] = replica.memory_bytes
            if revision:
                self._remember(revision, replica.memory_bytes)

    def _remember(self, revision: Revision, nbytes: int) -> None:
        """For others that run just so; the engine that was measured longest ago gives way."""
        self._like.pop(revision.engine, None)
        self._like[revision.engine] = nbytes
        if len(self._like) > MOST_LIKE:
            del self._like[next(iter(self._like))]

    def forget(self, revision_id: str) -> None:
        """Nothing of it will run; what it was measured to need goes on counting for others that run just so."""
        self.measured.pop(revision_id, None)

    def charge(self, replica: Replica, nbytes: int) -> None:
        """It needs so much from now on."""
        self._nodes.commit(replica.node_id, nbytes - replica.needs_bytes)
        replica.needs_bytes = nbytes

    def count(self, report: NodeReport, replicas: Iterable[Replica], find: Find) -> None:
        """What a node's replicas need, those included that were known before it was: they came from Postgres, without a
        figure.
        """
        here = [replica for replica in replicas if replica.node_id == report.node_id]
        for replica in here:
            if not replica.needs_bytes and (revision := find(replica.revision_id)):
                replica.needs_bytes = self.needs(revision).on(report.environment.device)
        self._nodes.known[report.node_id].replica_bytes = sum(replica.needs_bytes for replica in here)

    def views(self, ending: Iterable[Replica]) -> list[NodeView]:
        """The nodes as placement sees them, while these replicas are about to go."""
        draining = _sums((replica.node_id, replica.needs_bytes) for replica in ending)
        return self._nodes.views(
            draining=draining, promised=_sums((room.node_id, room.nbytes) for room in self.promised.values())
        )


def _sums(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for key, number in pairs:
        sums[key] += number
    return sums
