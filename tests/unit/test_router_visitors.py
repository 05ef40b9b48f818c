"""Before step 1: who is let in, and who gives way, when there are more connections than there is room for."""

from __future__ import annotations

import pytest

from router.admission.visitors import LOCAL, LOOKED_AT, Standing, Visitors, household
from router.worker import SET_ASIDE
from router.worker import visitors as visitors_of
from tests.fakes_router import Someone


def crowd(visitors: Visitors, address: str, count: int, standing: Standing = "idle") -> list[Someone]:
    them = [Someone(standing) for _ in range(count)]
    assert all(visitors.enter(address, each) for each in them)
    return them


def test_a_flood_from_one_address_keeps_nobody_else_out() -> None:
    visitors = Visitors(most=100, most_each=80)
    flood = crowd(visitors, "1.1.1.1", 80)
    crowd(visitors, "2.2.2.2", 20)
    for number in range(30):
        assert visitors.enter(f"3.3.3.{number}", Someone())
    assert sum(each.turned_out for each in flood) == 30, "the flood gave way, the oldest first"
    assert all(each.turned_out for each in flood[:30])
    assert len(visitors) == 100


def test_an_address_at_its_bound_makes_room_for_itself_only() -> None:
    visitors = Visitors(most=100, most_each=3)
    others, own = crowd(visitors, "2.2.2.2", 3), crowd(visitors, "1.1.1.1", 3)
    assert visitors.enter("1.1.1.1", Someone())
    assert [each.turned_out for each in own] == [True, False, False]
    assert not any(each.turned_out for each in others)


@pytest.mark.parametrize("standing", ["served"])
def test_whoever_is_served_never_gives_way(standing: Standing) -> None:
    visitors = Visitors(most=10, most_each=10)
    served = crowd(visitors, "1.1.1.1", 10, standing)
    assert not visitors.enter("2.2.2.2", Someone())
    assert not visitors.enter("1.1.1.1", Someone())
    assert (visitors.refused, visitors.gave_way) == (2, 0)
    assert not any(each.turned_out for each in served)


def test_the_idle_give_way_before_those_who_send() -> None:
    visitors = Visitors(most=3, most_each=3)
    sending, idle = crowd(visitors, "1.1.1.1", 2, "sending"), crowd(visitors, "1.1.1.1", 1)
    assert visitors.enter("2.2.2.2", Someone())
    assert idle[0].turned_out
    assert visitors.enter("3.3.3.3", Someone())
    assert sending[0].turned_out and not sending[1].turned_out


def test_an_idle_one_is_found_behind_many_that_are_served() -> None:
    visitors = Visitors(most=4 * LOOKED_AT, most_each=4 * LOOKED_AT)
    crowd(visitors, "1.1.1.1", 4 * LOOKED_AT - 1, "served")
    [idle] = crowd(visitors, "1.1.1.1", 1)
    assert any(visitors.enter("2.2.2.2", Someone()) for _ in range(4)), "each try looks at others"
    assert idle.turned_out


def test_an_ingress_on_this_machine_has_no_bound_of_its_own() -> None:
    visitors = Visitors(most=10, most_each=2)
    crowd(visitors, LOCAL, 10)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1.2.3.4", "1.2.3.5", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:1.2.3.4", "1.2.3.4", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_households(one: str, other: str, same: bool) -> None:
    assert (household(one) == household(other)) == same


@pytest.mark.parametrize(
    ("descriptors", "most", "most_each"),
    [(1 << 20, 8192, 4096), (20_000, 8192, 4096), (4096, 1920, 1920), (1024, 384, 384), (64, 1, 1)],
)
def test_each_client_leaves_a_descriptor_for_its_replica_and_some_for_us(
    descriptors: int, most: int, most_each: int
) -> None:
    found = visitors_of(8192, 4096, descriptors=descriptors)
    assert (found.most, found.most_each) == (most, most_each)
    assert descriptors < 300 or 2 * found.most + SET_ASIDE <= descriptors
