"""The chunks of a snapshot's files: what a transfer fetches, and checks, at once. Step 9. Pure.

A manifest knows the SHA-256 of each chunk of a long file. One from before there were chunks knows those of files alone:
then a chunk is checked only with its file.
"""

from __future__ import annotations

from dataclasses import dataclass

from snapshots.manifest import CHUNK, SnapshotFile


@dataclass(frozen=True)
class Chunk:
    """A run of one file's bytes that is fetched and checked at once."""

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
