"""The failure history of every revision that has one: what `policy/failures.py` says of each event. Step 6.

What must survive is a revision that cannot start. It is known here until a start succeeds and lasts, so it is neither
tried in a tight circle nor forgotten between two tries.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from activator.policy import failures
from activator.policy.failures import Backoff, FailureHistory
from activator.policy.lifecycle import Replica

log = structlog.get_logger()

NO_FAILURES = FailureHistory()


class FailureBook:
    """Failure histories, by revision id. `changed`: revisions to which something has happened."""

    def __init__(self, backoff: Backoff, changed: set[str]) -> None:
        self._backoff = backoff
        self._changed = changed
        self.known: dict[str, FailureHistory] = {}

    def of(self, revision_id: str) -> FailureHistory:
        return self.known.get(revision_id, NO_FAILURES)

    def start_failed(self, revision_id: str, reason: str, *, started_at: float, now: float) -> None:
        after = failures.start_failed(
            self.of(revision_id), reason, started_at=started_at, now=now, backoff=self._backoff
        )
        self.known[revision_id] = after
        self._changed.add(revision_id)
        log.warning(
            "start failed",
            action="start_failed",
            revision_id=revision_id,
            reason=after.reason,
            retry_in=after.pause,
            failures=after.failed_starts,
        )

    def died(self, replica: Replica, now: float) -> None:
        """A replica of the revision died after it had been ready."""
        lived = now - (replica.ready_at if replica.ready_at is not None else now)
        self.known[replica.revision_id] = failures.died(
            self.of(replica.revision_id),
            started_at=replica.started_at,
            lived=lived,
            now=now,
            backoff=self._backoff,
            reason=replica.reason,
        )

    def became_ready(self, revision_id: str) -> None:
        if history := self.known.get(revision_id):
            self.known[revision_id] = failures.became_ready(history)

    def start_placed(self, revision_id: str) -> None:
        """A start is on its way: what failed before no longer fails those who wait."""
        history = self.of(revision_id)
        if history.reason:
            self.known[revision_id] = replace(history, reason="")

    def unplaceable(self, revision_id: str, reason: str, now: float) -> None:
        """No node can ever take it: its callers are refused, with the reason."""
        self.known[revision_id] = failures.impossible(self.of(revision_id), reason, now)
        self._changed.add(revision_id)
        log.warning("a start is impossible", action="start_impossible", revision_id=revision_id, reason=reason)

    def retry_unplaceable(self) -> None:
        """Nodes have changed: what no node could take is decided anew."""
        for revision_id, history in list(self.known.items()):
            if history.unplaceable:
                del self.known[revision_id]
                self._changed.add(revision_id)

    def forget(self, revision_id: str) -> None:
        self.known.pop(revision_id, None)

    def forget_if_over(self, revision_id: str, now: float) -> None:
        if self.of(revision_id).is_over(now, self._backoff):
            self.forget(revision_id)
