"""What the scaler remembers of each revision that is not at rest: its target, its past peaks, and since when nobody
asks. Step 6. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from activator.catalogue import Revision
from activator.policy import scaler
from activator.policy.scaler import Bounds, Peak


@dataclass(slots=True)
class Scale:
    target: int = 0
    peaks: tuple[Peak, ...] = ()
    idle_since: float | None = None  # the end of the last request; None while there are any


class Scales:
    def __init__(self) -> None:
        self._known: dict[str, Scale] = {}

    def remember(self, revision_id: str, bounds: Bounds, requests: int, live: int, now: float) -> Scale:
        """What runs and was not started here (a predecessor did) is taken as wanted until now: it has an idle timeout
        to prove it.
        """
        scale = self._known.get(revision_id)
        if scale is None:
            scale = self._known[revision_id] = Scale(target=live)
        target = scaler.target(bounds, requests)
        scale.peaks = scaler.forget(scaler.remember(scale.peaks, scale.target, target, now), bounds, now)
        scale.target = target
        if requests:
            scale.idle_since = None
        elif scale.idle_since is None:
            scale.idle_since = now
        return scale

    def forget(self, revision_id: str) -> None:
        self._known.pop(revision_id, None)

    def idle_since(self, revision_id: str, now: float) -> float:
        scale = self._known.get(revision_id)
        return now if scale is None or scale.idle_since is None else scale.idle_since


def bounds_of(revision: Revision, routed: bool) -> Bounds:
    """Of a revision no route leads to: no least number, and no waiting for more."""
    return Bounds(
        min_replicas=revision.min_replicas if routed else 0,
        max_replicas=revision.max_replicas,
        idle_timeout_seconds=revision.idle_timeout_seconds if routed else 0.0,
        concurrency=revision.concurrency,
    )
