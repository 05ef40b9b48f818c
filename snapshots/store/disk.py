"""The store that is a folder: one read-only folder a snapshot, named `sha256-…`. Steps 8 and 9.

    sha256-<64 hex>/     complete, synced, immutable
    .new-…/              at work, or left by a kill: removed by the next who builds
    .pull-sha256-…/      being pulled, or left by a kill: the next who pulls that digest goes on with it (`partial.py`)
    .lock                held, shared, by those at work

A snapshot appears by one rename after its last sync. So kill -9, power loss or a full disk leave all of it or nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pilotlight.files import sync_folder
from snapshots.errors import NotStored, StoreFull
from snapshots.manifest import digest_of_folder, folder_name

UNFINISHED = ".new-"
PULLED = ".pull-"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def digests(store: Path) -> list[str]:
    """What is stored here, sorted. Raises OSError."""
    if not store.exists():
        return []
    return sorted(digest for entry in store.iterdir() if (digest := digest_of_folder(entry.name)) is not None)


def path_of(store: Path, digest: str) -> Path:
    """The folder of a snapshot. Raises NotStored."""
    folder = store / folder_name(digest)
    if not folder.is_dir():
        raise NotStored(
            f"snapshot {digest} is not in {store}: `pilotlight snapshot pack FOLDER` puts it there, `pilotlight snapshot ls` shows what is"
        )
    return folder


@contextmanager
def building(store: Path, size: int) -> Iterator[Path]:
    """An empty folder to build a snapshot of about `size` bytes in; gone afterwards unless published.

    Raises StoreFull, before anything is written where that can be known, and OSError.
    """
    store.mkdir(parents=True, exist_ok=True)
    lock = os.open(store / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _remove_leftovers(store, lock)
        left = free(store)
        if size > left:
            raise StoreFull(no_room(store, size, left))
        work = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=store))
        try:
            yield work
        except OSError as error:
            if error.errno in FULL:
                raise StoreFull(no_room(store, size, left)) from error
            raise
        finally:
            remove_folder(work)
    finally:
        os.close(lock)


def publish(work: Path, store: Path, digest: str) -> Path:
    """Make a folder from `building`, its files already synced, the snapshot `digest`; the same as one already there.
    Raises OSError.
    """
    for parent, _, names in os.walk(work, topdown=False):
        for name in names:
            (Path(parent) / name).chmod(0o444)
        sync_folder(Path(parent))
        Path(parent).chmod(0o755)  # its files are read-only; a folder that is not ours to change, nobody could remove
    target = store / folder_name(digest)
    try:
        work.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    sync_folder(store)
    return target


def _remove_leftovers(store: Path, lock: int) -> None:
    """Remove what a kill has left, unless others are at work now; then hold the lock as one at work."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for leftover in store.glob(f"{UNFINISHED}*"):
            remove_folder(leftover)
    except BlockingIOError:
        pass
    fcntl.flock(lock, fcntl.LOCK_SH)


def remove_folder(folder: Path) -> None:
    """Remove a folder of ours, read-only or not, as far as that is possible."""
    for parent, _, _ in os.walk(folder):
        Path(parent).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def free(folder: Path) -> int:
    """Bytes left on the disk of a folder. Raises OSError."""
    return shutil.disk_usage(folder).free


def no_room(store: Path, size: int, left: int) -> str:
    """What a StoreFull says. Sizes in bytes."""
    remedy = "remove snapshots (`pilotlight snapshot ls`) or use another disk"
    return f"{store} has {left / 1e9:.2f} GB free, the snapshot needs {size / 1e9:.2f} GB: {remedy}"
