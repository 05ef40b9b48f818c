"""How far a slow start has got, for those who wait for it. Steps 6 and 10. Pure: time is an argument.

A start that is over within a second is published once, when it is ready. Each change of a row goes to every router, and
quick starts have better use for those milliseconds. Of longer ones the routers hear each phase as it begins, on a tick.
Only durations travel, for routers have clocks of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from activator.policy.lifecycle import Replica
from runtime.wire import PhaseName

SLOW_SECONDS = 1.0
PHASES: tuple[PhaseName, ...] = ("place", "fetch", "spawn", "load", "init", "canary")
PARKED_PHASES: tuple[PhaseName, ...] = ("place", "spawn", "init", "canary")


class StartProgress(NamedTuple):
    """The phase a start is in."""

    phase: PhaseName
    began: float  # seconds the start had lasted when the phase began
    fetched: float | None = None  # how much of a fetch is done, 0 to 1


WAITING = StartProgress("place", 0.0)  # for room, or for a node


def progress_of(replica: Replica) -> StartProgress:
    """The first phase that is not finished: a fetch may go on while what has come is loaded. Phases add up, so no clock
    is asked.
    """
    done = replica.place + replica.phases
    finished = {phase.name for phase in done}
    order = PARKED_PHASES if replica.rung == "parked" else PHASES
    phase = next((name for name in order if name not in finished), order[-1])
    fetched = round(replica.fetched, 2) if phase == "fetch" and replica.fetched is not None else None
    return StartProgress(phase, round(sum(phase.seconds for phase in done), 3), fetched)


@dataclass(slots=True)
class ProgressBook:
    """What the routers are to know of each revision whose start lasts."""

    shown: dict[str, StartProgress] = field(default_factory=dict)

    def of(self, revision_id: str) -> StartProgress | None:
        return self.shown.get(revision_id)

    def look(self, starting: Iterable[Replica], waiting: Iterable[str], now: float) -> set[str]:
        """Take stock; `waiting`: revisions that have no room yet. Returns the revisions of which there is news.

        Where several replicas of a revision start, the one that began first is told of: it will be ready first.
        """
        found: dict[str, tuple[float, StartProgress]] = {}
        for replica in starting:
            if now - replica.started_at < SLOW_SECONDS:
                continue
            before = found.get(replica.revision_id)
            if before is None or replica.started_at < before[0]:
                found[replica.revision_id] = (replica.started_at, progress_of(replica))
        steps = dict.fromkeys(waiting, WAITING) | {revision_id: step for revision_id, (_, step) in found.items()}
        changed = {
            revision_id
            for revision_id in steps.keys() | self.shown.keys()
            if steps.get(revision_id) != self.shown.get(revision_id)
        }
        self.shown = steps
        return changed
