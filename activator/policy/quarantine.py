"""The quarantine of rungs that gave a wrong answer: a revision does not use them on that node for a while. Step 6.
Pure: time is an argument.

    parked → standby, with baked copies → plain: a fresh standby, bytes verified anew, vLLM's own loader → failure

A replica whose canary differs from the record never serves. Whatever made it wrong may still be there: memory of the
parked process or its standby, the baked copy, the stamp of verified bytes. So the next one starts
from the next rung down, which trusts less, while the same callers stay held. Below the last nothing is left to trust.

A plain start that succeeds clears `standby`: it has made a new standby, removed the copies and verified the bytes.
`parked` is usable again after `BAD_SECONDS`. What must survive is this activator's end: marks are stored, and the next
one begins with them. Every start from `parked` passes the canary in any case.
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
