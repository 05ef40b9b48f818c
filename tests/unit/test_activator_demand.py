"""The sum of what routers say: absolute, fenced, and held when a router falls silent."""

from __future__ import annotations

from activator.state.demand import NOBODY, DemandBook
from activator.wire import Demand


def frame(sequence: int, table: int = 0, **requests: int) -> Demand:
    return Demand(sequence=sequence, requests=requests, table_sequence=table)


def book() -> DemandBook:
    made = DemandBook(30.0)
    made.join("a", 1, 0.0)
    made.join("b", 2, 0.0)
    return made


def test_sums_and_tells_what_changed() -> None:
    demand = book()
    assert demand.report("a", 1, frame(1, x=2, y=1), 1.0) == {"x", "y"}
    assert demand.report("b", 2, frame(1, x=3), 1.0) == {"x"}
    assert (demand.total("x"), demand.total("y"), demand.total("z")) == (5, 1, 0)
    assert demand.report("a", 1, frame(2, x=2), 1.0) == {"y"}
    assert set(demand.wanted()) == {"x"}


def test_a_frame_that_comes_late_or_twice_changes_nothing() -> None:
    demand = book()
    demand.report("a", 1, frame(5, table=7, x=2), 1.0)
    assert demand.report("a", 1, frame(5, table=9, x=9), 1.0) == set()
    assert demand.report("a", 1, frame(4, x=9), 1.0) == set()
    assert demand.report("a", 99, frame(6, x=9), 1.0) == set(), "a connection that is not its own"
    assert demand.report("nobody", 1, frame(6, x=9), 1.0) == set()
    assert demand.total("x") == 2


def test_a_router_that_comes_back_keeps_its_demand_until_it_reports() -> None:
    demand = book()
    demand.report("a", 1, frame(9, table=4, x=2), 1.0)
    demand.leave("a", 1)
    assert demand.total("x") == 2
    assert demand.join("a", 3, 2.0) is None
    assert demand.total("x") == 2
    assert not demand.is_complete() and demand.acknowledged() == -1
    assert demand.report("a", 3, frame(1, table=5), 2.0) == {"x"}
    assert demand.total("x") == 0


def test_a_new_connection_replaces_the_old_one() -> None:
    demand = book()
    assert demand.join("a", 3, 1.0) == 1
    assert not demand.leave("a", 1), "the old one's end means nothing"
    assert demand.connected() == 2


def test_silence_is_not_zero_for_thirty_seconds() -> None:
    demand = book()
    demand.report("a", 1, frame(1, x=2), 1.0)
    demand.report("b", 2, frame(1, x=1), 1.0)
    demand.leave("a", 1)
    demand.hear("b", 2, 20.0)
    assert demand.expire(31.0) == (set(), [])
    assert demand.expire(31.1) == ({"x"}, [])
    assert demand.total("x") == 1
    assert demand.expire(50.1) == ({"x"}, [2]), "and one that is connected is hung up on"
    assert (demand.total("x"), demand.connected()) == (0, 0)


def test_one_that_leaves_without_demand_is_forgotten() -> None:
    demand = book()
    demand.report("a", 1, frame(1), 1.0)
    demand.leave("a", 1)
    assert set(demand.routers) == {"b"}


def test_one_that_comes_and_goes_without_a_word_is_a_missing_signal() -> None:
    demand = book()
    demand.report("a", 1, frame(1), 1.0)
    demand.leave("b", 2)
    assert not demand.is_complete()
    demand.expire(30.5)
    assert demand.is_complete()


def test_acknowledged_is_the_slowest_of_the_connected() -> None:
    demand = book()
    demand.report("a", 1, frame(1, table=7), 1.0)
    assert demand.acknowledged() == -1
    demand.report("b", 2, frame(1, table=5), 1.0)
    assert demand.acknowledged() == 5 and demand.is_complete()
    demand.leave("b", 2)
    assert demand.acknowledged() == 7
    demand.leave("a", 1)
    assert demand.acknowledged() == NOBODY
