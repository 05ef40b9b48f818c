"""What a revision learns from starts that fail and replicas that die. Step 6. Pure: time is an argument.

    no failures ──start_failed──→ pausing, callers hear the reason ──pause over──→ may start again
         ↑      ──died──────────→ replaced at once; pausing from the second death in a row
         │      ──impossible────→ pausing, until nodes change
         └──became_ready (failed starts) or quiet for long enough (deaths)

What must survive is a replica that cannot start. It must neither be tried in a tight circle nor hold its callers.
Failures back off, and until the pause is over the routers hear the reason. A death fails no caller: the first replica
that dies is replaced at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

MANY_FAILURES = 5  # starts that failed in a row, from which on callers are told of how many
IMPOSSIBLE_SECONDS = 30.0  # between two looks at a start that no node can ever take
LONGEST_REASON = 2000  # characters of an engine's reason that travel to routers and callers


def printable(reason: str) -> str:
    """An engine's words, as far as Postgres and a status line can take them."""
    return reason.replace("\0", "")[:LONGEST_REASON]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between starts that fail, in seconds: `first`, doubling, never more than `most`."""

    first: float
    most: float

    def pause(self, in_a_row: int) -> float:
        """After so many failures in a row (1 or more)."""
        return min(self.most, self.first * 2.0 ** min(in_a_row - 1, 60))


@dataclass(frozen=True, slots=True)
class FailureHistory:
    """What a revision has learned from starts that failed and replicas that died."""

    failed_starts: int = 0  # starts that failed, in a row
    deaths: int = 0  # replicas that died after they had been ready, none of them steady
    at: float = -math.inf  # of the last one
    retry_at: float = -math.inf  # no start before
    pause: float = 0.0  # retry_at - at
    reason: str = ""  # of a failed start; "" where callers are better held
    last: str = ""  # what the last failure or death said, until a start succeeds and lasts: for operators
    unplaceable: bool = False  # no node can ever take it, as they are: over as soon as nodes change

    def may_start(self, now: float) -> bool:
        return now >= self.retry_at

    def client_error(self, now: float) -> str:
        """Why what is held must fail; "" when it may wait."""
        if now >= self.retry_at or not self.reason:
            return ""
        often = self.failed_starts >= MANY_FAILURES and not self.unplaceable
        return f"{self.reason} ({self.failed_starts} starts in a row have failed)" if often else self.reason

    def is_over(self, now: float, backoff: Backoff) -> bool:
        """Has it been quiet for so long that the next failure begins a new row?"""
        return now - max(self.retry_at, self.at) > 10 * backoff.most


def start_failed(
    history: FailureHistory, reason: str, *, started_at: float, now: float, backoff: Backoff
) -> FailureHistory:
    """A start failed: pause, longer each time. Starts that were on their way together count once."""
    reason = printable(reason) or "the engine stopped and gave no reason; see the log of its endpoint"
    if started_at < history.at and history.reason:
        return replace(history, reason=reason, last=reason)
    failed_starts = history.failed_starts + 1
    pause = backoff.pause(failed_starts)
    return replace(
        history,
        failed_starts=failed_starts,
        at=now,
        retry_at=now + pause,
        pause=pause,
        reason=reason,
        last=reason,
        unplaceable=False,
    )


def impossible(history: FailureHistory, reason: str, now: float) -> FailureHistory:
    """No node can ever take it. Nothing was started, so no failure is counted; it is looked at again once nodes change,
    and now and then.
    """
    return replace(
        history,
        at=now,
        retry_at=now + IMPOSSIBLE_SECONDS,
        pause=IMPOSSIBLE_SECONDS,
        reason=reason,
        last=reason,
        unplaceable=True,
    )


def died(
    history: FailureHistory, *, started_at: float, lived: float, now: float, backoff: Backoff, reason: str = ""
) -> FailureHistory:
    """A ready replica died. Its callers stay held: the first is replaced at once, the next in a row after a pause.

    "In a row" ends with a replica that lived longer than the longest pause; those that die together count once.
    """
    if history.deaths and started_at < history.at:
        return history
    deaths = 1 if lived > backoff.most else history.deaths + 1
    pause = backoff.pause(deaths - 1) if deaths > 1 else 0.0
    return replace(
        history, deaths=deaths, at=now, retry_at=now + pause, pause=pause, reason="", last=reason, unplaceable=False
    )


def became_ready(history: FailureHistory) -> FailureHistory:
    """A start succeeded: the failed ones before it are forgotten, the deaths are not."""
    if not history.failed_starts:
        return history
    return replace(
        history,
        failed_starts=0,
        reason="",
        last="" if not history.deaths else history.last,
        retry_at=-math.inf,
        pause=0.0,
    )
