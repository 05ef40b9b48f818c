"""From a Hugging Face folder to an immutable snapshot: `pack(folder, store)`. What serves is only ever a snapshot.

Every byte is hashed as it is copied, and what is checked are the copies: the folder may change meanwhile. Packing the
same model again, on any machine, gives the same digest and writes nothing. `store/disk.py` says what a kill or a full
disk must leave.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from snapshots.errors import PackError, SnapshotError
from snapshots.facts import find_facts
from snapshots.manifest import CHUNK, MANIFEST, Manifest, SnapshotFile, read_manifest
from snapshots.model_folder import Source, look
from snapshots.store.disk import building, digests, path_of, publish

Progress = Callable[[int, int], None]  # bytes done, bytes in all

THREADS = 4  # hashing and copying release the interpreter lock


def _nothing(_: str) -> None:
    pass


def pack(
    folder: Path,
    store: Path,
    progress: Progress | None = None,
    *,
    tell: Callable[[str], None] = _nothing,
    code: bool = False,
) -> Manifest:
    """Put a model into the store and return its manifest (`.digest`); one that is there already is only read.

    `tell` hears what is left out, and what the model lacks. `code`: its own Python files are taken, and may be asked
    for. What the folder holds is judged before anything is copied, and what was copied once more. Raises SnapshotError
    (see `errors.py`), OSError.
    """
    found = look(folder, code=code)
    files = list(found.sources)
    for line in (*found.left_out, *find_facts(found.root, [source.path for source in files], code=code).notes):
        tell(line)
    known = _of_same_sizes(store, files)
    if known is not None and [file.sha256 for file in _each(files, None, progress)] == [
        file.sha256 for file in known.files
    ]:
        return known
    with building(store, sum(source.size for source in files)) as work:
        manifest = _manifest(work, _each(files, work, progress), code=code)
        with (work / MANIFEST).open("wb") as stream:
            stream.write(manifest.canonical())
            stream.flush()
            os.fsync(stream.fileno())
        publish(work, store, manifest.digest)
    return manifest


def manifest_of(folder: Path, *, code: bool = False) -> Manifest:
    """What packing would give, without writing a byte; reads all of it. Raises SnapshotError, OSError."""
    found = look(folder, code=code)
    return _manifest(found.root, _each(list(found.sources), None, None, chunked=True), code=code)


def _manifest(folder: Path, files: list[SnapshotFile], *, code: bool) -> Manifest:
    facts = find_facts(folder, [file.path for file in files], code=code)
    return Manifest(
        architecture=facts.architecture,
        dtype=facts.dtype,
        tensors=facts.tensors,
        tensor_bytes=facts.tensor_bytes,
        files=tuple(files),
    )


def _of_same_sizes(store: Path, files: list[Source]) -> Manifest | None:
    """A stored snapshot that may be of these very files: only then is it worth hashing before copying."""
    for digest in digests(store):
        with contextlib.suppress(SnapshotError, OSError):
            manifest = read_manifest(path_of(store, digest), digest)
            if [(file.path, file.size) for file in manifest.files] == [(source.path, source.size) for source in files]:
                return manifest
    return None


def _each(
    files: list[Source], work: Path | None, progress: Progress | None, *, chunked: bool = False
) -> list[SnapshotFile]:
    """Hash the files, copying them below `work` where given. `chunked`: their chunks, too, as those of a copy always
    are.
    """
    total, done, lock = sum(source.size for source in files), 0, threading.Lock()

    def count(size: int) -> None:
        nonlocal done
        with lock:
            done += size
            if progress:
                progress(done, total)

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(lambda source: _one(source, work, count, chunked=chunked), files))


def _one(source: Source, work: Path | None, count: Callable[[int], None], *, chunked: bool) -> SnapshotFile:
    file, said = _copied(source, work, count, chunked=chunked), source.sha256()
    if said not in (None, file.sha256):
        raise PackError(
            f"{source.path} is not what the hub cache says it is: remove {said} from its blobs, and download the model again"
        )
    return file


def _copied(source: Source, work: Path | None, count: Callable[[int], None], *, chunked: bool) -> SnapshotFile:
    with source.open() as stream:
        if work is None:
            return _transfer(source.path, stream.fileno(), None, count, chunked=chunked)
        target = work / source.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb", buffering=0) as copy:
            file = _transfer(source.path, stream.fileno(), copy.fileno(), count, chunked=True)
            os.fsync(copy.fileno())
            return file


def _transfer(
    path: str, source: int, target: int | None, count: Callable[[int], None], *, chunked: bool
) -> SnapshotFile:
    digest, chunks, size, buffer = hashlib.sha256(), list[str](), 0, memoryview(bytearray(CHUNK))
    while length := _fill(source, buffer):
        digest.update(buffer[:length])
        if chunked:
            chunks.append(hashlib.sha256(buffer[:length]).hexdigest())
        if target is not None:
            written = 0
            while written < length:
                written += os.write(target, buffer[written:length])
        size += length
        count(length)
    return SnapshotFile(path=path, size=size, sha256=digest.hexdigest(), chunks=tuple(chunks) if size > CHUNK else ())


def _fill(source: int, buffer: memoryview) -> int:
    """Read until the buffer is full or the file at its end; how much there is."""
    length = 0
    while length < len(buffer) and (more := os.readv(source, [buffer[length:]])):
        length += more
    return length
