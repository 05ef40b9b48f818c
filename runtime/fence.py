"""Fencing: a command older than one already seen comes from an activator that no longer leads. Step 7.

The epoch is kept in a file, written before its first command is obeyed: an agent started anew refuses the old leader too.
The file has its full size from the first moment and is overwritten in place, one of two halves at a time, each with its
checksum: a disk without room takes a new epoch as well, and a write that was cut off leaves the other half. The failure left
is a disk that takes nothing at all (EIO, EROFS, or no room for the file when it was first made). Then control goes on: within
this agent's life the epoch in memory refuses what is older, and the file is written as soon as the disk lets us (`retry`,
once a second). An agent that has to start anew on such a disk cannot make its socket, so it obeys nobody at all.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import structlog

from pilotlight.files import write_atomic

log = structlog.get_logger()

HALF = 512  # bytes: a disk's smallest sector, which is written whole or not


class Fence:
    """`write` is the disk: `keep`, or a broken one in tests."""

    def __init__(self, file: Path, *, write: Callable[[Path, int], None] | None = None) -> None:
        self._file, self._write = file, write or keep
        kept = read(file)
        self.highest = (kept, 0)
        self._kept: int | None = kept if _is_whole(file) else None  # the epoch on disk; None: no file that can be overwritten
        self.retry()

    def admit(self, at: tuple[int, int]) -> bool:
        """Is a command of this (epoch, sequence) not older than what was seen? If so it is the highest now. Never raises."""
        if at < self.highest:
            return False
        self.highest = at
        self.retry()
        return True

    def retry(self) -> None:
        """Write the highest epoch where the file does not have it."""
        epoch, failing = self.highest[0], self._kept is not None and self._kept < 0
        if self._kept == epoch:
            return
        try:
            self._write(self._file, epoch)
        except OSError as error:
            if not failing:
                log.error("the fence is not kept on disk; obeying all the same", action="fence_unkept", epoch=epoch, reason=str(error))
            self._kept = -1
        else:
            self._kept = epoch


def keep(file: Path, epoch: int) -> None:
    """Have the file hold this epoch, durably: in place where it has its full size. Raises OSError."""
    if not _is_whole(file):
        write_atomic(file, _half(read(file)) + _half(epoch))
        return
    halves = [_epoch_of(half) for half in _halves(file.read_bytes())]
    lower = halves.index(min(halves))
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if os.pwrite(descriptor, _half(epoch), lower * HALF) != HALF:
            raise OSError(f"{file} was written in part")
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def read(file: Path) -> int:
    """The highest epoch in it; 0 where there is none that can be read. Releases before this one wrote "EPOCH SEQUENCE"."""
    try:
        content = file.read_bytes()
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.error("the fence cannot be read; beginning without one", action="fence_unread", reason=str(error))
        return 0
    epochs = [_epoch_of(half) for half in _halves(content)]
    with contextlib.suppress(ValueError):
        epochs.append(int(content.split()[0]) if len(content.split()) == 2 else 0)
    return max(epochs)


def _is_whole(file: Path) -> bool:
    with contextlib.suppress(OSError):
        return file.stat().st_size == 2 * HALF
    return False


def _halves(content: bytes) -> tuple[bytes, bytes]:
    return content[:HALF], content[HALF : 2 * HALF]


def _half(epoch: int) -> bytes:
    text = b"%d" % epoch
    return (b"epoch %s %08x\n" % (text, zlib.crc32(text))).ljust(HALF)


def _epoch_of(half: bytes) -> int:
    """0 for a half that was cut off, or never written."""
    parts = half.split()
    if len(parts) == 3 and parts[0] == b"epoch" and parts[1].isdigit() and parts[2] == b"%08x" % zlib.crc32(parts[1]):
        return int(parts[1])
    return 0
