"""A snapshot on its way to this disk: which of its bytes are there and good, for other processes to read. Step 9.

    arrival                   byte 0 says how the fetch stands; then a byte a chunk, in the manifest's order:
                              0 on its way, 1 there and good
    manifest.json, files/…    what the bytes are of, and where

    on its way ──every file is good──► complete
        └────────the writer ends or dies──► failed; the next try writes a new file

The writer maps the file and holds its lock for as long as it works, so that readers learn of its death from the kernel.
They must not wait for one that was killed. Readers look every millisecond: a chunk takes several, and a write to mapped
memory wakes nobody. Nothing here is durable or believed later; what survives a death is the journal (`partial.py`).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from pathlib import Path

from snapshots.errors import SnapshotError
from snapshots.manifest import CHUNK, MANIFEST, Manifest

ARRIVAL = "arrival"
FILES = "files"
LOOK_SECONDS = 0.001
ALIVE_SECONDS = 0.25  # between two looks whether the writer lives
_COMING, _COMPLETE, _FAILED = 0, 1, 2
_GOOD = 1


class FetchEnded(SnapshotError):
    """Who fetched a snapshot has failed or died before all of it was there."""


def _firsts(manifest: Manifest) -> tuple[dict[str, int], int]:
    """The number of each file's first chunk, and how many chunks there are in all."""
    firsts, number = {}, 0
    for file in manifest.files:
        firsts[file.path] = number
        number += -(-file.size // CHUNK)
    return firsts, number


def arrived(folder: Path) -> float | None:
    """The part of a snapshot's chunks that is there and good, 0 to 1; None where nothing is on its way."""
    try:
        chunks = (folder / ARRIVAL).read_bytes()[1:]
    except OSError:
        return None
    return chunks.count(_GOOD) / len(chunks) if chunks else None


class Writer:
    """The writer's side: made anew for each try, so that who reads an earlier one's sees it dead."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Raises OSError."""
        self._firsts, count = _firsts(manifest)
        (folder / MANIFEST).write_bytes(manifest.canonical())
        fresh = folder / f"{ARRIVAL}.new"
        self._descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        os.posix_fallocate(self._descriptor, 0, 1 + count)
        self._map = mmap.mmap(self._descriptor, 1 + count)
        fresh.replace(folder / ARRIVAL)

    def good(self, path: str, number: int) -> None:
        self._map[1 + self._firsts[path] + number] = _GOOD

    def complete(self) -> None:
        self._map[0] = _COMPLETE

    def close(self) -> None:
        """All there is to tell has been told: what is not whole now has failed."""
        if self._descriptor >= 0:
            if self._map[0] != _COMPLETE:
                self._map[0] = _FAILED
            os.close(self._descriptor)
            self._descriptor = -1


class Arrival:
    """A reader's side."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError where nothing is on its way (any more), OSError."""
        self._descriptor = os.open(folder / ARRIVAL, os.O_RDONLY | os.O_CLOEXEC)
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        self._firsts, count = _firsts(manifest)
        self._map = mmap.mmap(self._descriptor, 1 + count, prot=mmap.PROT_READ)
        self.waited = 0.0  # seconds, all waits together

    def wait(self, path: str, begin: int, end: int) -> None:
        """Return when these bytes of a file are there and good. Raises FetchEnded."""
        if begin >= end or self._map[0] == _COMPLETE:
            return
        first = 1 + self._firsts[path] + begin // CHUNK
        wanted = bytes([_GOOD]) * ((end - 1) // CHUNK - begin // CHUNK + 1)
        since = looked = time.monotonic()
        while self._map[first : first + len(wanted)] != wanted:
            now = time.monotonic()
            if self._map[0] == _FAILED or (now - looked > ALIVE_SECONDS and self._is_orphan()):
                raise FetchEnded(f"the fetch of {path} ended before bytes {begin} to {end} were there")
            looked = now if now - looked > ALIVE_SECONDS else looked
            time.sleep(LOOK_SECONDS)
        self.waited += time.monotonic() - since

    def _is_orphan(self) -> bool:
        """Nobody holds the lock, and nothing is whole."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return self._map[0] != _COMPLETE
