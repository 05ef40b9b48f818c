"""Snapshots between stores: `push` and `pull`, each killed half-way and repeated goes on where it was. Step 9.

A URL is `s3://bucket/prefix` or a folder; the layout is the same, `<prefix>/sha256-…/`, with the manifest written last. A
pull trusts nothing but the digest: every chunk is checked as it arrives, fetched once more where it is wrong, and then
refused by name. Several who pull the same digest into one store fetch it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from snapshots.errors import StoreFull, TamperedError
from snapshots.flight import alone_async, together
from snapshots.manifest import MANIFEST, Manifest, SnapshotFile, folder_name, parse_manifest, read_manifest
from snapshots.partial import Chunk, Partial, chunks_of
from snapshots.store import disk
from snapshots.store.origin import PUSH, Origin, connect, folder_of

Progress = Callable[[int, int], None]  # bytes done, those of an earlier try included, and bytes in all

PARALLEL = 12  # chunks under way; each is CHUNK bytes of memory
TRIES = 2  # how often wrong bytes are fetched


async def digests_at(url: str) -> list[str]:
    """The snapshots a store holds whole, sorted. Raises OriginError."""
    async with connect(url) as origin:
        return await origin.digests()


async def push(store: Path, digest: str, url: str, progress: Progress | None = None) -> Manifest:
    """Copy a snapshot from `store` to the store at `url`; what is there already is not sent again.

    Raises NotStored, TamperedError where the store's copy is not whole, OriginError, StoreFull, OSError.
    """
    folder = disk.path_of(store, digest)
    if not url.startswith("s3://"):
        return await pull(str(store), digest, folder_of(url), progress)
    from snapshots.store.s3 import open_bucket
    from snapshots.store.s3_push import send

    manifest = await asyncio.to_thread(read_manifest, folder, digest)
    async with open_bucket(url) as bucket:
        await send(folder, manifest, bucket, progress)
    return manifest


async def pull(url: str, digest: str, store: Path, progress: Progress | None = None) -> Manifest:
    """Copy a snapshot from the store at `url` into `store`; one that is there already is not fetched.

    Raises NotStored, TamperedError where `url` holds other bytes, OriginError, StoreFull, OSError. After any of them but
    StoreFull, and after kill -9, what was good stays on disk for the next try.
    """
    there = store / folder_name(digest)
    if there.is_dir():
        return await asyncio.to_thread(read_manifest, there, digest)
    async with connect(url) as origin:
        return await pull_from(origin, digest, store, progress)


async def pull_from(origin: Origin, digest: str, store: Path, progress: Progress | None = None) -> Manifest:
    """`pull`, from an origin that is open."""
    name = folder_name(digest)
    store.mkdir(parents=True, exist_ok=True)
    async with alone_async(store / f"{disk.PULLED}{name}.lock"):
        if (store / name).is_dir():  # another pulled it while we waited
            return await asyncio.to_thread(read_manifest, store / name, digest)
        manifest = parse_manifest(await origin.manifest(digest), digest, f"{origin.name}/{name}/{MANIFEST}", PUSH)
        async with _partial(store, manifest) as partial:
            await _Pull(origin, digest, manifest, partial, progress).run()
            await asyncio.to_thread(partial.publish, store)
    return manifest


@asynccontextmanager
async def _partial(store: Path, manifest: Manifest) -> AsyncIterator[Partial]:
    """What an earlier try has left, or a new begin. A full disk leaves nothing. Raises StoreFull, OSError."""
    folder = store / (disk.PULLED + folder_name(manifest.digest))
    try:
        partial = await asyncio.to_thread(Partial, folder, manifest)
        try:
            left, room = sum(chunk.length for chunk in partial.missing()), partial.room()
            if left > room:
                raise StoreFull(disk.no_room(store, left, room))
            yield partial
        finally:
            partial.close()
    except StoreFull:
        await asyncio.to_thread(disk.remove_folder, folder)
        raise
    except OSError as error:
        if error.errno not in disk.FULL:
            raise
        await asyncio.to_thread(disk.remove_folder, folder)
        raise StoreFull(disk.no_room(store, manifest.size, disk.free(store))) from error


class _Pull:
    """One pull: workers take the next missing chunk each; who fetched the last one of a file checks the file."""

    def __init__(self, origin: Origin, digest: str, manifest: Manifest, partial: Partial, progress: Progress | None) -> None:
        self._origin, self._digest, self._partial, self._progress = origin, digest, partial, progress
        self._files, self._total = manifest.files, manifest.size
        missing = partial.missing()
        self._done = manifest.size - sum(chunk.length for chunk in missing)
        self._next = iter(missing)
        self._left = {file.path: 0 for file in manifest.files}
        for chunk in missing:
            self._left[chunk.file.path] += 1

    async def run(self) -> None:
        self._tell(0)
        there = [file for file in self._files if not self._left[file.path]]
        await together([self._whole_ones(there), *(self._work() for _ in range(PARALLEL))])

    async def _whole_ones(self, files: list[SnapshotFile]) -> None:
        for file in files:
            await self._check(file)

    async def _work(self) -> None:
        for chunk in self._next:
            await self._fetch(chunk)
            self._tell(chunk.length)
            self._left[chunk.file.path] -= 1
            if not self._left[chunk.file.path]:
                await self._check(chunk.file)

    async def _fetch(self, chunk: Chunk) -> None:
        for _ in range(TRIES):
            content = await self._origin.read(self._digest, chunk.file.path, chunk.begin, chunk.length)
            if await asyncio.to_thread(self._partial.write, chunk, content):
                return
        raise TamperedError(
            f"{self._origin.name}/{folder_name(self._digest)}/{chunk.file.path} has wrong bytes from {chunk.begin} to "
            f"{chunk.begin + chunk.length}, fetched {TRIES} times: {PUSH}"
        )

    async def _check(self, file: SnapshotFile) -> None:
        """Hash a whole file. Where its chunks were no help (an old manifest), one that is wrong is fetched once more."""
        if await asyncio.to_thread(self._partial.whole, file):
            return
        for chunk in chunks_of(file):
            await self._fetch(chunk)
        if not await asyncio.to_thread(self._partial.whole, file):
            raise TamperedError(
                f"{self._origin.name}/{folder_name(self._digest)}/{file.path} does not have the content its manifest says: {PUSH}"
            )

    def _tell(self, size: int) -> None:
        self._done += size
        if self._progress:
            self._progress(self._done, self._total)
