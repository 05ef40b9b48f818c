"""The scaler's law, as tables, and over any history of demand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.policy import scaler
from activator.policy.scaler import Bounds, Facts, Load, Peak, Target, decide, evictable, forget, remember, target

ONE = Bounds(min_replicas=0, max_replicas=1, idle_timeout_seconds=60.0, concurrency=4)
MANY = Bounds(min_replicas=1, max_replicas=3, idle_timeout_seconds=60.0, concurrency=4)


@pytest.mark.parametrize(
    ("bounds", "requests", "peaks", "complete", "replicas", "wanted", "why"),
    [
        (ONE, 0, (), True, 0, 0, "nothing asked, nothing there"),
        (ONE, 1, (), True, 0, 1, "the first request wakes it"),
        (ONE, 1, (), False, 0, 1, "a missing signal does not keep anybody waiting"),
        (ONE, 99, (), True, 0, 1, "never more than the most"),
        (MANY, 0, (), True, 0, 1, "never fewer than the least"),
        (MANY, 4, (), True, 1, 1, "exactly full"),
        (MANY, 5, (), True, 1, 2, "one too many for one"),
        (MANY, 99, (), True, 1, 3, "as many as may be"),
        (ONE, 0, (Peak(941.0, 1),), True, 1, 1, "59 s since the end of the last request"),
        (ONE, 0, (Peak(940.0, 1),), True, 1, 0, "60 s since the end of the last request"),
        (ONE, 0, (Peak(900.0, 1),), False, 1, 1, "a missing signal is never zero demand"),
        (ONE, 0, (Peak(999.0, 1),), True, 0, 0, "what was wanted a moment ago is not started again"),
        (MANY, 5, (Peak(950.0, 3),), True, 3, 3, "three were wanted 50 s ago"),
        (MANY, 5, (Peak(930.0, 3), Peak(950.0, 2)), True, 3, 2, "three were wanted 70 s ago, two 50 s ago"),
        (MANY, 1, (Peak(999.0, 3),), True, 2, 2, "a peak keeps what runs, it does not start more"),
        (ONE, 0, (), False, 2, 1, "more than the most is too many even then"),
    ],
)
def test_decides(
    bounds: Bounds, requests: int, peaks: tuple[Peak, ...], complete: bool, replicas: int, wanted: int, why: str
) -> None:
    facts = Facts(bounds=bounds, load=Load(requests, complete, peaks), live=replicas, now=1000.0)
    assert decide(facts).serving == wanted, why


def test_remembers_only_what_can_still_matter() -> None:
    peaks: tuple[Peak, ...] = ()
    for before, after, now in ((0, 3, 1.0), (3, 1, 2.0), (1, 2, 3.0), (2, 0, 4.0)):
        peaks = remember(peaks, before, after, now)
    assert peaks == (Peak(2.0, 3), Peak(4.0, 2))
    assert forget(peaks, ONE, 63.0) == (Peak(4.0, 2),)
    assert remember((Peak(2.0, 2),), 3, 0, 5.0) == (Peak(5.0, 3),)


@given(st.lists(st.tuples(st.floats(0.1, 100.0), st.integers(0, 20)), min_size=1, max_size=30))
def test_keeps_the_most_that_was_wanted_within_the_idle_timeout(history: list[tuple[float, int]]) -> None:
    now, last, replicas, wanted_at = 0.0, 0, 0, []  # (from, to, target)
    peaks: tuple[Peak, ...] = ()
    begun = 0.0
    for pause, requests in history:
        now += pause
        wanted_at.append((begun, now, last))
        after = target(MANY, requests)
        peaks = remember(peaks, last, after, now)
        last, begun = after, now
        expected = max(
            [
                after,
                MANY.min_replicas,
                *(wanted for _, end, wanted in wanted_at if now - end < MANY.idle_timeout_seconds),
            ]
        )
        facts = Facts(bounds=MANY, load=Load(requests, True, peaks), live=replicas, now=now)
        before, replicas = replicas, decide(facts).serving
        assert max(after, MANY.min_replicas) <= replicas <= MANY.max_replicas
        assert replicas == max(after, MANY.min_replicas) if replicas > before else replicas == min(before, expected)


@pytest.mark.parametrize(
    ("bounds", "requests", "complete", "replicas", "count", "why"),
    [
        (ONE, 0, True, 1, 1, "nobody asks for it"),
        (ONE, 1, True, 1, 0, "somebody does"),
        (ONE, 0, False, 1, 0, "somebody may"),
        (MANY, 0, True, 3, 2, "the least stays"),
        (MANY, 0, True, 0, 0, "there is none"),
    ],
)
def test_evicts_only_what_nobody_asks_for(
    bounds: Bounds, requests: int, complete: bool, replicas: int, count: int, why: str
) -> None:
    assert evictable(bounds, Load(requests, complete), replicas) == count, why


@given(st.integers(0, 50), st.integers(1, 64), st.integers(1, 64))
def test_nobody_is_beyond_the_target_concurrency_while_there_may_be_more(
    requests: int, concurrency: int, most: int
) -> None:
    wanted = target(
        Bounds(min_replicas=0, max_replicas=most, idle_timeout_seconds=1.0, concurrency=concurrency), requests
    )
    assert requests <= wanted * concurrency or wanted == most
    assert wanted == 0 or requests > (wanted - 1) * concurrency


def facts(**given: Any) -> Facts:
    known: dict[str, Any] = {"bounds": ONE, "load": Load(0, True), "live": 1, "now": 1000.0, "parks": True}
    return Facts(**known | given)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"load": Load(3, True)}, Target(1, 1, "3 requests, at most 4 a replica")),
        ({"load": Load(1, True), "live": 0}, Target(1, 1, "1 request, at most 4 a replica")),
        ({"load": Load(9, True)}, Target(1, 1, "9 requests need 3, and max_replicas is 1")),
        ({"bounds": MANY}, Target(1, 1, "min_replicas is 1")),
        ({"bounds": MANY, "routed": False, "coming": True}, Target(1, 0, "it must be ready before it takes the route")),
        ({"load": Load(0, False)}, Target(1, 1, "routers may not have reported all requests yet")),
        (
            {"load": Load(0, True, (Peak(990.0, 1),))},
            Target(1, 1, "requests within the last 60 s needed 1"),
        ),
        ({}, Target(0, 1, "no requests")),
        ({"parks": False}, Target(0, 0, "no requests")),
        ({"routed": False, "live": 0}, Target(0, 0, "no route leads to it")),
        ({"load": Load(3, True), "paused": True}, Target(0, 0, "its endpoint is paused")),
        ({"load": Load(3, True), "removed": True}, Target(0, 0, "its endpoint is removed")),
        ({"load": Load(3, True), "closing": True}, Target(0, 0, "the installation is shutting down")),
    ],
)
def test_a_target_says_why(known: dict[str, Any], expected: Target) -> None:
    assert decide(facts(**known)) == expected


def test_park_after_a_minute_and_end_after_an_hour_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole policy is in `scaler.py`: with this one number changed, the decision has both moments in it."""
    monkeypatch.setattr(scaler, "PARKED_SECONDS", 3600.0)
    ended = 1000.0
    peak = Load(0, True, (Peak(ended, 1),))
    at = {seconds: decide(facts(load=peak, idle_since=ended, now=ended + seconds)) for seconds in (59, 60, 3599, 3600)}
    assert {seconds: (target.serving, target.parked) for seconds, target in at.items()} == {
        59: (1, 1),
        60: (0, 1),
        3599: (0, 1),
        3600: (0, 0),
    }
    assert at[60].until == ended + 3600.0, "and it says when to look again"
