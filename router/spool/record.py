"""The two lines a request leaves in the spool: `open` before it is dispatched, `end` before its last byte. Step 12.

An `open` without an `end` is a router that died. The ledger settles it from the engine's journal, else with nothing,
and says so in `finish`.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from pilotlight.frames import Frame
from router.finish import Finish
from runtime.wire import Phase

UNNAMED = ".new"  # behind the name of a spool file that its worker has not locked yet
ToldBy = Literal["engine", "journal", "relayed", "none"]
CountSource = Literal[
    "engine", "journal", "last_count", "relayed", "none"
]  # of a row; last_count: the replica was lost, its last durable count


class Tokens(NamedTuple):
    """Counts of one answer, and who counted them."""

    input: int = 0
    cached: int = 0  # part of input
    output: int = 0
    source: CountSource = "none"
    broken: bool = False  # the engine's stream ended in an error, and these are what it had made


NO_TOKENS = Tokens()


class OpenRecord(Frame):
    """A request that is about to be dispatched or held."""

    kind: Literal["open"] = "open"
    event_id: str  # UUIDv7 hex; the x-request-id of the caller and of the replica
    org_id: str
    endpoint_id: str
    key_id: str
    path: str
    streamed: bool
    admitted_at: float  # Unix seconds


class EndRecord(Frame):
    """How a request ended, and what it has used."""

    kind: Literal["end"] = "end"
    event_id: str
    revision_id: str = ""
    replica_id: str = ""
    status: int  # HTTP status; 0: the client left before one was sent
    finish: Finish
    start: Literal["warm", "cold"] = "warm"
    hold_ms: float = 0.0
    first_byte_ms: float | None = None  # from admission
    total_ms: float = 0.0
    phases: tuple[Phase, ...] = ()  # of the cold start this request waited for, hold and first_token included
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    count_source: ToldBy = "none"  # engine: told in band at the end; relayed: counted as it passed; none: unknown here


SpoolLine = Annotated[OpenRecord | EndRecord, Field(discriminator="kind")]
