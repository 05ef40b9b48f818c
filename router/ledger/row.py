"""Makes the row one request leaves in `usage`: whose figures count, and what it costs. Step 12, pure.

The failure to survive is a router that died in the middle. A request that was opened and never ended still gets its
row, `router_lost`, with what the engine journalled for it, or nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import TypeAdapter

from router.ledger.join import PendingUsage
from router.ledger.prices import PriceList, cost
from router.spool.record import CountSource, EndRecord
from runtime.wire import Phase, UsageEntry

_phases = TypeAdapter(tuple[Phase, ...])


class UsageRow(NamedTuple):
    """The columns of `usage`, in the order of the arrays `sql/settle_usage.sql` takes."""

    event_id: str
    org_id: str
    endpoint_id: str
    revision_id: str
    replica_id: str
    key_id: str
    path: str
    streamed: bool
    status: int
    finish: str
    start: str
    admitted_at: float  # Unix seconds
    hold_ms: float
    first_byte_ms: float | None
    total_ms: float
    phases: str  # JSON
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    count_source: str
    price_version: int
    cost: int  # 1e-10 dollars
    delivered_tokens: int | None  # output, as counted on its way to the client; None: not counted


def usage_row(case: PendingUsage, prices: PriceList) -> UsageRow:
    """The row of a request that is ready to settle. Raises Unpriced."""
    opened = case.open
    if opened is None:
        raise ValueError(f"request {case.event_id} has no open record: it is not ready")
    end = case.end or EndRecord(event_id=case.event_id, status=0, finish="router_lost")
    input_tokens, cached_tokens, output_tokens, source = figures(end, case.engine)
    admitted_at, delivered = prices.moment(opened.admitted_at), passed(case.end)
    price = prices.at(org_id=opened.org_id, endpoint_id=opened.endpoint_id, admitted_at=admitted_at)
    return UsageRow(  # by place: by name it would cost half as much again
        opened.event_id,
        opened.org_id,
        opened.endpoint_id,
        end.revision_id,
        end.replica_id or (case.engine.replica_id if case.engine else ""),
        opened.key_id,
        opened.path.replace("\0", ""),  # Postgres has no text with a zero in it; a client may well send one
        opened.streamed,
        end.status,
        end.finish,
        end.start,
        admitted_at,
        end.hold_ms,
        end.first_byte_ms,
        end.total_ms,
        _phases.dump_json(end.phases, exclude_defaults=True).decode() if end.phases else "[]",
        input_tokens,
        cached_tokens,
        output_tokens,
        source,
        price.version,
        cost(price, end.finish, opened.streamed, input_tokens, cached_tokens, output_tokens, delivered),
        delivered,
    )


def passed(end: EndRecord | None) -> int | None:
    """Output tokens the router counted on their way to the client. None: it did not count, the engine told it, or it
    died.
    """
    return end.output_tokens if end is not None and end.count_source in ("relayed", "none") else None


def figures(end: EndRecord, engine: UsageEntry | None) -> tuple[int, int, int, CountSource]:
    """(input, cached, output tokens, who counted).

    1. told in band by the engine at the end; 2. the engine's journal; 3. the last durable count of a replica that was
       lost;
    4. what the router counted as it passed, or nothing. Cached tokens are part of the input, so there are never more of
       them.
    """
    if end.count_source != "engine" and engine is not None:
        source: CountSource = "last_count" if engine.partial else "journal"
        return engine.input_tokens, min(engine.cached_tokens, engine.input_tokens), engine.output_tokens, source
    return end.input_tokens, min(end.cached_tokens, end.input_tokens), end.output_tokens, end.count_source
