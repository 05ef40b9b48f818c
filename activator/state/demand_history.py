"""The past demand of each revision that is not at rest: its last target, its peaks, and since when nobody asks. Step 6.
Pure: time is an argument.

What must survive is an activator's restart: what runs then counts as wanted until that moment, so it gets a full idle
timeout.
"""

from __future__ import annotations

from dataclasses import dataclass

from activator.policy import scaler
from activator.policy.scaler import Bounds, Peak


@dataclass(slots=True)
class PastDemand:
    """What one revision was asked for until now."""

    target: int = 0
    peaks: tuple[Peak, ...] = ()
    idle_since: float | None = None  # the end of the last request; None while there are any


class DemandHistory:
    """Past demand, by revision id."""

    def __init__(self) -> None:
        self._known: dict[str, PastDemand] = {}

    def remember(self, revision_id: str, bounds: Bounds, requests: int, live: int, now: float) -> PastDemand:
        """Take in what is asked now. Replicas inherited from another activator count as wanted until now."""
        past = self._known.get(revision_id)
        if past is None:
            past = self._known[revision_id] = PastDemand(target=live)
        target = scaler.target(bounds, requests)
        past.peaks = scaler.forget(scaler.remember(past.peaks, past.target, target, now), bounds, now)
        past.target = target
        if requests:
            past.idle_since = None
        elif past.idle_since is None:
            past.idle_since = now
        return past

    def forget(self, revision_id: str) -> None:
        self._known.pop(revision_id, None)

    def idle_since(self, revision_id: str, now: float) -> float:
        past = self._known.get(revision_id)
        return now if past is None or past.idle_since is None else past.idle_since
