"""What the router workers of one machine have together: how many requests they hold, and how many bytes. Steps 1 and 5.

A bound is the machine's, however many workers there are, so each must know what the others have. With several, their
parent makes a piece of memory. Each worker writes its own row there and reads all: there is nothing to lock. Whoever
takes something says so first and then adds up. So two that take the last place at once may both be refused, and never
both be let in. The failure to survive is a worker's kill -9: its parent, which alone outlives it, clears its row.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from typing import Protocol

MOST_ENDPOINTS = 1 << 16  # that one worker holds requests of at once; memory is taken for those in use only
_HELD, _UPLOADING, _USED, _HEAD = 0, 1, 2, 4  # cells of a row's head: bytes held, bytes coming in, entries in use
_ROW = 8 * (_HEAD + 2 * MOST_ENDPOINTS)  # bytes; an entry is a cell for the endpoint and one for its count


class Machine(Protocol):
    """Each takes what this worker has now, and returns what all workers of the machine have; of bytes, beyond each
    worker's own part.
    """

    workers: int

    def held(self, endpoint_id: str, count: int) -> int: ...

    def held_bytes(self, size: int) -> int: ...

    def uploading(self, size: int) -> int: ...


class Alone:
    """The only worker there is."""

    workers = 1

    def held(self, endpoint_id: str, count: int) -> int:
        return count

    def held_bytes(self, size: int) -> int:
        return size

    def uploading(self, size: int) -> int:
        return size


class Memory:
    """What the parent makes, and its workers open by its descriptor."""

    def __init__(self, descriptor: int, workers: int) -> None:
        self.descriptor, self.workers = descriptor, workers
        self.bytes = mmap.mmap(descriptor, workers * _ROW)
        self.cells = memoryview(self.bytes).cast("Q")

    @classmethod
    def make(cls, workers: int) -> Memory:
        descriptor = os.memfd_create("pilotlight-router-workers")
        os.ftruncate(descriptor, workers * _ROW)
        return cls(descriptor, workers)

    def clear(self, worker: int) -> None:
        """This worker is gone, and with it all it had."""
        first = worker * _ROW // 8
        for cell in range(first, first + _HEAD + 2 * self.cells[first + _USED]):
            self.cells[cell] = 0


class Together:
    """One of several workers."""

    def __init__(self, memory: Memory, worker: int) -> None:
        self._memory, self._cells = memory, memory.cells
        self.workers = memory.workers
        self._first = worker * _ROW // 8
        self._rows = [row * _ROW // 8 for row in range(memory.workers)]
        self._entries: dict[str, int] = {}  # endpoint → the cell of its count

    def held(self, endpoint_id: str, count: int) -> int:
        """A number beyond all bounds where there is no room to write it down."""
        cell = self._entries.get(endpoint_id) or self._enter(endpoint_id)
        if cell is None:
            return 1 << 62
        self._cells[cell] = count
        name = self._cells[cell - 1]
        return count + sum(self._of(row, name) for row in self._rows if row != self._first)

    def held_bytes(self, size: int) -> int:
        return self._sum(_HELD, size)

    def uploading(self, size: int) -> int:
        return self._sum(_UPLOADING, size)

    def _sum(self, cell: int, size: int) -> int:
        self._cells[self._first + cell] = size
        return sum([self._cells[row + cell] for row in self._rows])

    def _enter(self, endpoint_id: str) -> int | None:
        """A new entry, or, where there are no more, that of an endpoint nothing waits for."""
        used = self._cells[self._first + _USED]
        cell = self._first + _HEAD + 2 * used + 1
        if used == MOST_ENDPOINTS:
            idle = next((name for name, cell in self._entries.items() if not self._cells[cell]), None)
            if idle is None:
                return None
            cell = self._entries.pop(idle)
        self._entries[endpoint_id] = cell
        self._cells[cell] = 0
        self._cells[cell - 1] = _name(endpoint_id)
        self._cells[self._first + _USED] = max(used, (cell - self._first - _HEAD) // 2 + 1)
        return cell

    def _of(self, row: int, name: int) -> int:
        """What the worker of this row has of the endpoint."""
        begin, used = 8 * (row + _HEAD), self._cells[row + _USED]
        place, end = name.to_bytes(8, "little"), begin + 16 * used
        found = self._memory.bytes.find(place, begin, end)
        while found >= 0 and (found - begin) % 16:
            found = self._memory.bytes.find(place, found + 1, end)
        return self._cells[found // 8 + 1] if found >= 0 else 0


def _name(endpoint_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(endpoint_id.encode(), digest_size=8).digest(), "little")
