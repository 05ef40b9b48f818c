"""Computes what a request costs, exactly: integers only, one rounding, the price pinned by its version.

Step 12. Prices are immutable rows; a new price is a new row with a later `valid_from`. The list is a cache, and being
out of date is the failure to survive. The settling statement names the newest version it priced with, and Postgres
refuses the batch when there is a newer one (`sql/settle_usage.sql`).

Money is an integer of 1e-10 dollars, the last digit `numeric(20,10)` holds; a price is that per million tokens. So
tokens × price counts 1e-16 dollars, and a cost is that, rounded half up once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from router.finish import Finish

INSURED: frozenset[Finish] = frozenset({"upstream_error", "refused", "timeout", "router_lost"})
"""Who got nothing pays nothing: of a request that ended so only what was delivered counts. A client that left pays for
what the engine produced for it."""

CLOCK_SECONDS = (
    1.0  # by how much our clock may differ from Postgres' before times are corrected: less is the way of the question
)


class Unpriced(Exception):
    """No price was valid for a request when it was admitted; the text says how to add one."""


class Price(NamedTuple):
    version: int
    org_id: str
    endpoint_id: str  # "": every endpoint of the organisation; and, of "default", of every organisation without its own
    valid_from: float  # Unix seconds; -inf: always
    input: int  # 1e-10 dollars a million tokens
    cached: int
    output: int
    ends: bool = False  # no price: its endpoint was removed, and what it had of its own until then counts no more


class PriceList:
    """All prices there are, looked up by endpoint and time of admission."""

    def __init__(self, prices: Iterable[Price] = (), *, ahead_seconds: float = 0.0) -> None:
        """`ahead_seconds`: Postgres' clock, of this machine's, by which requests are stamped."""
        self.ahead_seconds = ahead_seconds
        self._prices: dict[tuple[str, str], tuple[list[float], list[Price]]] = defaultdict(lambda: ([], []))
        self._of: dict[
            tuple[str, str], list[tuple[list[float], list[Price]]]
        ] = {}  # those of them that may count for an endpoint
        self.newest = 0  # the highest version in the list
        self.versions: dict[int, Price] = {}
        listed_all = sorted(prices, key=lambda price: (price.valid_from, price.version))
        ends: dict[str, list[Price]] = defaultdict(list)
        for price in listed_all:
            if price.ends:
                ends[price.endpoint_id].append(price)
        for price in listed_all:
            self.newest = max(self.newest, price.version)
            self.versions[price.version] = price
            if any(
                price.version < end.version and price.valid_from > end.valid_from
                for end in ends.get(price.endpoint_id, ())
            ):
                continue  # it was to begin after its endpoint was removed
            times, listed = self._prices["" if price.endpoint_id else price.org_id, price.endpoint_id]
            times.append(price.valid_from)
            listed.append(price)

    def moment(self, admitted_at: float) -> float:
        """When a request was admitted by Postgres' clock, as the prices' beginnings are."""
        return admitted_at + (self.ahead_seconds if abs(self.ahead_seconds) >= CLOCK_SECONDS else 0.0)

    def at(self, *, org_id: str, endpoint_id: str, admitted_at: float) -> Price:
        """The newest price valid at `admitted_at`, in Unix seconds. Raises Unpriced.

        1. the endpoint's own; 2. its organisation's default; 3. the installation's default.
        """
        of_endpoint = self._of.get((org_id, endpoint_id))
        if of_endpoint is None:
            keys = (("", endpoint_id), (org_id, ""), ("default", ""))
            of_endpoint = self._of[org_id, endpoint_id] = [self._prices[key] for key in keys if key in self._prices]
        for times, listed in of_endpoint:
            if (count := bisect_right(times, admitted_at)) and not listed[count - 1].ends:
                return listed[count - 1]
        raise Unpriced(
            f"no price of endpoint {endpoint_id} is valid at {admitted_at}: insert a default into `prices` (endpoint_id null)"
        )


def cost(
    price: Price,
    finish: Finish,
    streamed: bool,
    input_tokens: int,
    cached_tokens: int,
    output_tokens: int,
    delivered: int | None = None,
) -> int:
    """1e-10 dollars, rounded half up. `cached_tokens` are part of `input_tokens`; `delivered` is output, None where
    nobody counted it.

    1. An answer in one piece that we broke: its client has nothing of it. 2. A stream that we broke costs what was
       delivered,
    as far as that is known. 3. All else costs what the engine made.
    """
    if finish in INSURED:
        if not streamed:
            return 0  # 1
        output_tokens = output_tokens if delivered is None else min(output_tokens, delivered)  # 2
        if output_tokens == 0:
            return 0
    exact = (input_tokens - cached_tokens) * price.input + cached_tokens * price.cached + output_tokens * price.output
    return (exact + 500_000) // 1_000_000
