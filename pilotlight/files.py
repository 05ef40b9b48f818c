"""Files that are either complete or absent: how keys, certificates, addresses and stamps are written.

Each write goes to a new file beside the target, is synced, and takes the target's name in one step. So kill -9 or power
loss at any moment leaves the old content or the new, never a part. A secret is never readable by others.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from pathlib import Path

MADV_POPULATE_WRITE = 23


def write_atomic(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` with `content`. Raises OSError; the old content then still stands."""
    temporary = _written_beside(path, content, mode)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_once(path: Path, content: bytes, *, mode: int = 0o600) -> bytes:
    """Make `path` unless it is there, and return what it holds: of two processes that race, both get the winner's.
    Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()  # nearly always: nothing is written, nothing waits for the disk
    temporary = _written_beside(path, content, mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return path.read_bytes()
    finally:
        temporary.unlink()
    sync_folder(path.parent)
    return content


def populate(mapped: mmap.mmap, begin: int, length: int) -> None:
    """Take the pages of a mapped file now, many at once: one by one, as they are first written, they cost several times
    as much.

    `begin` lies on a page. A kernel that does not know how (before Linux 5.14) leaves them to the writer.
    """
    with contextlib.suppress(OSError):
        mapped.madvise(MADV_POPULATE_WRITE, begin, length)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written_beside(path: Path, content: bytes, mode: int) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600 from the first moment
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)
