"""What lies on this node's disk for its models, and what of it may go to make room. Step 9.

Snapshots, half-fetched snapshots and baked copies share one budget (`snapshots.max_bytes`) and one disk. The longest
unused goes first; when something was last used is the time of a small file, so it survives a restart. Planning is pure
and proposes only (`disk_room.py` carries it out). A node that is the only holder of a snapshot never gives it up, and
what is pinned stays, its copies too. Other baked copies can always be made again. It must survive kill -9 half-way
through a removal: what goes gets another name first.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from snapshots.manifest import digest_of_folder, folder_name
from snapshots.pins import SUFFIX as PIN
from snapshots.pins import pinned
from snapshots.store.disk import PULLED, UNFINISHED, building, remove_folder

log = structlog.get_logger()

RESERVE_BYTES = 256 << 20  # of the disk, left to everything else: journals, logs, Postgres
ORDER = ("baked", "partial", "snapshot")  # of those unused equally long, what is cheapest to have again goes first


Kind = Literal["baked", "partial", "snapshot"]


@dataclass(frozen=True)
class Item:
    """One thing on the disk that may go as a whole."""

    kind: Kind
    digest: str
    folder: Path
    size: int  # bytes on disk
    used_at: float  # seconds since the epoch


class Disk:
    """The folders of one node. Methods block, and raise OSError."""

    def __init__(self, *, store: Path, node_dir: Path, baked: Path) -> None:
        self.store = store
        self.node_dir = node_dir
        self._baked = baked
        self._without_copies: set[str] = set()  # digests

    def use(self, digest: str) -> None:
        """Remember that it is used now. A disk that cannot may let this snapshot go too early; it is here all the
        same.
        """
        try:
            (self.node_dir / f"{folder_name(digest)}.used").touch()
        except OSError as error:
            log.warning(
                "when a snapshot was last used is not kept", action="use_unkept", digest=digest, reason=str(error)
            )

    def link(self, digest: str) -> Path:
        """What replicas open: it leads to where the snapshot is now."""
        return self.node_dir / folder_name(digest)

    def lead(self, digest: str, target: Path) -> None:
        """Let the link lead to `target`, in one step."""
        link = self.link(digest)
        if link.is_symlink() and link.readlink() == target:
            return
        fresh = link.with_name(f".{link.name}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(link)

    def baked(self, digest: str) -> Path:
        return self._baked / folder_name(digest)

    def size_of(self, kind: Kind, digest: str) -> int:
        """Bytes one item takes now; 0 where it is not here."""
        parent = self._baked if kind == "baked" else self.store
        return size_of(parent / f"{PULLED if kind == 'partial' else ''}{folder_name(digest)}")

    def has_copy(self, digest: str, copy: str) -> bool:
        """Has a replica found, or written, its baked copy here? `copy`: what decides which of several it is."""
        folder = self.baked(digest)
        return (folder / _known(copy)).exists() and any(folder.glob("*.safetensors"))

    def know_copy(self, digest: str, copy: str) -> None:
        """A replica has. The mark lies with the copies, so that it goes when they go."""
        with suppress(FileNotFoundError):  # they have gone already
            (self.baked(digest) / _known(copy)).touch()

    def can_have_copies(self, digest: str) -> bool:
        """False once a replica has found that its engine takes this snapshot as it is."""
        return digest not in self._without_copies

    def know_without_copies(self, digest: str) -> None:
        """A replica has found so. It is found out anew where the snapshot goes and comes back."""
        self._without_copies.add(digest)

    def pinned(self) -> frozenset[str]:
        return pinned(self.node_dir)

    def items(self) -> list[Item]:
        found = []
        for entry in _folders(self.store):
            if (digest := digest_of_folder(entry.name)) is not None:
                found.append(Item("snapshot", digest, entry, size_of(entry), self._used_at(digest, entry)))
            elif (
                entry.name.startswith(PULLED)
                and (digest := digest_of_folder(entry.name.removeprefix(PULLED))) is not None
            ):
                found.append(Item("partial", digest, entry, size_of(entry), self._used_at(digest, entry)))
        baked = ((digest_of_folder(entry.name), entry) for entry in _folders(self._baked))
        return found + [
            Item("baked", digest, entry, size_of(entry), self._used_at(digest, entry))
            for digest, entry in baked
            if digest
        ]

    def remove(self, item: Item) -> bool:
        """Remove it, unless another process is pulling it just now."""
        if item.kind == "partial":
            return self._remove_partial(item.folder)
        if item.kind == "snapshot":
            self._without_copies.discard(item.digest)
            for rest in (".stamp", ""):
                (self.node_dir / f"{item.folder.name}{rest}").unlink(missing_ok=True)
        _remove(item.folder)
        return True

    def sweep(self) -> None:
        """At the agent's start: what belongs to a snapshot that is not here any more goes, and so do links of replicas
        long gone.
        """
        for entry in self.node_dir.iterdir():
            if entry.name.endswith(PIN):
                continue  # it outlives its snapshot
            digest = digest_of_folder(entry.name.partition(".")[0])
            if entry.is_symlink() or (digest is not None and not (self.store / folder_name(digest)).is_dir()):
                entry.unlink(missing_ok=True)
        for entry in _folders(self._baked):
            if digest_of_folder(entry.name) is None or not (self.store / entry.name).is_dir():
                _remove(entry)
        with building(self.store, 0):
            pass  # who packs removes what a kill has left; on a node that only fetches nobody does

    def _used_at(self, digest: str, folder: Path) -> float:
        for path in (self.node_dir / f"{folder_name(digest)}.used", folder):
            with suppress(FileNotFoundError):
                return path.stat().st_mtime
        return 0.0

    def _remove_partial(self, folder: Path) -> bool:
        descriptor = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
            folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True


def choose(items: Collection[Item], stay: Collection[str]) -> list[Item]:
    """What may go, in the order in which it goes: the longest unused first, nothing of a digest that is to stay.
    Pure.
    """
    return sorted(
        (item for item in items if item.digest not in stay), key=lambda item: (item.used_at, ORDER.index(item.kind))
    )


def room(*, max_bytes: int, taken: int, free: int) -> int:
    """Bytes that may still be taken: of the budget (0: none is set), and of the disk but for a reserve. Pure."""
    disk = free - RESERVE_BYTES
    return min(disk, max_bytes - taken) if max_bytes else disk


def size_of(folder: Path) -> int:
    """Bytes the files below a folder take on disk; what goes meanwhile counts nothing, what has two names (while it is
    published) half for each."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                state = (Path(parent) / name).lstat()
                total += state.st_blocks * 512 // max(1, state.st_nlink)
    return total


def _known(copy: str) -> str:
    return f"known-{hashlib.sha256(copy.encode()).hexdigest()[:16]}"


def _folders(parent: Path) -> list[Path]:
    return [entry for entry in parent.iterdir() if entry.is_dir() and not entry.is_symlink()] if parent.is_dir() else []


def _remove(folder: Path) -> None:
    """Under a name that nothing is looked for, so that a kill leaves no half snapshot; `.new-…` is removed by who packs
    next.
    """
    aside = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder.parent))
    folder.chmod(0o700)
    folder.rename(aside / folder.name)
    remove_folder(aside)
