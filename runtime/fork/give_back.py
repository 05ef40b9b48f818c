"""A standby's memory given back before it takes orders: what the rehearsal touched and no fork needs. Step 8.

Reading a library maps its pages into the process. The page cache keeps them whether or not a standby does, and a fork
faults them again instead of inheriting such mappings. So clean pages of files are unmapped once after the rehearsal,
and the allocator's free memory goes back to the kernel. That is about 200 MB of PSS on vLLM's CPU build, in under 0.1
s.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

MADV_DONTNEED = 4
_HEAD = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ +(/.*)$")


def clean_file_ranges(smaps: str) -> list[tuple[int, int]]:
    """(address, bytes) of every mapping of a file that is not writable and has no page of its own: those alone may be
    dropped.
    """
    ranges: list[tuple[int, int]] = []
    candidate: tuple[int, int] | None = None
    for line in smaps.splitlines():
        if "-" in line.split(" ", 1)[0]:
            head = _HEAD.match(line)
            candidate = None
            if head and "w" not in head[3]:
                begin, end = int(head[1], 16), int(head[2], 16)
                candidate = (begin, end - begin)
        elif candidate and line.startswith("Anonymous:"):
            if int(line.split()[1]) == 0:
                ranges.append(candidate)
            candidate = None
    return ranges


def give_back() -> int:
    """Unmap clean file pages and trim the heap; returns the bytes of the ranges dropped. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.malloc_trim(0)
    ranges = clean_file_ranges(Path("/proc/self/smaps").read_text())
    for begin, size in ranges:
        if libc.madvise(begin, size, MADV_DONTNEED):
            raise OSError(ctypes.get_errno(), f"madvise of {size} bytes at {begin:#x}")
    return sum(size for _, size in ranges)


def private_bytes() -> int:
    """Private memory of this process, in bytes (Private_Clean + Private_Dirty)."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Private_"))
