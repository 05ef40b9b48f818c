"""What a replica's journal has on disk, a line at a time: an entry, or the reason why it is none; torn ones give what
is whole in them.
"""

from __future__ import annotations

from pilotlight.sealed import Damaged, is_intact, is_sealed, seal
from runtime.journal_line import recover

ENTRY = b'{"request_id":"01a21b4f8c30751baf68910292d7a728","input_tokens":5,"cached_tokens":2,"output_tokens":3,"finish":"stop"}'

SEEDS = (
    seal(ENTRY).rstrip(b"\n"),
    ENTRY,
    seal(ENTRY)[:60] + seal(ENTRY).rstrip(b"\n"),
    b'{"request_id":' * 5,
)


def target(data: bytes) -> None:
    line = data.replace(b"\n", b"")
    found = list(recover(line))
    if not found:
        raise AssertionError("a line was passed over")
    for offset, said in found:
        if not 0 <= offset <= len(line):
            raise AssertionError(f"at {offset} of {len(line)} bytes")
        if not isinstance(said, Damaged) and is_sealed(line) and len(found) == 1 and not is_intact(line):
            raise AssertionError("a broken seal was believed")
