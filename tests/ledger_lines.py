"""Records of a request's beginning and end, and the lines of a spool that hold them."""

from __future__ import annotations

from pilotlight.sealed import seal
from router.finish import Finish
from router.spool.record import EndRecord, OpenRecord, ToldBy
from runtime.wire import UsageEntry


def opened(event_id: str) -> OpenRecord:
    return OpenRecord(
        event_id=event_id,
        org_id="default",
        endpoint_id="ep",
        key_id="key",
        path="/v1/completions",
        streamed=True,
        admitted_at=1e9,
    )


def ended(
    event_id: str, *, source: ToldBy = "engine", replica: str = "rep", tokens: int = 5, finish: Finish = "complete"
) -> EndRecord:
    return EndRecord(
        event_id=event_id,
        replica_id=replica,
        status=200,
        finish=finish,
        input_tokens=tokens,
        output_tokens=tokens,
        count_source=source,
    )


def journalled(event_id: str, tokens: int = 9) -> UsageEntry:
    return UsageEntry(
        request_id=event_id,
        replica_id="rep",
        input_tokens=tokens,
        cached_tokens=0,
        output_tokens=tokens,
        finish="abort",
    )


def line(record: OpenRecord | EndRecord) -> bytes:
    return record.model_dump_json().encode() + b"\n"


def sealed(record: OpenRecord | EndRecord) -> bytes:
    """As this release writes it."""
    return seal(record.model_dump_json().encode())
