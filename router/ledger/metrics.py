"""What operators scrape of the ledger: `pilotlight_ledger_…`. Steps 2 and 12."""

from __future__ import annotations

from collections.abc import Iterator

from pilotlight.exposition import Family, Kind


def collect(
    *, keys: int, workers: int, waiting: int, unpriced: int, settled: int, corrected: int, rejected: int
) -> Iterator[Family]:
    """`settled`, `corrected` and `rejected`: since this process began."""
    families: tuple[tuple[str, Kind, str, int], ...] = (
        ("pilotlight_ledger_keys", "gauge", "API keys that live, as the routers are told.", keys),
        ("pilotlight_ledger_workers", "gauge", "Router workers that are connected.", workers),
        (
            "pilotlight_ledger_waiting_requests",
            "gauge",
            "Requests whose rows wait for what the engine's journal has to say of them.",
            waiting,
        ),
        (
            "pilotlight_ledger_unpriced_requests",
            "gauge",
            "Requests that no price covers, kept in unpriced.jsonl until one does.",
            unpriced,
        ),
        ("pilotlight_ledger_settled_requests", "counter", "Requests whose usage rows were written.", settled),
        (
            "pilotlight_ledger_corrections",
            "counter",
            "Rows that were added because a journal came after its request's row.",
            corrected,
        ),
        (
            "pilotlight_ledger_rejected_lines",
            "counter",
            "Lines that are no records, or that Postgres refuses, kept in rejected.jsonl for a person.",
            rejected,
        ),
    )
    for name, kind, documentation, number in families:
        yield Family(name, kind, documentation, (), (((), number),))
