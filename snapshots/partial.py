"""A snapshot half fetched: which chunks are on disk and good, so that none of them is fetched twice. Step 9.

    .pull-sha256-…/files/…     the files, their space taken from the disk before the first byte comes
    .pull-sha256-…/journal     a line a chunk, written after it: number of the file, number of the chunk, SHA-256
    .pull-sha256-…/arrival     the same for processes that read along (`arrival.py`)

Bytes go straight into the mapped files; that their space is taken first makes a full disk an error, not a signal. It
must survive kill -9 and power loss at any moment. What the journal claims is hashed again before it is believed, so
that a chunk whose bytes never reached the disk is fetched again. A line cut short does not count.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pilotlight.files import populate, write_atomic
from snapshots.arrival import FILES, Writer
from snapshots.chunks import Chunk, chunks_of
from snapshots.manifest import MANIFEST, Manifest, SnapshotFile
from snapshots.store.disk import free, publish, remove_folder

THREADS = 4  # hashing releases the interpreter lock
_LINE = re.compile(r"(\d{1,9}) (\d{1,9}) ([0-9a-f]{64})", re.ASCII)


def give_back(folder: Path, manifest: Manifest) -> None:
    """Give the disk back what no chunk that is claimed to be good needs, as far as it lies at the files' ends; without
    a claim, all.

    For a disk that is full: also for what could not even be opened as a `Partial`. Raises OSError.
    """
    chunks = [chunks_of(file) for file in manifest.files]
    ends: dict[str, int] = {}
    for chunk, _ in _claims(folder, chunks):
        ends[chunk.file.path] = max(ends.get(chunk.file.path, 0), chunk.begin + chunk.length)
    if not ends:
        remove_folder(folder)
        return
    for file in manifest.files:
        path, end = folder / FILES / file.path, ends.get(file.path, 0)
        if end < file.size and path.exists():
            with path.open("r+b") as stream:
                stream.truncate(end)
                stream.truncate(file.size)


class Partial:
    """The files of one snapshot on their way into the store. Methods may run in any thread; raises OSError
    everywhere.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder
        self.files = folder / FILES
        self._manifest = manifest
        self._numbers = {file.path: number for number, file in enumerate(manifest.files)}
        self._chunks = {file.path: chunks_of(file) for file in manifest.files}
        self._maps: dict[str, mmap.mmap] = {}
        self._lock = threading.Lock()
        self.files.mkdir(parents=True, exist_ok=True)
        for file in manifest.files:
            path = self._path(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                path.chmod(0o600)  # killed while it was published
            with path.open("ab") as stream:
                stream.truncate(file.size)
        self._good = self._believed()
        self._arrival = Writer(folder, manifest)
        for file in manifest.files:
            for chunk in self._chunks[file.path]:
                self._tell(chunk)
        self._journal = (folder / "journal").open("ab", buffering=0)

    def close(self) -> None:
        self._arrival.close()
        self._journal.close()

    def room(self) -> int:
        """Bytes the disk can still take."""
        return free(self._folder)

    def lacks(self) -> int:
        """Bytes that are still to be taken from the disk."""
        return sum(max(0, file.size - self._path(file).stat().st_blocks * 512) for file in self._manifest.files)

    def allocate(self) -> None:
        """Take all the space there will be need of."""
        for file in self._manifest.files:
            if file.size:
                with self._path(file).open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, file.size)

    def missing(self) -> list[Chunk]:
        return [chunk for chunks in self._chunks.values() for chunk in chunks if chunk.key not in self._good]

    def view(self, chunk: Chunk) -> memoryview:
        """Where the bytes of a chunk are to be written, before `keep`."""
        with self._lock:
            mapped = self._maps.get(chunk.file.path)
            if mapped is None:
                with self._path(chunk.file).open("r+b") as stream:
                    mapped = self._maps[chunk.file.path] = mmap.mmap(stream.fileno(), chunk.file.size)
        populate(mapped, chunk.begin, chunk.length)
        return memoryview(mapped)[chunk.begin : chunk.begin + chunk.length]

    def keep(self, chunk: Chunk, length: int) -> bool:
        """Keep a chunk of which `length` bytes came, if it is what the manifest says.

        Where the manifest does not say it of chunks, `is_good` will tell.
        """
        content = memoryview(self._maps[chunk.file.path])[chunk.begin : chunk.begin + chunk.length]
        digest = hashlib.sha256(content).hexdigest()
        if length != chunk.length or chunk.sha256 not in (None, digest):
            return False
        self._journal.write(f"{self._numbers[chunk.file.path]} {chunk.number} {digest}\n".encode())
        self._good.add(chunk.key)
        self._tell(chunk)
        return True

    def is_good(self, file: SnapshotFile) -> bool:
        """Is a file, all of whose chunks are there, what the manifest says?

        Where the manifest knows chunks, each was checked as it came, and hashing all of it again would tell nothing
        new.
        """
        chunks = self._chunks[file.path]
        if chunks and chunks[0].sha256 is not None:
            return True
        with self._path(file).open("rb", buffering=0) as stream:
            good = hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256
        for chunk in chunks:
            if good:
                self._arrival.good(*chunk.key)
            else:
                self._good.discard(chunk.key)
        return good

    def verified(self) -> None:
        """All files are whole."""
        self._arrival.complete()

    def publish(self, store: Path) -> Path:
        """Make what is verified durable, and let it appear in the store. Until `remove` the files have two names
        each.
        """
        for file in self._manifest.files:
            with self._path(file).open("rb") as stream:
                os.fsync(stream.fileno())
        out = self._folder / "out"
        remove_folder(out)  # killed while it was published
        for file in self._manifest.files:
            target = out / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(self._path(file), target)
        write_atomic(out / MANIFEST, self._manifest.canonical())
        return publish(out, store, self._manifest.digest)

    def remove(self) -> None:
        self.close()
        remove_folder(self._folder)

    def _tell(self, chunk: Chunk) -> None:
        if chunk.sha256 is not None and chunk.key in self._good:
            self._arrival.good(*chunk.key)

    def _path(self, file: SnapshotFile) -> Path:
        return self.files / file.path

    def _believed(self) -> set[tuple[str, int]]:
        claims = [
            (chunk, digest)
            for chunk, digest in _claims(self._folder, list(self._chunks.values()))
            if chunk.sha256 in (None, digest)
        ]
        with ThreadPoolExecutor(THREADS) as threads:
            return {key for key in threads.map(self._check, claims) if key}

    def _check(self, claim: tuple[Chunk, str]) -> tuple[str, int] | None:
        chunk, digest = claim
        with self._path(chunk.file).open("rb", buffering=0) as stream:
            content = os.pread(stream.fileno(), chunk.length, chunk.begin)
        return chunk.key if hashlib.sha256(content).hexdigest() == digest else None


def _claims(folder: Path, files: list[list[Chunk]]) -> Iterator[tuple[Chunk, str]]:
    """What the journal says is there, and with which digest: to be hashed before it is believed."""
    try:
        lines = (folder / "journal").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return
    last = {match.group(1, 2): match[3] for line in lines if (match := _LINE.fullmatch(line))}
    for (file, number), digest in last.items():
        if int(file) < len(files) and int(number) < len(files[int(file)]):
            yield files[int(file)][int(number)], digest
