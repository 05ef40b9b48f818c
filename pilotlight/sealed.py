"""Lines that show damage: a JSON object whose last field, `crc`, is a checksum of the bytes before it.

Step 12: records that money hangs on are kept in append-only files, the router's spool and the replicas' journals. The
failures to survive: a torn write, a bit that flipped on the disk, and a line of an older release, without a checksum. A
crash or a full disk tears a write, and the next line is then glued to it. A sealed line is still one JSON object, so a
tolerant reader that knows nothing of seals reads it, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

MARK = b',"crc":"'
# bytes a seal adds, before the closing brace is taken off: eight hex digits, a quote, a brace
LENGTH = len(MARK) + 8 + 2


class Damaged(ValueError):
    """The line is not what was written; the text says how that is known."""


def seal(line: bytes) -> bytes:
    """A JSON object, with at least one field and no newline, sealed and with its newline."""
    return sealed(line[:-1])


def sealed(body: bytes) -> bytes:
    """The same of one that has no closing brace yet."""
    return b'%b,"crc":"%08x"}\n' % (body, crc32(body))


def is_sealed(line: bytes) -> bool:
    """Has it a seal, good or broken? `line` without its newline."""
    return line[-LENGTH:-10] == MARK


def is_intact(line: bytes) -> bool:
    """Has it a seal that fits? `line` without its newline."""
    return line[-LENGTH:] == b',"crc":"%08x"}' % crc32(line[:-LENGTH])


def pieces(line: bytes, start: bytes) -> Iterator[tuple[int, bytes]]:
    """What may be in a line that is damaged: (offset, bytes) of each part that begins as lines do.

    A line torn before its newline has the next one glued to it; the one behind is whole, and so may be the one before.
    """
    begin = 0
    while (following := line.find(start, begin + 1)) >= 0:
        yield begin, line[begin:following]
        begin = following
    yield begin, line[begin:]
