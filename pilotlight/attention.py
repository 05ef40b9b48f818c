"""Seconds in which somebody was there to hear: what may be held against those who were silent.

Whoever waits for a word each second, and was itself stopped for an hour, or slept with its machine, has heard nothing
from anybody. One look is therefore worth `LONGEST_LOOK` at most, however long ago the last one was.
"""

from __future__ import annotations

LONGEST_LOOK = 2.0  # seconds; a look is due once a second


class Attention:
    """A clock that goes only while its owner looks at it. Time is an argument."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._looked_at: float | None = None

    def missed(self, now: float) -> float:
        """Look, and say how many seconds of the time since the last look nobody was there to hear."""
        before, counted = self._looked_at, self.seconds
        attentive = self.look(now) - counted
        return 0.0 if before is None else now - before - attentive

    def look(self, now: float) -> float:
        """The attentive seconds so far; `now` in monotonic seconds."""
        if self._looked_at is not None:
            self.seconds += min(LONGEST_LOOK, now - self._looked_at)
        self._looked_at = now
        return self.seconds
