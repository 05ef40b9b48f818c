"""How many replicas a revision should have, now. Step 6. Pure: no I/O, no clock.

The law: enough replicas that none has more than its target concurrency of the requests held or in flight, at once;
fewer only when that has been too many for a whole `idle_timeout_seconds`, counted from the END of the demand that asked
for more. What must survive is a signal that is missing: while not every router has reported, nothing is taken away.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """The scaling bounds of a revision."""

    min_replicas: int
    max_replicas: int
    idle_timeout_seconds: float
    concurrency: int  # requests one replica is meant to have at once


@dataclass(frozen=True, slots=True)
class Peak:
    """So many replicas were wanted until then."""

    until: float  # monotonic seconds
    replicas: int


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a revision: requests held + in flight now, and the higher targets of the near past."""

    requests: int
    whole: bool  # every known router has reported, and the activator has been up long enough to know them
    peaks: tuple[Peak, ...] = ()  # latest last, each lower than the one before


def target(bounds: Bounds, requests: int) -> int:
    """ceil(requests / concurrency), at most the most allowed."""
    return min(-(-requests // bounds.concurrency), bounds.max_replicas)


def remember(peaks: tuple[Peak, ...], before: int, after: int, now: float) -> tuple[Peak, ...]:
    """The target went from `before` to `after`: keep a higher one with the moment it ended, and drop what it
    outlives.
    """
    if before <= after:
        return peaks
    return (*(peak for peak in peaks if peak.replicas > before), Peak(now, before))


def forget(peaks: tuple[Peak, ...], bounds: Bounds, now: float) -> tuple[Peak, ...]:
    """Drop the peaks that ended too long ago to count."""
    return tuple(peak for peak in peaks if now - peak.until < bounds.idle_timeout_seconds) if peaks else peaks


def decide(bounds: Bounds, load: Load, replicas: int, now: float) -> int:
    """Replicas wanted, given `replicas` starting or ready.

    1. What is asked now, within the bounds, is wanted at once.
    2. While a signal is missing, what runs stays.
    3. What was wanted until less than the idle timeout ago is kept, where it runs; it is not started for that.
    """
    wanted = max(target(bounds, load.requests), bounds.min_replicas)
    if wanted >= replicas:  # 1
        return wanted
    if not load.whole:  # 2
        return min(replicas, bounds.max_replicas)
    recent = max((peak.replicas for peak in forget(load.peaks, bounds, now)), default=0)
    return min(max(wanted, recent), replicas, bounds.max_replicas)  # 3


def spare(bounds: Bounds, load: Load, replicas: int) -> int:
    """How many of `replicas` may be taken before their idle timeout, to make room for another revision's.

    1. None while anybody asks for them, or may: a missing signal is demand.
    2. Else all but the least there must be.
    """
    if load.requests or not load.whole:  # 1
        return 0
    return max(0, replicas - bounds.min_replicas)  # 2
