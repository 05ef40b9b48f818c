"""What the engine really produced, written down before the caller sees the last byte. Step 12.

One line a request in an append-only file: it survives kill -9 of every process of the replica. The agent ships the
lines to Postgres, where the ledger joins them with the router's records. The engine calls `opened` and `closed` for each
sequence it works on (a request with n > 1 has several), the gate `ended` when its HTTP exchange is over; the line is
written when both are true, or by `settle`, just before the last byte of a complete answer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from runtime.wire import UsageEntry

_ENGINE_ID = re.compile(r"^(?:[a-z]+-)?([0-9a-f]{32})(?:[-_]\d+)*$")


@dataclass
class Tally:
    open: int = 0  # sequences the engine still works on
    ended: bool = False  # the HTTP exchange is over
    written: bool = False
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    finish: str = ""


def request_of(engine_id: str) -> str:
    """The router's request id inside vLLM's: "cmpl-<id>-0" and "chatcmpl-<id>" both carry it."""
    match = _ENGINE_ID.match(engine_id)
    return match.group(1) if match else engine_id


class Journal:
    """One replica's usage journal. Single-threaded: called from the API process's event loop only."""

    def __init__(self, path: str, replica_id: str, grown: Callable[[], None]) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._replica_id, self._grown = replica_id, grown
        self._tallies: dict[str, Tally] = {}

    def opened(self, engine_id: str) -> None:
        self._tallies.setdefault(request_of(engine_id), Tally()).open += 1

    def closed(self, engine_id: str, *, input_tokens: int, cached_tokens: int, output_tokens: int, finish: str) -> None:
        """One sequence is over. Token counts as vLLM's own counters have them."""
        request_id = request_of(engine_id)
        tally = self._tallies.setdefault(request_id, Tally())
        tally.open -= 1
        tally.input_tokens += input_tokens
        tally.cached_tokens += cached_tokens
        tally.output_tokens += output_tokens
        tally.finish = finish
        if tally.ended and tally.open <= 0:
            self._close(request_id, tally)

    def settle(self, request_id: str) -> Tally:
        """The answer is complete: write the line now, before its last byte is sent, and return its counts."""
        tally = self._tallies.get(request_id) or Tally()
        if tally.open <= 0 and tally.finish and not tally.written:
            self._write(request_id, tally)
        return tally

    def ended(self, request_id: str) -> None:
        """The HTTP exchange is over, complete or not. What the engine still does for it is written when it stops."""
        tally = self._tallies.get(request_id)
        if tally is None:
            return
        tally.ended = True
        if tally.open <= 0:
            self._close(request_id, tally)

    def _close(self, request_id: str, tally: Tally) -> None:
        if not tally.written:
            self._write(request_id, tally)
        del self._tallies[request_id]

    def _write(self, request_id: str, tally: Tally) -> None:
        entry = UsageEntry(
            request_id=request_id,
            replica_id=self._replica_id,
            input_tokens=tally.input_tokens,
            cached_tokens=tally.cached_tokens,
            output_tokens=tally.output_tokens,
            finish=tally.finish,
        )
        os.write(self._fd, entry.model_dump_json().encode() + b"\n")
        tally.written = True
        self._grown()
