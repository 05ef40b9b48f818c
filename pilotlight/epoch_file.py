"""An epoch that is kept on disk: the highest under which this node has obeyed, or this machine has led. Steps 6 and 7.

The file has its full size from the first moment. It is overwritten in place, one of two halves at a time, each with its
checksum. So a disk without room takes a new epoch as well, and a write that was cut off leaves the other half. The
failure left is a disk that takes nothing at all (EIO, EROFS, or no room when the file was first made): `keep` raises.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path

import structlog

from pilotlight.files import write_atomic

log = structlog.get_logger()

HALF = 512  # bytes: a disk's smallest sector, which is written whole or not


def keep(file: Path, epoch: int) -> None:
    """Have the file hold this epoch, durably: in place where it has its full size. Raises OSError."""
    if not is_full_size(file):
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
    """The highest epoch in it; 0 where there is none that can be read. Releases before this one wrote "EPOCH
    SEQUENCE".
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            log.error("an epoch cannot be read; beginning without one", action="epoch_unread", reason=str(error))
        return 0
    epochs = [_epoch_of(half) for half in _halves(content)]
    with contextlib.suppress(ValueError):
        epochs.append(int(content.split()[0]) if len(content.split()) == 2 else 0)
    return max(epochs)


def is_full_size(file: Path) -> bool:
    """Has it its full size, so that it can be overwritten in place?"""
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
