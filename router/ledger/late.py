"""Computes the difference between what a request was billed and what the engine's journal says after all. Step 12,
pure.

The failure to survive is a correction of a correction: a last durable count may come late, and the complete line later
still. So what is to be added is the difference to everything that was written before.
"""

from __future__ import annotations

from typing import NamedTuple

from router.finish import Finish
from router.ledger.prices import Price, cost
from router.spool.record import CountSource


class Late(NamedTuple):
    """A journal entry that came after its request's row. `had_…`: that row and its corrections so far."""

    event_id: str
    price_version: int
    finish: Finish
    streamed: bool
    delivered_tokens: int | None
    had_input: int
    had_cached: int
    had_output: int
    had_cost: int  # 1e-10 dollars
    partial: bool
    input_tokens: int
    cached_tokens: int
    output_tokens: int


class Correction(NamedTuple):
    """The columns `sql/correct_usage.sql` takes, in their order: what is to be added."""

    event_id: str
    corrects: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    count_source: CountSource
    cost: int  # 1e-10 dollars


def correction(late: Late, price: Price) -> Correction | None:
    """None: the row was right. A last count may come first and the whole line after it: each corrects once."""
    cached = min(late.cached_tokens, late.input_tokens)
    right = cost(
        price,
        finish=late.finish,
        streamed=late.streamed,
        input_tokens=late.input_tokens,
        cached_tokens=cached,
        output_tokens=late.output_tokens,
        delivered=late.delivered_tokens,
    )
    differences = (
        late.input_tokens - late.had_input,
        cached - late.had_cached,
        late.output_tokens - late.had_output,
        right - late.had_cost,
    )
    if not any(differences):
        return None
    return Correction(
        event_id=f"{late.event_id}.{1 if late.partial else 2}",
        corrects=late.event_id,
        input_tokens=differences[0],
        cached_tokens=differences[1],
        output_tokens=differences[2],
        count_source="last_count" if late.partial else "journal",
        cost=differences[3],
    )
