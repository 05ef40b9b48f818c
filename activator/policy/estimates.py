"""Estimates how long a cold start takes, from past ones: by revision and rung, then by rung and size. Step 6. Pure.

Callers read from it when to come back (`Retry-After`) and how long a start will still take. What must survive is a lack
of data, for there is always an answer. A revision that never started is judged by what other models took from the same
rung. An installation without any past has a rough prior. Both are a straight line over the snapshot's bytes;
measured starts only scale it.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtime.wire import Rung

PAST_STARTS = 5  # of a revision from one rung: their median counts
PAST_OF_A_RUNG = 100  # of all revisions
NEAREST = 9  # of those: the nearest in size, by whose median the prior is scaled
SIZE_UNKNOWN = 1 << 30  # bytes

# Before anything was measured: seconds, and bytes a second. A standby still has to be made ready for `staged`, and for
# `stored` the bytes come from afar.
PRIOR: Mapping[Rung, tuple[float, float]] = {
    "parked": (0.1, 50e9),
    "standby": (0.5, 2e9),
    "staged": (15.0, 2e9),
    "stored": (1.0, 0.1e9),
}


@dataclass(frozen=True, slots=True)
class PastStart:
    """A cold start that succeeded."""

    revision_id: str
    rung: Rung
    nbytes: int  # of the snapshot; 0: not known
    seconds: float


class StartEstimates:
    """`past`: oldest first."""

    def __init__(self, past: Iterable[PastStart] = ()) -> None:
        self._of: dict[tuple[str, Rung], deque[float]] = {}
        self._from: dict[Rung, deque[tuple[int, float]]] = {}  # (bytes, seconds)
        self._last: dict[str, Rung] = {}
        self._relative: dict[
            tuple[Rung, int], float
        ] = {}  # what others say, by rung and size class, until one more is learned
        for start in past:
            self.learn(start)

    def learn(self, start: PastStart) -> None:
        self._of.setdefault((start.revision_id, start.rung), deque(maxlen=PAST_STARTS)).append(start.seconds)
        self._from.setdefault(start.rung, deque(maxlen=PAST_OF_A_RUNG)).append((start.nbytes, start.seconds))
        self._last[start.revision_id] = start.rung
        self._relative.clear()

    def forget(self, revision_id: str) -> None:
        """It is started no more; what others learn from its past starts stays."""
        self._last.pop(revision_id, None)
        for rung in PRIOR:
            self._of.pop((revision_id, rung), None)

    def rung(self, revision_id: str) -> Rung:
        """Where its next start will begin, as far as anything is known: where its last one did."""
        return self._last.get(revision_id, "standby")

    def seconds(self, revision_id: str, rung: Rung, nbytes: int) -> float:
        """Never 0.

        1. Its own past starts from there: their median.
        2. Else the prior, scaled by the median of what others of about its size took of theirs.
        """
        if own := self._of.get((revision_id, rung)):  # 1
            return round(max(0.001, statistics.median(own)), 3)
        return round(max(0.001, self._scale(rung, _size(nbytes).bit_length()) * prior(rung, nbytes)), 3)  # 2

    def _scale(self, rung: Rung, size_class: int) -> float:
        """By how much others took longer than the prior; 1 where there are none. A full table asks it for every
        endpoint.
        """
        known = self._relative.get((rung, size_class))
        if known is None:
            others = sorted(
                self._from.get(rung, ()), key=lambda other: abs(math.log2(_size(other[0])) - (size_class - 0.5))
            )[:NEAREST]
            known = statistics.median(seconds / prior(rung, size) for size, seconds in others) if others else 1.0
            self._relative[rung, size_class] = known
        return known


def prior(rung: Rung, nbytes: int) -> float:
    """Seconds, before anything was measured."""
    base, rate = PRIOR[rung]
    return base + _size(nbytes) / rate


def _size(nbytes: int) -> int:
    return nbytes or SIZE_UNKNOWN
