"""Keeps requests without a price on disk until there is one: they hold up nobody, and are settled once they can be.

Step 12. Each is one line in `spool/unpriced.jsonl`, durable before its spool file may go. Three failures to survive. We
are killed: a request may then be both here and in the spool, and its row's key makes that harmless. A crash or a full
disk cuts a line in the middle. The next begins a line of its own, and one glued to it is still read. A line was changed
on the disk or cannot be read: its checksum tells, and it stays, for a person. Lines of a release before have no
checksum.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
from pydantic import ValidationError

from pilotlight.files import write_atomic
from pilotlight.frames import Frame
from pilotlight.sealed import is_intact, is_sealed, pieces, seal
from router.ledger.join import PendingUsage
from router.spool.record import EndRecord, OpenRecord
from runtime.wire import UsageEntry

START = b'{"open":'

log = structlog.get_logger()


class Kept(Frame):
    """One request, as it was ready to settle."""

    open: OpenRecord
    end: EndRecord | None = None
    engine: UsageEntry | None = None


class Shelf:
    """Synchronous; one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "unpriced.jsonl"
        self.count = 0  # of the requests in it; as far as it has been looked at

    @property
    def is_empty(self) -> bool:
        return not self._file.exists()

    def put(self, cases: Sequence[PendingUsage]) -> None:
        """Keep these, durably. Raises OSError."""
        with open(self._file, "a+b", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                file.write(b"\n")  # the last line is cut
            file.writelines(map(_line, cases))
            file.flush()
            os.fsync(file.fileno())
        self.count += len(cases)

    def read(self) -> tuple[list[PendingUsage], list[bytes]]:
        """What is kept, and lines that cannot be read. All stays on disk until `keep`."""
        cases, odd = list[PendingUsage](), list[bytes]()
        for line in self._file.read_bytes().split(b"\n") if self._file.exists() else ():
            for part, kept in _read(line) if line else ():
                if isinstance(kept, str):
                    log.error(
                        "a line of unpriced.jsonl cannot be read; it stays", action="ledger.unpriced", reason=kept
                    )
                    odd.append(part)
                else:
                    cases.append(
                        PendingUsage(
                            kept.open.event_id, "", open=kept.open, end=kept.end, engine=kept.engine, state="ready"
                        )
                    )
        self.count = len(cases)
        return cases, odd

    def keep(self, cases: Sequence[PendingUsage], odd: Sequence[bytes]) -> None:
        """These and no others. Raises OSError."""
        self.count = len(cases)
        if cases or odd:
            write_atomic(self._file, b"".join([*map(_line, cases), *(line + b"\n" for line in odd)]))
        else:
            self._file.unlink(missing_ok=True)


def _line(case: PendingUsage) -> bytes:
    assert case.open is not None
    return seal(Kept(open=case.open, end=case.end, engine=case.engine).model_dump_json().encode())


def _read(line: bytes) -> Iterator[tuple[bytes, Kept | str]]:
    """Whatever is in a line, one request as a rule: (its bytes, what they say or what is wrong with them)."""
    kept = _kept(line)
    parts = [line] if not isinstance(kept, str) else [part for _, part in pieces(line, START)]
    for part in parts:
        yield part, _kept(part)


def _kept(line: bytes) -> Kept | str:
    if is_sealed(line) and not is_intact(line):
        return "its checksum does not fit: it was changed after it was written"
    try:
        return Kept.model_validate_json(line, extra="ignore")
    except ValidationError as error:
        return f"no request: {error.errors(include_input=False, include_url=False)[0]['msg']}"
