"""What operators scrape of the ledger: `pilotlight_ledger_…`. Steps 2 and 12."""

from __future__ import annotations

from collections.abc import Iterator

from pilotlight.exposition import Family


def collect(*, keys: int, workers: int, settled: int) -> Iterator[Family]:
    """`settled`: since this process began."""
    yield Family("pilotlight_ledger_keys", "gauge", "API keys that live, as the routers are told.", (), (((), keys),))
    yield Family("pilotlight_ledger_workers", "gauge", "Router workers that are connected.", (), (((), workers),))
    yield Family("pilotlight_ledger_settled_requests", "counter", "Requests whose usage rows were written.", (), (((), settled),))
