"""Step 5: keys share a revision's slots, and each key's own requests go first come first served."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from router.hold.queue import Waiters


@dataclass(eq=False)
class Waits:
    user: str
    sequences: int = 1


@dataclass
class Timer:
    cancelled: list[int] = field(default_factory=list)

    def cancel(self) -> None:
        self.cancelled.append(1)


def test_a_key_that_has_all_slots_gets_none_while_another_waits() -> None:
    waiters: Waiters[Waits] = Waiters()
    many, one = [Waits("a") for _ in range(5)], Waits("b")
    for waiter in (*many, one):
        waiters.add(waiter, Timer())
    assert waiters.whose_turn({"a": 64}) is one
    assert waiters.whose_turn({"a": 1, "b": 1}) is many[0], "equal shares: who has waited longest"
    assert waiters.whose_turn({}) is many[0]
    waiters.remove(one)
    assert waiters.whose_turn({"a": 64}) is many[0], "alone it has them all"


def test_who_comes_back_is_first_again() -> None:
    waiters: Waiters[Waits] = Waiters()
    first, second, other = Waits("a"), Waits("a"), Waits("b")
    for waiter in (first, second, other):
        waiters.add(waiter, Timer())
    waiters.remove(second)
    waiters.put_back(second, Timer())
    assert waiters.whose_turn({}) is waiters.oldest() is second
    assert list(waiters) == [second, first, other]


def test_the_youngest_of_the_key_with_the_most_gives_way() -> None:
    waiters: Waiters[Waits] = Waiters()
    flood = [Waits("a") for _ in range(3)]
    for waiter in (*flood[:2], Waits("b"), flood[2], Waits("b")):
        waiters.add(waiter, Timer())
    assert waiters.youngest_of_the_most() is flood[2]
    assert (waiters.of("a"), waiters.of("b"), waiters.of("c")) == (3, 2, 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 128)), min_size=1, max_size=30), st.randoms())
def test_what_waits_is_counted_and_everyone_gets_a_turn(asked: list[tuple[str, int]], random: object) -> None:
    """Whoever is served last, nobody of a key goes before one of the same key that came earlier."""
    waiters: Waiters[Waits] = Waiters()
    came = [Waits(user, sequences) for user, sequences in asked]
    timers = {waiter: Timer() for waiter in came}
    for waiter in came:
        waiters.add(waiter, timers[waiter], waiter.sequences)
    assert waiters.sequences == sum(waiter.sequences for waiter in came)
    served, in_work = [], Counter[str]()
    while waiters:
        waiter = waiters.whose_turn(in_work)
        assert in_work[waiter.user] == min(in_work[each.user] for each in waiters)
        waiters.remove(waiter)
        in_work[waiter.user] += waiter.sequences
        served.append(waiter)
    for user in "abc":
        assert [waiter for waiter in served if waiter.user == user] == [
            waiter for waiter in came if waiter.user == user
        ]
    assert waiters.sequences == 0 and all(timer.cancelled for timer in timers.values())
