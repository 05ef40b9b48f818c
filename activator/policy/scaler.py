"""How many replicas of a revision should serve, and how many may stay parked: the autoscaler's decision. Step 6. Pure.

`decide` is all of the scaling policy: one function from `Facts` to a `Target`. The law: enough replicas that none has
more than its target concurrency of the requests held or in flight, at once. Fewer only when that has been too many for
a full `idle_timeout_seconds`, counted from the END of the demand that asked for more. What must survive is a signal
that is missing: while not every router has reported, nothing is taken away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from activator.catalogue import Revision

PARKED_SECONDS = math.inf  # how long after its last request a replica may stay parked


@dataclass(frozen=True, slots=True)
class Bounds:
    """The scaling bounds of a revision."""

    min_replicas: int
    max_replicas: int
    idle_timeout_seconds: float
    concurrency: int  # requests one replica is meant to have at once


def bounds_of(revision: Revision, routed: bool) -> Bounds:
    """Of a revision no route leads to: no least number, and no waiting for more."""
    return Bounds(
        min_replicas=revision.min_replicas if routed else 0,
        max_replicas=revision.max_replicas,
        idle_timeout_seconds=revision.idle_timeout_seconds if routed else 0.0,
        concurrency=revision.concurrency,
    )


@dataclass(frozen=True, slots=True)
class Peak:
    """So many replicas were wanted until then."""

    until: float  # monotonic seconds
    replicas: int


class Load(NamedTuple):
    """What is asked of a revision: requests held + in flight now, and the higher targets of the near past."""

    requests: int
    complete: bool  # every known router has reported, and the activator has been up long enough to know them
    peaks: tuple[Peak, ...] = ()  # latest last, each lower than the one before


class Facts(NamedTuple):
    """All that the decision on one revision rests on. (A tuple, for thousands are made in a tick.)"""

    bounds: Bounds
    load: Load
    live: int  # replicas that serve or start
    now: float  # monotonic seconds
    idle_since: float | None = None  # the end of its last request; None while there are any
    routed: bool = True  # a route leads to it
    coming: bool = False  # it is on its way to the route
    parks: bool = False  # its configuration rests on `parked`
    paused: bool = False
    removed: bool = False
    closing: bool = False  # the whole installation ends


class Target(NamedTuple):
    """What a revision should have: so many replicas that serve, at most so many parked, and why."""

    serving: int
    parked: int
    reason: str
    until: float = math.inf  # monotonic seconds from which on time alone may change it


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


def decide(facts: Facts) -> Target:
    """What the revision should have now.

    1. Nothing where it must not serve.
    2. Else as many that serve as its requests need (`_serving`), and one that stays parked where it rests there.
    """
    if refused := _refused(facts):  # 1
        return Target(0, 0, refused)
    serving, reason = _serving(facts)  # 2
    parked, until = _parked(facts)
    return Target(serving, parked, reason, until)


def _refused(facts: Facts) -> str:
    """Why it must not serve at all; "" where it may. What is to take the route over shows that it serves all the
    same.
    """
    if facts.closing:
        return "the installation is shutting down"
    if facts.removed:
        return "its endpoint is removed"
    if facts.paused and not facts.coming:
        return "its endpoint is paused"
    if not (facts.routed or facts.coming or facts.live):
        return "no route leads to it"
    return ""


def _serving(facts: Facts) -> tuple[int, str]:
    """Replicas wanted, given those that start or are ready, and why.

    1. What is asked now, within the bounds, is wanted at once.
    2. While a signal is missing, what runs stays.
    3. What was wanted until less than the idle timeout ago is kept, where it runs; it is not started for that.
    """
    bounds, load = facts.bounds, facts.load
    wanted = max(target(bounds, load.requests), bounds.min_replicas)
    if wanted >= facts.live:  # 1
        return wanted, _why(facts)
    if not load.complete:  # 2
        return min(facts.live, bounds.max_replicas), "routers may not have reported all requests yet"
    peaks = forget(load.peaks, bounds, facts.now)
    recent = max(peak.replicas for peak in peaks) if peaks else 0
    if recent > wanted:  # 3
        kept = min(recent, facts.live, bounds.max_replicas)
        return kept, f"requests within the last {bounds.idle_timeout_seconds:g} s needed {recent}"
    return min(wanted, bounds.max_replicas), _why(facts)


def _why(facts: Facts) -> str:
    bounds, requests = facts.bounds, facts.load.requests
    asked = -(-requests // bounds.concurrency)
    if asked > bounds.max_replicas:
        return f"{requests} requests need {asked}, and max_replicas is {bounds.max_replicas}"
    if bounds.min_replicas > asked:
        return (
            "it must be ready before it takes the route" if facts.coming else f"min_replicas is {bounds.min_replicas}"
        )
    if not requests:
        return "no requests"
    return f"{requests} request{'s' if requests > 1 else ''}, at most {bounds.concurrency} a replica"


def _parked(facts: Facts) -> tuple[int, float]:
    """How many may stay parked, and until when: one, for `PARKED_SECONDS` after the last request."""
    if not (facts.parks and facts.routed):
        return 0, math.inf
    until = math.inf if facts.idle_since is None else facts.idle_since + PARKED_SECONDS
    return (1, until) if facts.now < until else (0, math.inf)


def evictable(bounds: Bounds, load: Load, replicas: int) -> int:
    """How many of `replicas` may be taken before their idle timeout, to make room for another revision's.

    1. None while anybody asks for them, or may: a missing signal is demand.
    2. Else all but the least there must be.
    """
    if load.requests or not load.complete:  # 1
        return 0
    return max(0, replicas - bounds.min_replicas)  # 2
