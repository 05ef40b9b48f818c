"""Corrections: whatever comes late and however often, the sum of a request's rows is what the engine made, exactly
priced.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.ledger.corrections import FIRST_SECONDS, MARGIN_SECONDS, Corrections
from router.ledger.late import Late, correction
from router.ledger.prices import Price, cost
from tests.fakes_ledger import LateStore

PRICE = Price(
    version=3, org_id="default", endpoint_id="", valid_from=0.0, input=10**9, cached=5 * 10**8, output=4 * 10**9
)
counts = st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))


def costs(figures: tuple[int, int, int], finish: Any, streamed: bool, delivered: int | None) -> int:
    named = {"input_tokens": figures[0], "cached_tokens": min(figures[1], figures[0]), "output_tokens": figures[2]}
    return cost(PRICE, finish=finish, streamed=streamed, delivered=delivered, **named)


@given(
    billed=counts,
    last_count=st.none() | counts,
    journal=st.none() | counts,
    finish=st.sampled_from(["client_disconnect", "upstream_error", "router_lost"]),
    streamed=st.booleans(),
    delivered=st.none() | st.integers(0, 1000),
    repeats=st.integers(1, 3),
)
def test_rows_and_corrections_sum_up_to_the_best_that_is_known(
    billed: tuple[int, int, int],
    last_count: tuple[int, int, int] | None,
    journal: tuple[int, int, int] | None,
    finish: Any,
    streamed: bool,
    delivered: int | None,
    repeats: int,
) -> None:
    rows = {"e": (billed[0], min(billed[1], billed[0]), billed[2], costs(billed, finish, streamed, delivered))}
    for entry, partial in ((last_count, True), (journal, False)):
        for _ in range(repeats if entry else 0):
            assert entry is not None
            had = [sum(row[column] for row in rows.values()) for column in range(4)]
            late = Late("e", 3, finish, streamed, delivered, had[0], had[1], had[2], had[3], partial, *entry)
            if made := correction(late, PRICE):
                figures = (made.input_tokens, made.cached_tokens, made.output_tokens, made.cost)
                assert rows.setdefault(made.event_id, figures) == figures, "the same line twice is one correction"
                assert made.corrects == "e" and made.count_source == ("last_count" if partial else "journal")
    best = journal or last_count or billed
    assert [sum(row[column] for row in rows.values()) for column in range(4)] == [
        best[0],
        min(best[1], best[0]),
        best[2],
        costs(best, finish, streamed, delivered),
    ]
    assert len(rows) <= 3


def test_a_pass_takes_all_there_is_and_the_next_looks_back_to_it() -> None:
    late = [Late(f"e{number}", 3, "client_disconnect", True, 5, 0, 0, number, 0, False, 1, 0, 3) for number in range(5)]
    store = LateStore(PRICE, [*late, Late("right", 3, "client_disconnect", True, 5, 0, 0, 0, 0, False, 0, 0, 0)])
    corrections = Corrections(store, every=1.0)

    async def scene() -> None:
        assert await corrections.catch_up() == 6
        assert sorted(made.event_id for made in store.made) == [f"e{number}.2" for number in range(5)], (
            "what was right is left alone"
        )
        store.late.clear()
        assert await corrections.catch_up() == 0
        assert store.back[0] == FIRST_SECONDS and MARGIN_SECONDS <= store.back[-1] < MARGIN_SECONDS + 60

    asyncio.run(scene())


def test_a_first_look_that_takes_too_long_is_made_shorter() -> None:
    store = LateStore(PRICE, [])
    store.slow = 20
    corrections = Corrections(store, every=1.0)

    async def scene() -> None:
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await corrections.catch_up()
        assert await corrections.catch_up() == 0
        assert store.back[:2] == [FIRST_SECONDS, FIRST_SECONDS / 4] and store.back[-1] == MARGIN_SECONDS

    asyncio.run(scene())
