"""How deep replicas are in requests of other routers, for each router that has a choice. Steps 5 and 10. Pure.

A router knows its own requests to the digit; of the rest it can only hear. What others have in a replica is what the
replica reports less what this router reported as its own. Both are a tenth of a second old, so it may be wrong for a
moment. Both are absolute and reported again, so it comes right when things stand still. It decides only an order: no
number from here ever makes a free slot vanish.

Changes go out on a tick, and only where they can matter: several replicas of a revision serve, and several routers are
connected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from activator.policy.lifecycle import Replica
from activator.wire import Depths

Of = Callable[[str], Iterable[Replica]]  # the replicas of a revision


class QueueDepths:
    """By connection: what each router reported as its own, and, by revision too, what was sent to it of others."""

    def __init__(self) -> None:
        self._own: dict[int, dict[str, int]] = {}
        self._sent: dict[int, dict[str, dict[str, int]]] = {}
        self._counted: dict[int, int] = {}  # by connection: how many routers there were when it was last told of others
        self._touched: set[str] = set()  # revisions

    def join(self, connection: int, revisions: Iterable[str]) -> None:
        """A router connected: it knows nothing. `revisions`: those that have replicas."""
        self._own[connection], self._sent[connection] = {}, {}
        self._touched.update(revisions)

    def leave(self, connection: int) -> None:
        self._own.pop(connection, None)
        self._sent.pop(connection, None)
        self._counted.pop(connection, None)
        if len(self._own) == 1:
            self._touched.update(*self._sent.values())  # the one that is left is alone now

    def reported(
        self, connection: int, own: dict[str, int], revision_of: Callable[[str], str | None], *, partial: bool = False
    ) -> None:
        """A router's own requests, by replica; `partial`: of all not named as many as before."""
        before = self._own.get(connection)
        if before is None:
            return
        named = own.keys() if partial else before.keys() | own.keys()
        changed = [replica_id for replica_id in named if before.get(replica_id, 0) != own.get(replica_id, 0)]
        for replica_id in changed:
            before.pop(replica_id, None)
            if count := own.get(replica_id, 0):
                before[replica_id] = count
        self._touched.update(revision for replica_id in changed if (revision := revision_of(replica_id)))

    def touch(self, revision_id: str) -> None:
        """A replica of it has another depth, or came or went."""
        self._touched.add(revision_id)

    def updates(self, of: Of) -> Iterator[tuple[int, Depths]]:
        """(connection, frame) for every router that has something to hear."""
        touched, self._touched = self._touched, set()
        news: dict[int, dict[str, int]] = defaultdict(dict)
        for revision_id in touched:
            serving = [replica for replica in of(revision_id) if replica.state == "ready"]
            for connection, own in self._own.items():
                before = self._sent[connection].pop(revision_id, {})
                now = _others(serving, own) if len(serving) > 1 and len(self._own) > 1 else {}
                if now:
                    self._sent[connection][revision_id] = now
                news[connection] |= {
                    r: now.get(r, 0) for r in before.keys() | now.keys() if before.get(r) != now.get(r)
                }
        routers = len(self._own)
        for connection, sent in self._sent.items():
            # or: what it was told weighs less, or more
            if news[connection] or (sent and self._counted.get(connection) != routers):
                self._counted[connection] = routers
                yield connection, Depths(others=news[connection], routers=routers)


def _others(serving: list[Replica], own: dict[str, int]) -> dict[str, int]:
    """Requests of others by replica, where there are any."""
    found = {replica.replica_id: replica.in_flight - own.get(replica.replica_id, 0) for replica in serving}
    return {replica_id: count for replica_id, count in found.items() if count > 0}
