"""Before step 1 and in step 2: how often an address without a key may do what costs, and whose handshake is next."""

from __future__ import annotations

import pytest

from router.admission.doorstep import Doorstep
from router.admission.rates import EARNED, MOST_EARNED, SAVED_SECONDS, Rates
from router.admission.visitors import LOCAL


def taken(rates: Rates, address: str, now: float, tries: int) -> int:
    return sum(not rates.spend(address, now) for _ in range(tries))


def test_an_address_has_what_it_saved_up_and_then_its_rate() -> None:
    rates = Rates(5.0)
    assert taken(rates, "a", 100.0, 1000) == 5 * SAVED_SECONDS
    assert taken(rates, "a", 101.0, 1000) == 5
    assert taken(rates, "a", 1e6, 1000) == 5 * SAVED_SECONDS, "no more is ever saved up"


def test_one_address_takes_nothing_of_another() -> None:
    rates = Rates(5.0)
    taken(rates, "a", 0.0, 1000)
    assert rates.spend("b", 0.0) == 0.0


def test_who_is_refused_is_told_when_there_is_room() -> None:
    rates = Rates(4.0)
    taken(rates, "a", 0.0, 1000)
    wait = rates.spend("a", 0.0)
    assert wait == pytest.approx(0.25)
    assert rates.wait("a", wait - 0.01) > 0.0
    assert rates.spend("a", wait) == 0.0
    assert rates.spend("a", wait) > 0.0


def test_looking_takes_nothing() -> None:
    rates = Rates(0.1)
    assert [rates.wait("a", 0.0) for _ in range(9)] == [0.0] * 9
    assert rates.spend("a", 0.0) == 0.0
    assert rates.wait("a", 0.0) > 0.0


@pytest.mark.parametrize("clients", [1, 300, 5000])
def test_callers_whose_keys_are_good_are_never_held_up(clients: int) -> None:
    """They come at once, as after a restart, and again and again: each shows its key before the next comes in."""
    rates = Rates(1.0)
    for _ in range(clients):
        assert rates.spend("a", 0.0) == 0.0
        rates.earned("a", 0.0)


def test_keys_earn_room_for_strangers_at_the_same_address_up_to_a_bound() -> None:
    rates = Rates(1.0)
    for _ in range(10_000):
        rates.earned("a", 0.0)
    assert taken(rates, "a", 0.0, 10_000) == SAVED_SECONDS * MOST_EARNED
    for _ in range(5):
        rates.earned("a", 0.0)
    assert taken(rates, "a", 0.0, 100) == 5 * EARNED


def test_no_rate_is_no_limit() -> None:
    rates = Rates(0.0)
    assert taken(rates, "a", 0.0, 1000) == 1000
    rates.earned("a", 0.0)
    assert not len(rates)


def test_as_many_addresses_are_kept_as_there_is_room_for_and_the_longest_unheard_of_is_forgotten() -> None:
    rates = Rates(1.0, most_addresses=100)
    taken(rates, "busy", 0.0, 1000)
    for number in range(10_000):
        rates.spend(f"stranger {number}", 1.0)
        assert rates.spend("busy", 0.5) > 0.0, "who comes all the time is not forgotten"
    assert len(rates) == 100


def let_in(step: Doorstep[str], now: float) -> list[str]:
    found = []
    while (guest := step.next(now)) is not None:
        found.append(guest)
    return found


def test_addresses_take_turns() -> None:
    step: Doorstep[str] = Doorstep(Rates(10.0))
    for number in range(50):
        step.come("flood", f"flood {number}")
    step.come("good", "good")
    assert let_in(step, 0.0)[:3] == ["flood 0", "good", "flood 1"]
    assert not len(step)


def test_who_is_over_the_rate_waits_and_nobody_else_does() -> None:
    step: Doorstep[str] = Doorstep(Rates(1.0))
    for number in range(20):
        step.come("flood", f"flood {number}")
    assert len(let_in(step, 0.0)) == SAVED_SECONDS
    assert step.due() == 1.0
    step.come("good", "good")
    assert let_in(step, 0.5) == ["good"]
    assert let_in(step, 1.0) == ["flood 10"]
    assert let_in(step, 1.5) == []
    assert let_in(step, 3.0) == ["flood 11", "flood 12"]
    assert len(step) == 7


def test_a_good_key_lets_the_next_of_its_address_in_at_once() -> None:
    step: Doorstep[str] = Doorstep(Rates(1.0))
    for number in range(12):
        step.come("a", f"{number}")
    assert len(let_in(step, 0.0)) == 10
    step.earned("a", 0.0)
    assert let_in(step, 0.0) == ["10", "11"]


def test_who_leaves_the_line_takes_no_turn() -> None:
    step: Doorstep[str] = Doorstep(Rates(1.0))
    step.come("a", "one")
    step.come("a", "two")
    step.leave("one")
    step.leave("one")
    assert let_in(step, 0.0) == ["two"]
    step.leave("two")
    assert (len(step), step.over_rate, step.due()) == (0, 0, None)


def test_who_gives_up_in_a_line_that_is_over_its_rate_is_counted() -> None:
    step: Doorstep[str] = Doorstep(Rates(0.1))
    step.come("a", "one")
    step.come("a", "two")
    assert let_in(step, 0.0) == ["one"]
    step.leave("two")
    assert (step.over_rate, step.due()) == (1, None)
    step.come("a", "three")
    assert (let_in(step, 1.0), step.due()) == ([], 10.0), "a new one waits as long"
    assert let_in(step, 10.0) == ["three"]


def test_a_proxy_that_is_trusted_has_no_rate() -> None:
    step: Doorstep[str] = Doorstep(Rates(0.001))
    for number in range(1000):
        step.come(LOCAL, f"{number}")
    assert len(let_in(step, 0.0)) == 1000
