"""The KV cache's pages on CPU: anonymous memory, which the kernel zeroes when it is first touched. Step 8.

Fresh pages cost nothing until they are used. Once nothing in them is wanted any more they go back to the kernel, while
the tensors over them stay. Whoever touches them next finds zeros again. Nothing of it is shared with another process.
"""

from __future__ import annotations

import mmap


class Pages:
    """All such memory of one process."""

    def __init__(self) -> None:
        self._mappings: list[mmap.mmap] = []

    def allocate(self, size: int) -> mmap.mmap:
        """`size` bytes, zero. Raises OSError."""
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._mappings.append(mapping)
        return mapping

    def give_back(self) -> int:
        """Forget what is in them; returns the bytes. Raises OSError."""
        for mapping in self._mappings:
            mapping.madvise(mmap.MADV_DONTNEED)
        return sum(map(len, self._mappings))


kv_pages = Pages()
