"""Judges whether a new revision takes the route over. Step 6. Pure: time is an argument.

    next ─judge: enough of it are ready──→ SERVES: it has the route, the old one drains
     └────judge: its first start fails──→ FAILED: the old one goes on, and nothing has changed
                  else ──→ WAIT, also while a start waits for room

What must survive is a configuration that does not work, however it fails: before the switch nothing of the old revision
is touched. The capacity must hold through the switch. As many replicas as the old one's callers ask for, or the least
there must be, are ready before a single caller is sent there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from activator.policy import scaler
from activator.policy.failures import FailureHistory
from activator.policy.scaler import Bounds

MANY_DEATHS = 3  # of replicas that were ready, before the switch: it does not stay up
AGAIN_SECONDS = 2.0  # until a verdict that was not stored is given again


class Verdict(Enum):
    """What became of a revision on its way to the route."""

    WAIT = "wait"
    SERVES = "serves"
    FAILED = "failed"


def least(bounds: Bounds, *, asked: int, old_runs: bool, same_engine: bool) -> int:
    """How many replicas of the next revision must be ready before it takes the route.

    `asked`: requests held or in flight at what serves now; `old_runs`: any replica of that is up or on its way.
    1. As many as those callers ask for, and the least it is to have.
    2. One in any case, so that it has shown that it can serve.
    3. But none, where nobody calls and its engine is the very one that would serve now: nothing can get worse.
    """
    wanted = max(scaler.target(bounds, asked), bounds.min_replicas)  # 1
    if not wanted and not old_runs and same_engine:  # 3
        return 0
    return max(1, wanted)  # 2


def judge(*, needed: int, ready: int, failures: FailureHistory) -> Verdict:
    """1. A start that failed, what no node can ever take, and what does not stay up ends it. 2. Enough that are ready
    let it serve.
    """
    if failures.failed_starts or failures.unplaceable or failures.deaths >= MANY_DEATHS:  # 1
        return Verdict.FAILED
    return Verdict.SERVES if ready >= needed else Verdict.WAIT  # 2


@dataclass(slots=True)
class Verdicts:
    """Those that were given and are not stored yet, by revision id."""

    _given: dict[str, tuple[Verdict, float]] = field(default_factory=dict)

    def of(self, revision_id: str) -> Verdict:
        given = self._given.get(revision_id)
        return given[0] if given else Verdict.WAIT

    def give(self, revision_id: str, verdict: Verdict, now: float) -> bool:
        """True where it is to be stored (again). The first stands: what failed once does not serve by itself later."""
        known = self._given.get(revision_id)
        if known and now - known[1] < AGAIN_SECONDS:
            return False
        self._given[revision_id] = (known[0] if known else verdict, now)
        return True

    def is_new(self, revision_id: str) -> bool:
        return revision_id not in self._given

    def forget(self, revision_id: str) -> None:
        self._given.pop(revision_id, None)
