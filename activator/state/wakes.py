"""Revisions that are to start though nobody calls: by `pilotlight wake`, or to prove a name's first revision. Step 6.
Pure: time is an argument.

Each counts as one request more, until a replica of it is ready or its start has failed. It does not wait longer than a
caller would. So a wake has no rules of its own: it starts, waits for room and goes back to rest as for any call. What
must survive is a start that never succeeds: nobody's wish keeps it going.
"""

from __future__ import annotations

from activator.policy.failures import FailureHistory


class Wakes:
    """Wishes that are not over, by revision id."""

    def __init__(self) -> None:
        self._wishes: dict[str, tuple[float, float]] = {}  # revision id → since, until: monotonic seconds

    def ask(self, revision_id: str, now: float, patience: float) -> None:
        """`patience` in seconds. Asked again, it begins anew."""
        self._wishes[revision_id] = now, now + patience

    def requests(self, revision_id: str, *, ready: bool, failures: FailureHistory, now: float) -> int:
        """How many requests more the wish counts as: 1, or 0 once it is over.

        1. It has what it wished for, or waited too long.
        2. A start has failed since, or none is possible.
        """
        wish = self._wishes.get(revision_id)
        if wish is None:
            return 0
        since, until = wish
        failed = failures.at >= since and (failures.failed_starts > 0 or failures.unplaceable)
        if ready or now >= until or failed:
            del self._wishes[revision_id]
            return 0
        return 1

    def waits(self, revision_id: str) -> bool:
        return revision_id in self._wishes
