"""A snapshot half fetched: which chunks of which files are on disk and good, so that none of them is fetched twice. Step 9.

    .pull-sha256-…/files/…     the files, at their full length, with holes
    .pull-sha256-…/journal     a line a chunk, written after it: number of the file, number of the chunk, SHA-256

It must survive kill -9 and power loss at any moment: what the journal claims is hashed again before it is believed, so
that a chunk whose bytes never reached the disk is fetched again, and a line cut short is no line.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pilotlight.files import write_atomic
from snapshots.manifest import CHUNK, MANIFEST, Manifest, SnapshotFile
from snapshots.store.disk import free, publish, remove_folder

THREADS = 4  # hashing releases the interpreter lock
_LINE = re.compile(r"(\d{1,9}) (\d{1,9}) ([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class Chunk:
    file: SnapshotFile
    number: int
    begin: int  # bytes
    length: int
    sha256: str | None  # None where the manifest knows no chunks

    @property
    def key(self) -> tuple[str, int]:
        return self.file.path, self.number


def chunks_of(file: SnapshotFile) -> list[Chunk]:
    """The chunks of a file, in order; none of an empty one."""
    known = file.chunks or ((file.sha256,) if file.size <= CHUNK else ())
    return [
        Chunk(file, number, begin, min(CHUNK, file.size - begin), known[number] if known else None)
        for number, begin in enumerate(range(0, file.size, CHUNK))
    ]


class Partial:
    """The files of one snapshot on their way into the store. Methods may run in any thread; raises OSError everywhere."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder, self._files, self._manifest = folder, folder / "files", manifest
        self._numbers = {file.path: number for number, file in enumerate(manifest.files)}
        self._files.mkdir(parents=True, exist_ok=True)
        for file in manifest.files:
            path = self._path(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as stream:
                stream.truncate(file.size)
        self._chunks = {file.path: chunks_of(file) for file in manifest.files}
        self._good = self._believed()
        self._journal = (folder / "journal").open("ab", buffering=0)

    def close(self) -> None:
        self._journal.close()

    def room(self) -> int:
        """Bytes the disk can still take."""
        return free(self._folder)

    def missing(self) -> list[Chunk]:
        return [chunk for chunks in self._chunks.values() for chunk in chunks if chunk.key not in self._good]

    def write(self, chunk: Chunk, content: bytes) -> bool:
        """Keep a chunk, if it is what the manifest says; where the manifest does not say, `whole` will tell."""
        digest = hashlib.sha256(content).hexdigest()
        if len(content) != chunk.length or chunk.sha256 not in (None, digest):
            return False
        with self._path(chunk.file).open("r+b", buffering=0) as stream:
            written = 0
            while written < chunk.length:
                written += os.pwrite(stream.fileno(), memoryview(content)[written:], chunk.begin + written)
        self._journal.write(f"{self._numbers[chunk.file.path]} {chunk.number} {digest}\n".encode())
        self._good.add(chunk.key)
        return True

    def whole(self, file: SnapshotFile) -> bool:
        """Is a file, all of whose chunks are there, what the manifest says? Then also make it durable.

        Where the manifest knows chunks, each was checked as it came, and hashing all of it again would tell nothing new.
        """
        chunks = self._chunks[file.path]
        with self._path(file).open("rb", buffering=0) as stream:
            unchecked = not chunks or chunks[0].sha256 is None
            if unchecked and hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
                self._good.difference_update(chunk.key for chunk in chunks)
                return False
            os.fsync(stream.fileno())
        return True

    def publish(self, store: Path) -> Path:
        """All files are whole: the snapshot appears in the store."""
        write_atomic(self._files / MANIFEST, self._manifest.canonical())
        target = publish(self._files, store, self._manifest.digest)
        self.remove()
        return target

    def remove(self) -> None:
        self.close()
        remove_folder(self._folder)

    def _path(self, file: SnapshotFile) -> Path:
        return self._files / file.path

    def _believed(self) -> set[tuple[str, int]]:
        claims = [(chunk, digest) for chunk, digest in self._claims() if chunk.sha256 in (None, digest)]
        with ThreadPoolExecutor(THREADS) as threads:
            return {key for key in threads.map(self._check, claims) if key}

    def _claims(self) -> Iterator[tuple[Chunk, str]]:
        try:
            lines = (self._folder / "journal").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return
        files = list(self._chunks.values())
        last = {match.group(1, 2): match[3] for line in lines if (match := _LINE.fullmatch(line))}
        for (file, number), digest in last.items():
            if int(file) < len(files) and int(number) < len(files[int(file)]):
                yield files[int(file)][int(number)], digest

    def _check(self, claim: tuple[Chunk, str]) -> tuple[str, int] | None:
        chunk, digest = claim
        with self._path(chunk.file).open("rb", buffering=0) as stream:
            content = os.pread(stream.fileno(), chunk.length, chunk.begin)
        return chunk.key if hashlib.sha256(content).hexdigest() == digest else None
