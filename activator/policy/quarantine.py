"""Rungs that gave a wrong answer: not stepped on again for a while, by this revision, on that node. Step 6. Pure.

    parked → standby, with baked copies → plain: a fresh standby, bytes verified anew, vLLM's own loader → failure

A replica that answers its canary otherwise than recorded never serves. Whatever made it wrong may still be there:
memory of the parked process or of the standby it was forked from, the baked copy, the stamp that says the bytes were
verified. It may be there still when this activator is not: marks are stored, and the next activator begins with them.
So the next one is started from the next rung down, which trusts less, while the same callers stay held; below the last
there is nothing left to trust. A plain start that succeeds has made a standby anew, which took the place of an old one,
the copies removed and the bytes verified, so that `standby` is good again; `parked` is after `BAD_SECONDS`. The canary
stands before every climb in any case.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

BAD_SECONDS = 3600.0

RungStep = Literal["parked", "standby", "plain"]
LADDER: tuple[RungStep, ...] = ("parked", "standby", "plain")


@dataclass(frozen=True, slots=True)
class QuarantinedRung:
    """Not stepped on until then, in monotonic seconds; None: good again."""

    revision_id: str
    node_id: str
    step: RungStep
    until: float | None


class Quarantine:
    """`stored`: the rungs that an earlier activator found bad."""

    def __init__(self, stored: Iterable[QuarantinedRung] = ()) -> None:
        self._bad: dict[
            tuple[str, str], dict[RungStep, float]
        ] = {}  # (revision, node) → rung → monotonic seconds of its end
        for mark in stored:
            if mark.until is not None:
                self._bad.setdefault((mark.revision_id, mark.node_id), {})[mark.step] = mark.until

    def add(self, revision_id: str, node_id: str, step: RungStep, now: float) -> RungStep | None:
        """It gave a wrong answer. Returns the next one down that is to be tried; None: there is none."""
        if step == LADDER[-1]:
            return None
        self._bad.setdefault((revision_id, node_id), {})[step] = now + BAD_SECONDS
        return next(
            lower for lower in LADDER[LADDER.index(step) + 1 :] if self.is_usable(revision_id, node_id, lower, now)
        )

    def clear(self, revision_id: str, node_id: str) -> QuarantinedRung | None:
        """A plain start has succeeded. Returns what is good again, if anything was bad."""
        if self._bad.get((revision_id, node_id), {}).pop("standby", None) is None:
            return None
        return QuarantinedRung(revision_id, node_id, "standby", None)

    def is_usable(self, revision_id: str, node_id: str, step: RungStep, now: float) -> bool:
        return now >= self._bad.get((revision_id, node_id), {}).get(step, now)

    def of(self, revision_id: str, now: float) -> list[tuple[str, RungStep]]:
        """(node, rung) of those that are not stepped on now."""
        return [
            (node, step)
            for (of, node), steps in self._bad.items()
            if of == revision_id
            for step, until in steps.items()
            if now < until
        ]

    def forget(self, revision_id: str) -> None:
        """It is served no more."""
        for key in [key for key in self._bad if key[0] == revision_id]:
            del self._bad[key]
