"""Which snapshots an operator wants kept on this node: an empty file each, `sha256-….pin`. Step 9.

A mark is durable and belongs to no process: the command line sets and removes it, the agent looks each time it makes
room. It must survive restarts, and the snapshot itself: what is fetched again is kept again.
"""

from __future__ import annotations

from pathlib import Path

from pilotlight.files import sync_folder, write_atomic
from snapshots.manifest import digest_of_folder, folder_name

SUFFIX = ".pin"


def pin(node_dir: Path, digest: str) -> None:
    """Keep it. Raises NotStored where it is not a digest, OSError."""
    write_atomic(_mark(node_dir, digest), b"")


def unpin(node_dir: Path, digest: str) -> None:
    """It may go again. Raises NotStored where it is not a digest, OSError."""
    _mark(node_dir, digest).unlink(missing_ok=True)
    sync_folder(node_dir)


def pinned(node_dir: Path) -> frozenset[str]:
    """The digests that are to be kept. Raises OSError."""
    if not node_dir.is_dir():
        return frozenset()
    marks = (entry.name.removesuffix(SUFFIX) for entry in node_dir.iterdir() if entry.name.endswith(SUFFIX))
    return frozenset(digest for name in marks if (digest := digest_of_folder(name)) is not None)


def _mark(node_dir: Path, digest: str) -> Path:
    return node_dir / f"{folder_name(digest)}{SUFFIX}"
