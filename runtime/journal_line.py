"""One line of a replica's usage journal, as the replica writes it, or its agent after it was killed. Step 12.

Lines are sealed (`pilotlight/sealed.py`). The failures to survive: a torn or flipped line is named and never believed,
and the line behind it is still read. Lines of the release before have no checksum.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from pilotlight.sealed import Damaged, is_intact, is_sealed, pieces, seal
from runtime.wire import UsageEntry

START = b'{"request_id":'


def encode(entry: UsageEntry) -> bytes:
    """The line, with its newline."""
    return seal(entry.model_dump_json().encode())


def decode(line: bytes) -> UsageEntry:
    """The entry of one line, with or without its newline. Raises Damaged, a ValueError that says what is wrong."""
    line = line.rstrip(b"\n")
    if is_sealed(line) and not is_intact(line):
        raise Damaged("its checksum does not fit: it was changed after it was written")
    try:
        return UsageEntry.model_validate_json(line, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Damaged(
            f"it is not an entry of a usage journal: {'.'.join(map(str, first['loc']))} {first['msg']}".rstrip()
        ) from None


def recover(line: bytes) -> Iterator[tuple[int, UsageEntry | Damaged]]:
    """Whatever is in a line, one entry as a rule: (offset in it, the entry or what is wrong there)."""
    try:
        yield 0, decode(line)
    except Damaged as error:
        parts = list(pieces(line, START))
        if len(parts) == 1:
            yield 0, error
            return
        for offset, part in parts:
            try:
                yield offset, decode(part)
            except Damaged as damage:
                yield offset, damage
