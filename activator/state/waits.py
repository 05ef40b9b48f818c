"""The revisions that would start and cannot yet: since when, and why. Steps 5 and 6. Pure: time is an argument.

"Does not fit now" is not a failure. Callers stay held, and read the reason here: in the comments of a held stream, in
the 503 at the deadline, in `ps`. The revision that waits longest is decided first, so that later ones do not take room
that comes free. What must survive is an activator that is killed. Ages are not stored, so its successor counts every
wait from its own beginning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, KeysView
from dataclasses import dataclass, field


@dataclass(slots=True)
class Wait:
    """A revision waits for room, or for a node."""

    since: float  # monotonic seconds of the call that found none
    reason: str = ""
    for_node: bool = False  # no node is connected that could run it; else it waits for room
    expects: str = ""  # who gives way for it, in words
    evicting: bool = False  # somebody has begun to give way
    recorded: bool = False  # an event says that it lasts

    def age(self, now: float) -> float:
        return max(0.0, now - self.since)


@dataclass(slots=True)
class Waits:
    """Every revision that waits, by its id."""

    _of: dict[str, Wait] = field(default_factory=dict)

    def begin(self, revision_id: str, asked_at: float) -> Wait:
        """It waits, from now on or still."""
        return self._of.setdefault(revision_id, Wait(asked_at))

    def end(self, revision_id: str) -> bool:
        """It waits no more. True where it did."""
        return self._of.pop(revision_id, None) is not None

    def of(self, revision_id: str) -> Wait | None:
        return self._of.get(revision_id)

    def reason(self, revision_id: str) -> str:
        """Why its callers are held; "" where it waits for nothing."""
        wait = self._of.get(revision_id)
        return wait.reason if wait else ""

    def is_for_node(self, revision_id: str) -> bool:
        """Does it wait for a node, and not for room?"""
        wait = self._of.get(revision_id)
        return wait is not None and wait.for_node

    def has_evicted(self, revision_id: str) -> bool:
        """Has anybody given way for the start that it waits for?"""
        wait = self._of.get(revision_id)
        return wait is not None and wait.evicting

    def any_before(self, revision_id: str) -> bool:
        """Does another wait that is to be decided before it?"""
        own = self._key(revision_id)
        return any(self._key(other) < own for other in self._of if other != revision_id)

    def in_order(self, revision_ids: Iterable[str]) -> list[str]:
        """Those that wait longest first, then all that do not wait."""
        return sorted(revision_ids, key=self._key)

    def all(self) -> KeysView[str]:
        return self._of.keys()

    def _key(self, revision_id: str) -> tuple[float, str]:
        wait = self._of.get(revision_id)
        return (wait.since if wait else math.inf), revision_id
