"""Where a snapshot can be pulled from: what every such store can do, and the one that is a folder. Step 9.

Nothing an origin says is believed: every byte that is read from it is checked against the digest.
"""

from __future__ import annotations

import asyncio
import io
import os
import stat
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from snapshots.errors import PUSH, NoBucket, NotStored, OriginError, TamperedError
from snapshots.manifest import LARGEST_MANIFEST, MANIFEST, folder_name
from snapshots.store import disk

T = TypeVar("T")


class Origin(Protocol):
    """What every store can do that snapshots are pulled from."""

    name: str  # as errors call it

    async def ready(self) -> None:
        """Do now what the first request would have to do: find credentials. Asks the store nothing. Raises
        OriginError.
        """
        ...

    async def digests(self) -> list[str]:
        """What is stored there, whole, sorted. Raises OriginError."""
        ...

    async def manifest(self, digest: str) -> bytes:
        """What is there as the manifest of `digest`. Raises NotStored, OriginError."""
        ...

    async def fill(self, digest: str, path: str, begin: int, into: memoryview) -> int:
        """Read a part of one file into memory; how many bytes came, fewer where it ends early.

        Cancelled, it writes no more once it has returned. Raises TamperedError where there is no such file,
        OriginError.
        """
        ...


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Origin]:
    """The store at `s3://bucket/prefix` or in a folder. Raises OriginError."""
    if url.startswith("s3://"):
        from snapshots.store.s3 import open_bucket  # a node that never pulls need not hold an S3 client in memory

        async with open_bucket(url) as bucket:
            yield bucket
    else:
        yield Folder(folder_of(url))


def folder_of(url: str) -> Path:
    """The folder a URL without scheme means. Raises OriginError."""
    if not url or "://" in url.removeprefix("file://"):
        raise OriginError(f"{url!r} is not a store: write s3://BUCKET/PREFIX or the path of a folder")
    return Path(url.removeprefix("file://"))


class Folder:
    """A directory store (`disk.py`), here or on a mounted disk."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.name = folder, str(folder)

    async def ready(self) -> None:
        self._check()

    async def digests(self) -> list[str]:
        self._check()
        return await asyncio.to_thread(disk.digests, self._folder)

    async def manifest(self, digest: str) -> bytes:
        self._check()
        try:
            return await asyncio.to_thread(_read, self._folder / folder_name(digest) / MANIFEST)
        except FileNotFoundError:
            raise NotStored(
                f"snapshot {digest} is not in {self.name}: push it there first (`pilotlight snapshot push`)"
            ) from None

    async def fill(self, digest: str, path: str, begin: int, into: memoryview) -> int:
        return await uncancelled(asyncio.to_thread(_fill, self._folder / folder_name(digest) / path, begin, into))

    def _check(self) -> None:
        if not self._folder.is_dir():
            raise NoBucket(f"{self.name} is not a folder: give the folder of a store, or s3://BUCKET/PREFIX")


def _open(file: Path) -> io.FileIO:
    """A plain file, and nothing that would keep a reader waiting for ever: a pipe, a device. Raises TamperedError,
    OSError.
    """
    stream = io.FileIO(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), closefd=True)
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    raise TamperedError(f"{file} is not a plain file: {PUSH}")


def _read(file: Path) -> bytes:
    with _open(file) as stream:
        return stream.read(LARGEST_MANIFEST + 1)


def _fill(file: Path, begin: int, into: memoryview) -> int:
    try:
        with _open(file) as stream:
            length = 0
            while length < len(into) and (more := os.preadv(stream.fileno(), [into[length:]], begin + length)):
                length += more
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise TamperedError(f"{file} is missing: {PUSH}") from None
    return length


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """Await work that goes on in a thread whatever becomes of who waits: cancelled, return only when it has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
