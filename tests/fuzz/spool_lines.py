"""What the ledger reads of a disk: a spool file of a worker, torn, flipped or glued together in any way.

Every line is either a record or kept aside with the reason, and no record has a count below zero.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pilotlight.sealed import seal
from router.ledger.tail import Tail, is_sound
from router.spool.record import EndRecord, OpenRecord

OPEN = b'{"kind":"open","event_id":"e1","org_id":"o","key_id":"k","endpoint_id":"ep","endpoint":"n","path":"/v1/completions","streamed":false,"at":1.0}'

SEEDS = (
    seal(OPEN) + seal(OPEN.replace(b"e1", b"e2")),
    OPEN + b"\n",
    seal(OPEN)[:-20] + seal(OPEN),
    b'{"kind":"end","event_id":"e1","input_tokens":-1}\n{"kind":"later"}\n\n',
)

_kept = tempfile.TemporaryDirectory(prefix="fuzz-spool-", dir="/dev/shm")  # to the end of the process
_folder = Path(_kept.name)
_name = "0123456789abcdef.1.jsonl"


def target(data: bytes) -> None:
    (_folder / _name).write_bytes(data)
    tail = Tail(_folder)
    for file in tail.scan():
        more = True
        lines = 0
        while more:
            chunk = tail.read(file)
            more = chunk.more
            lines += len(chunk.records) + len(chunk.rejected)
            for record in chunk.records:
                if not isinstance(record, OpenRecord | EndRecord) or not is_sound(record):
                    raise AssertionError(f"no record: {record!r}")
        if lines < data.count(b"\n"):
            raise AssertionError("a line was passed over")
