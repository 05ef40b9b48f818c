"""How far the engine core has read a prompt: the count for a caller who left before the first token. Step 12.

The API process hears of a prompt only once all of it is read. So the engine core, its fork, notes the parts in memory
that both share, after each step that reads one. Nobody waits for it, and nothing is sent. Two prompts in one place (one
in thousands) cost one of them its note: then nothing is counted, as before.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from runtime.engine import seams

PLACES = 4096
_NOTE = struct.Struct("<QII")  # of whom, tokens read, tokens of them found in the cache


class Reading:
    """Shared with every process forked after it was made."""

    def __init__(self) -> None:
        self._notes = mmap.mmap(-1, PLACES * _NOTE.size)

    def note(self, sequence_id: str, read: int, cached: int) -> None:
        whose, place = _place(sequence_id)
        _NOTE.pack_into(self._notes, place, whose, read, cached)

    def of(self, sequence_id: str) -> tuple[int, int]:
        """Tokens read, and how many of them were found in the cache."""
        whose, place = _place(sequence_id)
        found, read, cached = _NOTE.unpack_from(self._notes, place)
        return (read, cached) if found == whose else (0, 0)


def _place(sequence_id: str) -> tuple[int, int]:
    whose = int.from_bytes(blake2b(sequence_id.encode(), digest_size=8).digest(), "little")
    return whose, whose % PLACES * _NOTE.size


def note_what_is_read(reading: Reading) -> None:
    """Before the engine core is forked."""

    def noting(original: Callable[..., Any]) -> Callable[..., Any]:
        def schedule(self: Any, *args: Any, **kwargs: Any) -> Any:
            step = original(self, *args, **kwargs)
            for sequence_id, tokens in step.num_scheduled_tokens.items():
                if tokens > 1:  # else it answers
                    _note(reading, self.requests.get(sequence_id))
            return step

        return schedule

    seams.replace("schedule", noting)


def _note(reading: Reading, request: Any) -> None:
    if request is not None and request.num_computed_tokens < request.num_prompt_tokens:
        stats = request.prefill_stats
        reading.note(request.request_id, request.num_computed_tokens, stats.num_cached_tokens if stats else 0)
