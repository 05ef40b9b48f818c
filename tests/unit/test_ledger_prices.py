"""Prices: exact to the last of ten decimals, the right one for the moment, and no charge for our own failures."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.ledger.prices import CLOCK_SECONDS, INSURED, Price, PriceList, Unpriced, cost

tokens = st.integers(0, 10_000_000)
amounts = st.integers(0, 10**15)


def price(
    version: int = 1, *, org: str = "default", endpoint: str = "", since: float = -math.inf, amount: int = 10**9
) -> Price:
    return Price(
        version=version, org_id=org, endpoint_id=endpoint, valid_from=since, input=amount, cached=amount, output=amount
    )


@given(
    input_tokens=tokens, cached=st.integers(0, 10_000_000), output=tokens, amounts=st.tuples(amounts, amounts, amounts)
)
def test_a_cost_is_exact_but_for_one_rounding(
    input_tokens: int, cached: int, output: int, amounts: tuple[int, int, int]
) -> None:
    cached = min(cached, input_tokens)
    listed = price()._replace(input=amounts[0], cached=amounts[1], output=amounts[2])
    got = cost(
        listed, finish="complete", streamed=True, input_tokens=input_tokens, cached_tokens=cached, output_tokens=output
    )
    dollars = [Fraction(amount, 10**10) for amount in amounts]
    exact = ((input_tokens - cached) * dollars[0] + cached * dollars[1] + output * dollars[2]) / 1_000_000
    assert got == math.floor(exact * 10**10 + Fraction(1, 2))


def test_the_default_price_of_a_round_number_of_tokens() -> None:
    listed = price()._replace(input=1_000_000_000, cached=500_000_000, output=4_000_000_000)  # 0.10, 0.05, 0.40 dollars
    got = cost(listed, finish="complete", streamed=True, input_tokens=1000, cached_tokens=400, output_tokens=200)
    assert got == 1_600_000  # 0.00016 dollars: 600 × 0.10 + 400 × 0.05 + 200 × 0.40 = 160 per million


@pytest.mark.parametrize("finish", ["upstream_error", "refused", "timeout", "router_lost"])
def test_what_failed_without_output_costs_nothing(finish: str) -> None:
    assert cost(price(), finish=finish, streamed=True, input_tokens=1000, cached_tokens=0, output_tokens=0) == 0  # type: ignore[arg-type]
    assert cost(price(), finish=finish, streamed=True, input_tokens=1000, cached_tokens=0, output_tokens=1) > 0  # type: ignore[arg-type]


@pytest.mark.parametrize("finish", ["complete", "client_disconnect"])
def test_a_client_that_left_pays_for_what_the_engine_did(finish: str) -> None:
    assert cost(price(), finish=finish, streamed=True, input_tokens=1000, cached_tokens=0, output_tokens=0) > 0  # type: ignore[arg-type]


@given(
    finish=st.sampled_from(["complete", "client_disconnect", "upstream_error", "refused", "timeout", "router_lost"]),
    streamed=st.booleans(),
    made=tokens,
    delivered=st.none() | tokens,
)
def test_who_got_nothing_pays_nothing_and_a_broken_stream_costs_what_came_of_it(
    finish: Any, streamed: bool, made: int, delivered: int | None
) -> None:
    def costs(output: int) -> int:
        return (10 * 10**9 + output * 10**9 + 500_000) // 1_000_000

    got = cost(
        price(),
        finish=finish,
        streamed=streamed,
        input_tokens=10,
        cached_tokens=0,
        output_tokens=made,
        delivered=delivered,
    )
    if finish not in INSURED:
        assert got == costs(made), "a client that left pays for what the engine made"
    elif not streamed:
        assert got == 0, "half an answer in one piece is none"
    else:
        passed = made if delivered is None else min(made, delivered)
        assert got == (costs(passed) if passed else 0)


@pytest.mark.parametrize("ahead", [-300.0, 300.0])
def test_a_price_counts_from_its_moment_by_postgres_clock(ahead: float) -> None:
    """Of a router five minutes slow, or fast."""
    prices = PriceList([price(1), price(2, since=1000.0)], ahead_seconds=ahead)
    before, after = (prices.moment(true - ahead) for true in (999.0, 1001.0))
    assert (before, after) == (999.0, 1001.0)
    assert [prices.at(org_id="o", endpoint_id="e", admitted_at=when).version for when in (before, after)] == [1, 2]
    assert PriceList(ahead_seconds=CLOCK_SECONDS / 2).moment(5.0) == 5.0, "less is only how long the question took"


def test_the_newest_price_valid_at_admission_counts() -> None:
    prices = PriceList([price(3, since=200.0), price(1), price(2, since=100.0), price(4, since=200.0)])
    at = {
        when: prices.at(org_id="o", endpoint_id="e", admitted_at=when).version
        for when in (0.0, 99.9, 100.0, 199.9, 200.0, 1e9)
    }
    assert at == {0.0: 1, 99.9: 1, 100.0: 2, 199.9: 2, 200.0: 4, 1e9: 4}
    assert prices.newest == 4


def test_an_endpoints_own_price_then_its_organisations_then_the_default() -> None:
    prices = PriceList(
        [price(1), price(2, org="acme"), price(3, org="acme", endpoint="ep"), price(4, org="other", since=50.0)]
    )
    assert prices.at(org_id="acme", endpoint_id="ep", admitted_at=0.0).version == 3
    assert prices.at(org_id="acme", endpoint_id="another", admitted_at=0.0).version == 2
    assert prices.at(org_id="nobody", endpoint_id="another", admitted_at=0.0).version == 1
    assert prices.at(org_id="other", endpoint_id="another", admitted_at=0.0).version == 1, "its own is not valid yet"


def test_a_removed_endpoints_own_prices_count_until_then_and_its_next_life_begins_with_the_default() -> None:
    own = [
        price(2, endpoint="ep", since=100.0),
        price(3, endpoint="ep", since=500.0),
        price(4, endpoint="other", since=500.0),
    ]
    removed = price(5, endpoint="ep", since=300.0, amount=0)._replace(ends=True)
    prices = PriceList([price(1), *own, removed])
    at = {
        when: prices.at(org_id="default", endpoint_id="ep", admitted_at=when).version
        for when in (50.0, 200.0, 300.0, 600.0)
    }
    assert at == {50.0: 1, 200.0: 2, 300.0: 1, 600.0: 1}, "nor the one that was to begin later"
    assert prices.at(org_id="default", endpoint_id="other", admitted_at=600.0).version == 4
    assert prices.newest == 5 and PriceList([price(1), *own[:2], removed._replace(valid_from=50.0)]).newest == 5
    again = PriceList([price(1), *own, removed, price(6, endpoint="ep", since=400.0)])
    assert again.at(org_id="default", endpoint_id="ep", admitted_at=600.0).version == 6


def test_no_price_says_what_to_do() -> None:
    with pytest.raises(Unpriced, match="insert a default"):
        PriceList().at(org_id="o", endpoint_id="e", admitted_at=0.0)
