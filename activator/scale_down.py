"""Fewer replicas: which go first, and how long those that are busy may take. Steps 6 and 10. Part of the reconciler's
one task.

Nobody's answer is cut because fewer are wanted: empty ones go first, a busy one only when none has become empty for a
moment, and it ends when its answers have (at most its endpoint's `finish_seconds`). Only what an operator ends himself,
by a removal or a shutdown, and what must give way to others, has the installation's short `drain_seconds`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from activator.policy import lifecycle
from activator.policy.lifecycle import Replica

if TYPE_CHECKING:
    from activator.fleet import Fleet

log = structlog.get_logger()

EMPTY_SECONDS = 5.0  # how long a surplus of busy replicas waits for one of them to become empty


class Parting:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._busy_since: dict[str, float] = {}  # revisions with a surplus of busy replicas

    def shrink(self, revision_id: str, count: int, *, now: float, park: bool = False, patient: bool = False) -> None:
        """Have `count` fewer: first those that never served, then those with least to do, then the youngest.

        `park`: the last of them that serves is not ended but parked, unless one is, or the rung is bad on its node.
        `patient`: those that are busy stay until one has had `EMPTY_SECONDS` to become empty.
        """
        live = [replica for replica in self._fleet.of(revision_id) if replica.live]
        live.sort(key=lambda replica: (replica.state == "ready", replica.in_flight, -replica.started_at))
        gone = live[:count]
        if patient and not self._waited(revision_id, gone, now):
            gone = [replica for replica in gone if not _busy(replica)]
        rests = next((replica for replica in reversed(gone) if self._may_rest(replica, now)), None) if park else None
        for replica in gone:
            if replica.wanted_back:
                replica.wanted_back = False  # it goes on parking
            elif replica is rests:
                lifecycle.rest(replica)
            else:
                lifecycle.retire(replica)
            self._fleet.moved(replica)
            log.info(
                "replica not wanted",
                action="retire",
                replica_id=replica.replica_id,
                revision_id=revision_id,
                becomes=replica.state,
            )

    def enough(self, revision_id: str) -> None:
        """There is no surplus of it any more."""
        self._busy_since.pop(revision_id, None)

    def _waited(self, revision_id: str, gone: list[Replica], now: float) -> bool:
        if not any(map(_busy, gone)):
            return True
        if now - self._busy_since.setdefault(revision_id, now) < EMPTY_SECONDS:
            return False
        self.enough(revision_id)
        return True

    def _may_rest(self, replica: Replica, now: float) -> bool:
        others = self._fleet.of(replica.revision_id)
        alone = all(other is replica or other.state not in ("parking", "parked") for other in others)
        return (
            alone
            and replica.state == "ready"
            and self._fleet.rungs.good(replica.revision_id, replica.node_id, "parked", now)
        )

    def end_resting(self, revision_id: str, *, keep: int) -> None:
        """End those that are parked, or about to be, but for `keep`: the longest parked first."""
        resting = [r for r in self._fleet.of(revision_id) if r.state in ("parking", "parked") and not r.wanted_back]
        resting.sort(key=lambda r: (r.state == "parking", r.parked_at or 0.0))
        for replica in resting[: max(0, len(resting) - keep)]:
            lifecycle.retire(replica)
            self._fleet.moved(replica)
            log.info(
                "parked replica not wanted", action="retire", replica_id=replica.replica_id, revision_id=revision_id
            )

    def hurry(self, revision_id: str, now: float) -> None:
        """Its endpoint is removed, or all of this ends: those that drain have only the short time from now on."""
        for replica in self._fleet.of(revision_id):
            if replica.state == "draining" and replica.hurried_at is None:
                replica.hurried_at = now


def _busy(replica: Replica) -> bool:
    return replica.state == "ready" and replica.in_flight > 0
