"""Fewer replicas of a revision: which go first, and how long busy ones may take. Steps 6 and 10. Part of the
reconciler's one task.

Empty replicas go first. A busy one goes only when none has become empty for a moment, and it ends when its answers have
(at most its endpoint's `finish_seconds`). Only a removal, a shutdown and an eviction have the installation's short
`drain_seconds`. What must survive is every running answer: none is cut because fewer replicas are wanted.
"""

from __future__ import annotations

import structlog

from activator.policy import lifecycle
from activator.policy.lifecycle import Replica
from activator.policy.scaler import Target
from activator.state.cluster import ClusterState

log = structlog.get_logger()

EMPTY_SECONDS = 5.0  # how long a surplus of busy replicas waits for one of them to become empty


class ScaleDown:
    """Drains or parks what a revision has beyond its target."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._busy_since: dict[str, float] = {}  # revisions with a surplus of busy replicas

    def apply(self, revision_id: str, target: Target, *, now: float, patient: bool) -> None:
        """Let go of those that are not wanted.

        `patient`: those that are busy stay until one has had `EMPTY_SECONDS` to become empty.
        """
        surplus = self._state.replicas.live(revision_id) - target.serving
        if surplus > 0:
            self._shrink(revision_id, surplus, now=now, park=target.parked > 0 and not target.serving, patient=patient)
        else:
            self._busy_since.pop(revision_id, None)
        self._end_parked(revision_id, keep=target.parked)

    def hurry(self, revision_id: str, now: float) -> None:
        """Its endpoint is removed, or all of this ends: those that drain have only the short time from now on."""
        for replica in self._state.replicas.of(revision_id):
            if replica.state == "draining" and replica.hurried_at is None:
                replica.hurried_at = now

    def _shrink(self, revision_id: str, count: int, *, now: float, park: bool, patient: bool) -> None:
        """Have `count` fewer: first those that never served, then those with least to do, then the youngest.

        `park`: the last of them that serves is not drained but parked, unless one is, or the rung is in quarantine.
        """
        live = [replica for replica in self._state.replicas.of(revision_id) if replica.live]
        live.sort(key=lambda replica: (replica.state == "ready", replica.in_flight, -replica.started_at))
        surplus = live[:count]
        if patient and not self._waited(revision_id, surplus, now):
            surplus = [replica for replica in surplus if not _busy(replica)]
        parkable = (replica for replica in reversed(surplus) if self._may_park(replica, now))
        parks = next(parkable, None) if park else None
        for replica in surplus:
            if replica.wanted_back:
                replica.wanted_back = False  # it goes on parking
            elif replica is parks:
                lifecycle.park(replica)
            else:
                lifecycle.drain(replica)
            self._state.replicas.moved(replica)
            log.info(
                "replica not wanted",
                action="retire",
                replica_id=replica.replica_id,
                revision_id=revision_id,
                becomes=replica.state,
            )

    def _waited(self, revision_id: str, surplus: list[Replica], now: float) -> bool:
        if not any(map(_busy, surplus)):
            return True
        if now - self._busy_since.setdefault(revision_id, now) < EMPTY_SECONDS:
            return False
        self._busy_since.pop(revision_id, None)
        return True

    def _may_park(self, replica: Replica, now: float) -> bool:
        siblings = self._state.replicas.of(replica.revision_id)
        alone = all(other is replica or other.state not in ("parking", "parked") for other in siblings)
        usable = self._state.quarantine.is_usable(replica.revision_id, replica.node_id, "parked", now)
        return alone and replica.state == "ready" and usable

    def _end_parked(self, revision_id: str, *, keep: int) -> None:
        """End those that are parked, or about to be, but for `keep`: the longest parked first."""
        siblings = self._state.replicas.of(revision_id)
        parked = [r for r in siblings if r.state in ("parking", "parked") and not r.wanted_back]
        if len(parked) <= keep:
            return
        parked.sort(key=lambda r: (r.state == "parking", r.parked_at or 0.0))
        for replica in parked[: len(parked) - keep]:
            lifecycle.drain(replica)
            self._state.replicas.moved(replica)
            log.info(
                "parked replica not wanted", action="retire", replica_id=replica.replica_id, revision_id=revision_id
            )


def _busy(replica: Replica) -> bool:
    return replica.state == "ready" and replica.in_flight > 0
