"""Snapshots between stores: `push` and `pull`, each killed half-way and repeated goes on where it was. Step 9.

A URL is `s3://bucket/prefix` or a folder; the layout is the same, `<prefix>/sha256-…/`, with the manifest written last.
A pull trusts nothing but the digest. Every chunk is checked as it arrives, fetched once more where it is wrong, and
then refused by name. Several who pull the same digest into one store fetch it once. What an engine reads first comes
first, so that it can begin before the last byte is there: `Steps` says how far the pull is. What packing would have
refused is refused here too, names before anything is fetched, contents before anything is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from snapshots.arrival import FILES
from snapshots.chunks import Chunk, chunks_of
from snapshots.errors import PUSH, HeaderError, PackError, StoreFull, TamperedError
from snapshots.judging import judge_contents, judge_names, tables_within
from snapshots.manifest import CHUNK, MANIFEST, Manifest, SnapshotFile, folder_name, parse_manifest, read_manifest
from snapshots.partial import Partial, give_back
from snapshots.singleflight import alone_async, together
from snapshots.store import disk
from snapshots.store.origin import Origin, connect, folder_of, uncancelled

Progress = Callable[[int, int], None]  # bytes done, those of an earlier try included, and bytes in all
Room = Callable[
    [int], AbstractAsyncContextManager[None]
]  # room for so many bytes, kept while they are taken; raises StoreFull

PARALLEL = 12  # chunks under way
FIRST = 4  # of these, before what an engine needs to begin is there: on a slow way more would only delay it
TRIES = 2  # how often wrong bytes are fetched
WEIGHTS = ".safetensors"


def _nothing(_: Path) -> None:
    pass


async def _no_wait() -> None:
    pass


@dataclass(frozen=True)
class Steps:
    """How far a pull is, told from its event loop."""

    usable: Callable[[Path], None] = (
        _nothing  # in this partial folder, all but weights is there, and the begin of each file of these
    )
    verified: Callable[[], Awaitable[None]] = (
        _no_wait  # every byte is there and good; what is durable later waits for this
    )
    published: Callable[[Path], None] = _nothing  # it is in the store, in this folder; the partial one goes next


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


async def pull(url: str, digest: str, store: Path, progress: Progress | None = None, *, code: bool = False) -> Manifest:
    """Copy a snapshot from the store at `url` into `store`; one that is there already is not fetched. `code`: it may
    hold the model's own.

    Raises NotStored, TamperedError where `url` holds other bytes, OriginError, StoreFull, OSError. After any of them,
    and after kill -9, what was good stays on disk for the next try. Raises PackError and HeaderError for what could not
    have been packed.
    """
    there = store / folder_name(digest)
    if there.is_dir():
        return await asyncio.to_thread(read_manifest, there, digest)
    async with connect(url) as origin:
        return await pull_from(origin, digest, store, progress, code=code)


async def pull_from(
    origin: Origin,
    digest: str,
    store: Path,
    progress: Progress | None = None,
    steps: Steps = Steps(),
    room: Room | None = None,
    *,
    code: bool = False,
) -> Manifest:
    """`pull`, from an origin that is open. `room` is entered before bytes are taken from the disk, and left when they
    are.
    """
    name = folder_name(digest)
    store.mkdir(parents=True, exist_ok=True)
    async with alone_async(store / f"{disk.PULLED}{name}.lock"):
        if (store / name).is_dir():  # another pulled it while we waited
            return await asyncio.to_thread(read_manifest, store / name, digest)
        manifest = parse_manifest(await origin.manifest(digest), digest, f"{origin.name}/{name}/{MANIFEST}", PUSH)
        judge_names(manifest, code=code)
        folder = store / (disk.PULLED + name)

        texts: list[asyncio.Future[None]] = []  # looked at while the weights come, not when all wait for them

        async def usable() -> None:
            await asyncio.to_thread(judge_contents, folder / FILES, manifest, code=code, begun=True, twice=False)
            steps.usable(folder)
            texts.append(
                asyncio.ensure_future(
                    asyncio.to_thread(judge_contents, folder / FILES, manifest, code=code, twice=False)
                )
            )
            # of a pull that ends otherwise nobody asks
            texts[-1].add_done_callback(lambda done: done.cancelled() or done.exception())

        async with _partial(folder, manifest, room) as partial:
            try:
                await _Pull(origin, digest, manifest, partial, progress, usable).run()
                await asyncio.gather(*texts)
                await asyncio.to_thread(judge_contents, folder / FILES, manifest, code=code, begun=True)
            except (PackError, HeaderError):
                await asyncio.to_thread(partial.remove)
                raise
            partial.verified()
            await steps.verified()
            steps.published(await uncancelled(asyncio.to_thread(partial.publish, store)))
            await asyncio.to_thread(partial.remove)
    return manifest


@asynccontextmanager
async def _partial(folder: Path, manifest: Manifest, room: Room | None) -> AsyncIterator[Partial]:
    """What an earlier try has left, or a new begin. A full disk leaves what was good, and takes no more. Raises
    StoreFull, OSError.
    """
    store = folder.parent
    try:
        partial = await asyncio.to_thread(Partial, folder, manifest)
        try:
            lacks = await asyncio.to_thread(partial.lacks)
            async with room(lacks) if room is not None else nullcontext():
                if lacks > (left := partial.room()):
                    raise StoreFull(disk.no_room(store, lacks, left))
                await uncancelled(asyncio.to_thread(partial.allocate))
            yield partial
        finally:
            partial.close()
    except StoreFull:
        await asyncio.to_thread(give_back, folder, manifest)
        raise
    except OSError as error:
        if error.errno not in disk.FULL:
            raise
        await asyncio.to_thread(give_back, folder, manifest)
        raise StoreFull(disk.no_room(store, manifest.size, disk.free(store))) from error


def in_order(chunks: list[Chunk]) -> tuple[list[Chunk], list[Chunk]]:
    """What an engine needs to begin, and the rest: files that are no weights, and the begin of weights, where their
    table is, first.
    """
    early = [chunk for chunk in chunks if chunk.number == 0 or not chunk.file.path.endswith(WEIGHTS)]
    early.sort(key=lambda chunk: chunk.file.path.endswith(WEIGHTS))
    return early, [chunk for chunk in chunks if not (chunk.number == 0 or not chunk.file.path.endswith(WEIGHTS))]


class _Pull:
    """One pull: workers take the next missing chunk each; who fetched the last one of a file checks the file."""

    def __init__(
        self,
        origin: Origin,
        digest: str,
        manifest: Manifest,
        partial: Partial,
        progress: Progress | None,
        usable: Callable[[], Awaitable[None]],
    ) -> None:
        self._origin = origin
        self._digest = digest
        self._partial = partial
        self._progress = progress
        self._usable = usable
        self._manifest = manifest
        self._files = manifest.files
        self._total = manifest.size
        missing = partial.missing()
        self._done = manifest.size - sum(chunk.length for chunk in missing)
        early, late = in_order(missing)
        # Of a manifest without chunks a large file is good only once all of it is there: nothing begins before that.
        self._checked_at_the_end = any(file.size > CHUNK and not file.chunks for file in manifest.files)
        self._early = {chunk.key for chunk in early}
        self._begun = asyncio.Event()
        self._next = iter(early + late)
        self._left = {file.path: 0 for file in manifest.files}
        for chunk in missing:
            self._left[chunk.file.path] += 1

    async def run(self) -> None:
        self._tell(0)
        there = [file for file in self._files if not self._left[file.path]]
        if not self._early:
            await self._begin()
        await together([self._complete_files(there), *(self._work(number) for number in range(PARALLEL))])
        if self._checked_at_the_end:
            await self._usable()

    async def _begin(self) -> None:
        """What an engine needs to begin is there, where no table of weights is longer than a chunk."""
        if not self._checked_at_the_end:
            self._checked_at_the_end = not await asyncio.to_thread(
                tables_within, self._partial.files, self._manifest, CHUNK
            )
        if not self._checked_at_the_end:
            await self._usable()
        self._begun.set()

    async def _complete_files(self, files: list[SnapshotFile]) -> None:
        for file in files:
            await self._check(file)

    async def _work(self, number: int) -> None:
        if number >= FIRST:
            await self._begun.wait()
        for chunk in self._next:
            await self._fetch(chunk)
            self._tell(chunk.length)
            self._left[chunk.file.path] -= 1
            if not self._left[chunk.file.path]:
                await self._check(chunk.file)
            if chunk.key in self._early:
                self._early.discard(chunk.key)
                if not self._early:
                    await self._begin()

    async def _fetch(self, chunk: Chunk) -> None:
        view = self._partial.view(chunk)
        for _ in range(TRIES):
            length = await self._origin.fill(self._digest, chunk.file.path, chunk.begin, view)
            if await uncancelled(asyncio.to_thread(self._partial.keep, chunk, length)):
                return
        raise TamperedError(
            f"{self._origin.name}/{folder_name(self._digest)}/{chunk.file.path} has wrong bytes from {chunk.begin} to "
            f"{chunk.begin + chunk.length}, fetched {TRIES} times: {PUSH}"
        )

    async def _check(self, file: SnapshotFile) -> None:
        """Hash a whole file. Where its chunks were no help (an old manifest), one that is wrong is fetched once
        more.
        """
        if await asyncio.to_thread(self._partial.is_good, file):
            return
        for chunk in chunks_of(file):
            await self._fetch(chunk)
        if not await asyncio.to_thread(self._partial.is_good, file):
            raise TamperedError(
                f"{self._origin.name}/{folder_name(self._digest)}/{file.path} does not have the content its manifest says: {PUSH}"
            )

    def _tell(self, size: int) -> None:
        self._done += size
        if self._progress:
            self._progress(self._done, self._total)
