"""A fake of a snapshot store: a folder that counts what is read, and lies, dies or waits as told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from snapshots.errors import Unreachable
from snapshots.store.origin import Folder


class FakeOrigin(Folder):
    """A folder that counts what is read from it, and lies, dies or waits as told."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads: Counter[tuple[str, int]] = Counter()
        self.lies: Counter[tuple[str, int]] = Counter()  # how often a chunk is answered wrongly
        self.dies_after = 1_000_000

    async def fill(self, digest: str, path: str, begin: int, into: memoryview) -> int:
        length = await super().fill(digest, path, begin, into)
        if self.reads.total() >= self.dies_after:
            raise Unreachable("gone")
        self.reads[path, begin] += 1
        if self.lies[path, begin] > 0:
            self.lies[path, begin] -= 1
            into[0] ^= 1
        return length
